"""Train a small classifier on this dataset, drawing every group equally often; needs torch, pyarrow and pillow.

    python train.py --data FOLDER [--epochs 10] [--seed 0]

Rows are drawn by `sample_weight` where the dataset has it and by one over the size of their group otherwise.
The last lines are the accuracy in every group of the test split, which holds real images only.
"""
import argparse, collections, io, json, pathlib
import pyarrow.parquet as pq, torch
from PIL import Image
from torch.utils.data import DataLoader, TensorDataset, WeightedRandomSampler

LABEL, GROUP, SIZE = {{ columns }}


def read(folder, split):
    files = sorted(pathlib.Path(folder, "data").glob(f"{split}-*.parquet"))
    if not files:
        raise SystemExit(f"there is no data/{split}-*.parquet in {folder}")
    metadata = pq.read_schema(files[0]).metadata or {}
    features = json.loads(metadata.get(b"huggingface", b"{}")).get("info", {}).get("features", {})
    names = {column: feature["names"] for column, feature in features.items() if feature.get("_type") == "ClassLabel"}
    rows = [row for file in files for row in pq.read_table(file).to_pylist() if row[LABEL] not in (None, -1)]
    for row in rows:
        row.update({column: known[row[column]] for column, known in names.items() if row[column] not in (None, -1)})
    pictures = [Image.open(io.BytesIO(row["image"]["bytes"])).convert("RGB").resize((SIZE, SIZE)) for row in rows]
    pixels = torch.stack([torch.frombuffer(bytearray(p.tobytes()), dtype=torch.uint8) for p in pictures])
    return rows, pixels.view(-1, SIZE, SIZE, 3).permute(0, 3, 1, 2).float() / 127.5 - 1


def group(row):
    return " & ".join(f"{column}={row[column]}" for column in GROUP)


parser = argparse.ArgumentParser()
parser.add_argument("--data", default=pathlib.Path(__file__).parent)
parser.add_argument("--epochs", type=int, default=10)
parser.add_argument("--seed", type=int, default=0)
args = parser.parse_args()
torch.manual_seed(args.seed)

(rows, x), (test_rows, test_x) = read(args.data, "train"), read(args.data, "test")
classes = {name: i for i, name in enumerate(sorted({row[LABEL] for row in rows}))}
y = torch.tensor([classes[row[LABEL]] for row in rows])
sizes = collections.Counter(map(group, rows))
weights = [1 / sizes[group(row)] if row.get("sample_weight") is None else row["sample_weight"] for row in rows]
loader = DataLoader(TensorDataset(x, y), 128, sampler=WeightedRandomSampler(weights, len(weights)))

widths = [3, 32, 64, 128]
layers = [torch.nn.Sequential(torch.nn.Conv2d(a, b, 3, stride=2, padding=1), torch.nn.BatchNorm2d(b), torch.nn.ReLU())
          for a, b in zip(widths, widths[1:])]
head = [torch.nn.AdaptiveAvgPool2d(2), torch.nn.Flatten(), torch.nn.Linear(widths[-1] * 4, len(classes))]
model = torch.nn.Sequential(*layers, *head)
optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3)
for epoch in range(args.epochs):
    for images, labels in loader:
        loss = torch.nn.functional.cross_entropy(model(images), labels)
        optimiser.zero_grad(), loss.backward(), optimiser.step()
    print(f"epoch {epoch + 1}: loss {loss.item():.3f}", flush=True)

model.eval()
with torch.no_grad():
    guesses = torch.cat([model(part).argmax(1) for part in test_x.split(512)]).tolist()
hits = collections.defaultdict(list)
for row, guess in zip(test_rows, guesses):
    hits[group(row)].append(classes.get(row[LABEL]) == guess)
for name, right in sorted(hits.items(), key=lambda item: sum(item[1]) / len(item[1])):
    print(f"{sum(right) / len(right):7.1%} of {len(right):5}  {name}")
print(f"{sum(map(sum, hits.values())) / len(test_rows):7.1%} of {len(test_rows):5}  all test images")
