"""Loads a dataset that evenset wrote with the Hugging Face library `datasets`, as its users will.

    python check_hf.py FOLDER

FOLDER holds `data/{split}-*.parquet` and, if tars were written too, `webdataset/{split}-*.tar` (or the tars
themselves). Every image is decoded; class names, row counts and image bytes must agree between the Parquet files, what
`datasets` gives, and the tars. Prints what it saw; exits with 1 at the first mismatch. Needs `datasets` and `pillow`.
"""

import io
import json
import sys
import tempfile
from pathlib import Path

import pyarrow.parquet as pq
from datasets import ClassLabel, Image, load_dataset
from PIL import Image as PilImage


def check(condition, message):
    if not condition:
        sys.exit(f"mismatch: {message}")


def shards(folder, extension):
    """The files of each split, in order."""
    found = {}
    for path in sorted(folder.glob(f"*.{extension}")):
        found.setdefault(path.name.split("-")[0], []).append(str(path))
    return found


def columns_of(features, kind):
    return [name for name, feature in features.items() if isinstance(feature, kind)]


def check_parquet(files, cache):
    dataset = load_dataset("parquet", data_files=files, cache_dir=cache)
    images = {}
    for split, rows in dataset.items():
        stored = [pq.ParquetFile(path) for path in files[split]]
        check(rows.num_rows == sum(file.metadata.num_rows for file in stored), f"{split}: number of rows")
        said = json.loads(stored[0].schema_arrow.metadata[b"huggingface"])["info"]["features"]
        for name, feature in said.items():
            loaded = rows.features[name]
            if feature["_type"] == "ClassLabel":
                check(isinstance(loaded, ClassLabel), f"{split}: {name} is {loaded}")
                check(loaded.names == feature["names"], f"{split}: class names of {name}")
            check((feature["_type"] == "Image") == isinstance(loaded, Image), f"{split}: {name} is {loaded}")
        image = columns_of(rows.features, Image)
        check(len(image) == 1, f"{split}: image columns {image}")
        image = image[0]
        raw = rows.cast_column(image, Image(decode=False))[image]
        for row, (decoded, file) in enumerate(zip(rows[image], raw)):
            decoded.load()
            with PilImage.open(io.BytesIO(file["bytes"])) as expected:
                check(decoded.size == expected.size, f"{split}: size of the image in row {row}")
                check(decoded.tobytes() == expected.tobytes(), f"{split}: pixels of the image in row {row}")
            check("/" not in (file["path"] or ""), f"{split}: path {file['path']} is not a base name")
        images[split] = [file["bytes"] for file in raw]
        classes = {name: rows.features[name].names for name in columns_of(rows.features, ClassLabel)}
        for name, names in classes.items():
            values = [value for value in rows[name] if value is not None]
            check(all(-1 <= value < len(names) for value in values), f"{split}: class index in {name}")
        others = [name for name in rows.column_names if name != image]
        print(f"parquet {split}: {rows.num_rows} rows, {rows[0][image].size} first image, classes {classes}")
        print(f"    first row {rows.select_columns(others)[0]}")
    return images


def check_webdataset(files, cache, expected):
    for split, paths in files.items():
        rows = load_dataset("webdataset", data_files={split: paths}, split=split, streaming=True)
        image = None
        count = 0
        for row in rows:
            if image is None:
                image = next(name for name in ("png", "jpg", "webp") if name in row)
                print(f"webdataset {split}: columns {sorted(row)}")
                print(f"    first json {row['json']}, class {row.get('cls')}")
            check(row[image] is not None, f"{split}: sample {row['__key__']} has no {image}")
            row[image].load()
            if expected is not None:
                with PilImage.open(io.BytesIO(expected[split][count])) as same:
                    check(row[image].convert("RGB").tobytes() == same.convert("RGB").tobytes(), f"{split}: image {count}")
            count += 1
        if expected is not None:
            check(count == len(expected[split]), f"{split}: {count} samples for {len(expected[split])} rows")
        print(f"webdataset {split}: {count} samples")


def main():
    folder = Path(sys.argv[1])
    parquet = shards(folder / "data", "parquet")
    tars = shards(folder / "webdataset", "tar") or shards(folder, "tar")
    check(parquet or tars, f"{folder} holds neither data/*.parquet nor tars")
    with tempfile.TemporaryDirectory() as cache:
        images = check_parquet(parquet, cache) if parquet else None
        if tars:
            check_webdataset(tars, cache, images)
    print("ok")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main()
