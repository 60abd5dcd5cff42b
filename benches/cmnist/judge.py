#!/usr/bin/env python3
"""How many accepted images show another digit than asked, by a classifier that was trained on digits in all colours.

  judge.py EVEN OUT ...     EVEN is a dataset of make-cmnist in colours drawn evenly; OUT balanced datasets that evenset wrote

The classifier sees brightness alone, so that no colour can lead it. It has seen what the job had not, so this is a look from
outside and no gate. Needs torch, pyarrow, pillow and numpy.
"""
import io
import pathlib
import sys

import numpy
import pyarrow.parquet as parquet
import torch
from PIL import Image
from torch import nn

STEPS = 1500


def brightness(cells):
    images = numpy.stack([numpy.asarray(Image.open(io.BytesIO(cell["bytes"])).convert("RGB")) for cell in cells])
    grey = torch.from_numpy(images).float().amax(3).unsqueeze(1)
    return grey / grey.amax((2, 3), keepdim=True).clamp(min=25)


def labels(table):
    return torch.tensor([int(digit) for digit in table["digit"].to_pylist()])


def trained(images, digits):
    net = nn.Sequential(nn.Conv2d(1, 24, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(24, 48, 3, padding=1), nn.ReLU(),
                        nn.MaxPool2d(2), nn.Flatten(), nn.Linear(48 * 49, 128), nn.ReLU(), nn.Dropout(0.3), nn.Linear(128, 10))
    optimiser = torch.optim.Adam(net.parameters(), 2e-3)
    random = numpy.random.default_rng(0)
    for step in range(STEPS):
        rows = torch.randint(0, len(images), (128,))
        moved = torch.roll(images[rows], tuple(int(x) for x in random.integers(-2, 3, 2)), (2, 3))
        loss = nn.functional.cross_entropy(net(moved), digits[rows])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        for group in optimiser.param_groups:
            group["lr"] = 2e-3 * (1 - step / STEPS)
    return net.eval()


def wrong(net, images, digits):
    with torch.no_grad():
        found = torch.cat([net(part).argmax(1) for part in images.split(1000)])
    return 100 * (found != digits).float().mean().item()


def main(even, outs):
    torch.manual_seed(0)
    split = {name: parquet.read_table(next(pathlib.Path(even).rglob(f"{name}-*.parquet"))) for name in ("train", "test")}
    net = trained(brightness(split["train"]["image"].to_pylist()), labels(split["train"]))
    print(f"real test images: {wrong(net, brightness(split['test']['image'].to_pylist()), labels(split['test'])):.2f} % read otherwise")
    for out in outs:
        table = parquet.read_table(sorted(pathlib.Path(out, "data").glob("train-*.parquet")))
        table = table.filter(table["is_synthetic"])
        share = wrong(net, brightness(table["image"].to_pylist()), labels(table))
        print(f"{out}: {table.num_rows} generated images, {share:.2f} % read otherwise")


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(sys.argv[1], sys.argv[2:])
