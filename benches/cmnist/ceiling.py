#!/usr/bin/env python3
"""The ceiling of what generated images can do: a dataset whose small groups are filled up with real images instead.

  ceiling.py DATA EVEN IMAGES OUT     DATA and EVEN are datasets of make-cmnist of the same digits, EVEN's in colours drawn
                                      evenly; every group of DATA with fewer than IMAGES gets those of EVEN, as far as they go

Then, as even.yaml is run on other data (`oversample` is what `balanced` would be):

  evenset run benches/cmnist/even.yaml --set dataset.path=OUT --set run=target/cmnist/run-ceiling \\
      --set write.out=target/cmnist/out-ceiling --set "evidence.baselines=[as-is, oversample]"

Needs pyarrow.
"""
import collections
import pathlib
import random
import shutil
import sys

import pyarrow
import pyarrow.parquet as parquet


def file(folder, split):
    return next(pathlib.Path(folder).rglob(f"{split}-*.parquet"))


def main(data, even, images, out):
    few, all_colours = (parquet.read_table(file(folder, "train")) for folder in (data, even))
    groups = lambda table: zip(table["digit"].to_pylist(), table["colour"].to_pylist())
    have = collections.Counter(groups(few))
    of_row = list(groups(all_colours))
    rows = list(range(len(of_row)))
    random.Random(0).shuffle(rows)
    taken = []
    for row in rows:
        if have[of_row[row]] < images:
            have[of_row[row]] += 1
            taken.append(row)
    whole = pyarrow.concat_tables([few, all_colours.take(sorted(taken))])
    folder = pathlib.Path(out) / file(data, "train").parent.relative_to(data)
    folder.mkdir(parents=True, exist_ok=True)
    parquet.write_table(whole.replace_schema_metadata(few.schema.metadata), folder / file(data, "train").name)
    shutil.copy(file(data, "test"), folder / file(data, "test").name)
    print(f"{len(taken)} real images added; the smallest group has {min(have.values())}")


if __name__ == "__main__":
    if len(sys.argv) != 5:
        sys.exit(__doc__)
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4])
