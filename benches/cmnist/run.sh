#!/usr/bin/env bash
# Colored MNIST at the shares of the literature, for its two classifiers, into one table.
#
#     benches/cmnist/run.sh MNIST_FOLDER [SHARE ...]        # shares default to 0.005 0.01 0.02 0.05
#
# MNIST_FOLDER holds train.parquet and test.parquet (columns `image` and `label`), or MNIST's four IDX files. Everything else
# goes to target/cmnist; a run that was interrupted goes on where it was. The table is printed and stands in
# target/cmnist/table.md.
set -euo pipefail
cd "$(dirname "$0")/../.."
[ $# -ge 1 ] || { sed -n '2,9p' "$0"; exit 2; }
mnist=$(realpath "$1")
shift
shares=("$@")
[ ${#shares[@]} -gt 0 ] || shares=(0.005 0.01 0.02 0.05)
work=target/cmnist
mkdir -p "$work"
cargo build --release --locked
evenset="${CARGO_TARGET_DIR:-target}/release/evenset"

data() { # a share, or `even`
    [ -d "$work/data-$1" ] || cargo run --release --locked -q --example make-cmnist -- \
        "$mnist" "$work/data-$1" "$1"
}

# The two classifiers: the fully connected one as the job has it, and a small convolutional one; and the first with the
# training images of every arm changed at random.
mlp=()
cnn=(--set evidence.classifier=cnn --set evidence.width=12 --set evidence.steps=6000 --set evidence.batch=64
    --set evidence.learning_rate=0.006 --set "evidence.baselines=[as-is, oversample, reweight]" --set "evidence.variants=[]")
mlp_augmented=(--set evidence.augment=true --set "evidence.baselines=[as-is, oversample, reweight]"
    --set "evidence.variants=[]")
classifiers=(mlp cnn mlp_augmented)

prove() { # job, name of the data, classifier
    local -n settings=$3
    local ideal=()
    [ "$1" != even ] || ideal=(--set "evidence.baselines=[as-is]")
    # A target that was missed (exit code 3) is part of the result.
    "$evenset" run "benches/cmnist/$1.yaml" --set dataset.path="$work/data-$2" --set run="$work/run-$2" \
        --set write.out="$work/out-$2" --overwrite ${settings[@]+"${settings[@]}"} ${ideal[@]+"${ideal[@]}"} || [ $? -eq 3 ]
    cp "$work/run-$2/report.json" "$work/$2-${3/_/-}.json"
}

data even
for classifier in "${classifiers[@]}"; do prove even even "$classifier"; done
for share in "${shares[@]}"; do
    data "$share"
    for classifier in "${classifiers[@]}"; do prove cmnist "$share" "$classifier"; done
done
python3 benches/cmnist/table.py "$work" | tee "$work/table.md"
