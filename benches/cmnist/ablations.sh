#!/usr/bin/env bash
# What each part of the job is worth: Colored MNIST at 1 %, the fully connected classifier, one change at a time.
#
#     benches/cmnist/ablations.sh            # after run.sh, whose data it uses
#     benches/cmnist/ablations.sh NAME ...   # some of them
#
# All with 100 images a group and a generator of 2,000 steps, so that a dozen of them take an hour or two. The table is
# printed and stands in target/cmnist/ablations.md.
set -euo pipefail
cd "$(dirname "$0")/../.."
work=target/cmnist
evenset="${EVENSET:-${CARGO_TARGET_DIR:-target}/release/evenset}"
[ -x "$evenset" ] || { echo "run benches/cmnist/run.sh first: it builds evenset and makes the data" >&2; exit 2; }
mkdir -p "$work/ablations"
declare -A change=(
    [base]="seed=1"
    [from-noise]="generate.guides={below: 0}"
    [from-noise-guidance-1.5]="generate.guides={below: 0};generate.sampler.guidance=1.5"
    [noised-guides]="generate.guides={below: 1000, strengths: [0.6, 0.8], sources: [same-label], noise: false}"
    [guidance-1.5]="generate.sampler.guidance=1.5"
    [guidance-2]="generate.sampler.guidance=2"
    [no-attributes-gate]="verify.gates=[decode]"
    [balance-0]="generate.model.balance=0"
    [balance-0.8]="generate.model.balance=0.8"
    [dropout-0]="generate.model.attribute_dropout=0"
    [images-30]="plan.target.images=30"
)
quick=(--set plan.target.images=100 --set generate.model.steps=2000 --set generate.sampler.steps=8
    --set generate.guides.inversion_noise=0 --set "evidence.baselines=[as-is]" --set "evidence.variants=[]")
order=(base from-noise from-noise-guidance-1.5 noised-guides guidance-1.5 guidance-2 no-attributes-gate balance-0 balance-0.8
    dropout-0 images-30)
[ $# -eq 0 ] || order=("$@")

for name in "${order[@]}"; do
    settings=()
    while read -r -d ';' one; do settings+=(--set "$one"); done <<< "${change[$name]};"
    "$evenset" run benches/cmnist/cmnist.yaml --set dataset.path="$work/data-0.01" --set run="$work/run-ablations" \
        --set write.out="$work/out-ablations" --overwrite "${quick[@]}" "${settings[@]}" || [ $? -eq 3 ]
    cp "$work/run-ablations/report.json" "$work/ablations/$name.json"
done
python3 benches/cmnist/table.py --ablations "$work/ablations" | tee "$work/ablations.md"
