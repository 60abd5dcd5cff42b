#!/usr/bin/env python3
"""The tables of docs/evidence.md: table.py FOLDER from the reports that run.sh left, table.py --ablations FOLDER from those
of ablations.sh.

One row an arm, one column a share, for each classifier: accuracy on the unbiased test images, in per cent, with its 95 %
interval over test images and seeds. Below: the share of the distance between group-balanced sampling of the real images
(oversample) and the ideal (even colours) that the balanced data closes.
"""
import json
import pathlib
import sys

NAMES = {
    "as-is": "plain",
    "oversample": "group-balanced sampling of the real images",
    "reweight": "inverse-frequency weights",
    "match-weights": "matched weights, p(a\\|y) to p(a)",
    "group-dro": "GroupDRO",
    "generated-only": "generated images alone",
    "balanced": "**balanced by evenset**",
    "balanced-discount": "the same, generated images at half weight",
    "balanced-last-layer": "the same, last layer tuned on real images",
}


TITLES = {"mlp": "MLP", "cnn": "CNN", "mlp-augmented": "MLP, augmented"}


def arms(path):
    evidence = json.loads(path.read_text())["evidence"]
    return {arm["name"]: arm for arm in evidence["arms"]}


def cell(arm):
    low, high = arm["accuracy_interval"]
    return f"{100 * arm['accuracy']:.1f} ({100 * low:.1f} to {100 * high:.1f})"


def main(folder):
    for classifier, title in TITLES.items():
        found = {path.name.removesuffix(f"-{classifier}.json"): arms(path) for path in folder.glob(f"*-{classifier}.json")}
        ideal = found.pop("even", {}).get("as-is")
        shares = sorted(found, key=float)
        if not shares:
            continue
        print(f"\n| {title}, share of conflicting images |", " | ".join(f"{100 * float(s):g} %" for s in shares), "|")
        print("|---|" + "---|" * len(shares))
        for name, text in NAMES.items():
            if any(name in found[share] for share in shares):
                print(f"| {text} |", " | ".join(cell(found[s][name]) if name in found[s] else "" for s in shares), "|")
        if ideal:
            print("| the ideal: colours drawn evenly |", " | ".join(cell(ideal) for _ in shares), "|")
            closed = []
            for share in shares:
                balanced, base = found[share]["balanced"]["accuracy"], found[share]["oversample"]["accuracy"]
                closed.append(f"{100 * (balanced - base) / (ideal['accuracy'] - base):.0f} %")
            print("| share of the distance closed |", " | ".join(closed), "|")


CHANGES = {
    "base": "the job, with 100 images a group",
    "from-noise": "images start from noise, not from real digits",
    "from-noise-guidance-1.5": "the same with guidance 1.5",
    "noised-guides": "real digits are noised (strength 0.6, 0.8), not inverted",
    "guidance-1.5": "guidance 1.5",
    "guidance-2": "guidance 2",
    "no-attributes-gate": "no gate but `decode`",
    "balance-0": "batches as the data is (`balance: 0`)",
    "balance-0.8": "batches nearly balanced (`balance: 0.8`)",
    "dropout-0": "no attribute dropout",
    "images-30": "30 images a group",
}


def ablations(folder):
    print("| changed | accepted | accuracy | worst group |\n|---|---|---|---|")
    for name, text in CHANGES.items():
        path = folder / f"{name}.json"
        if path.exists():
            report = json.loads(path.read_text())
            balanced = arms(path)["balanced"]
            share = report["acceptance"]["accepted"] / report["acceptance"]["candidates"]
            low, high = balanced["worst_group_interval"]
            worst = f"{100 * balanced['worst_group']:.0f} ({100 * low:.0f} to {100 * high:.0f})"
            print(f"| {text} | {100 * share:.0f} % | {cell(balanced)} | {worst} |")


if __name__ == "__main__":
    if sys.argv[1] == "--ablations":
        ablations(pathlib.Path(sys.argv[2]))
    else:
        main(pathlib.Path(sys.argv[1]))
