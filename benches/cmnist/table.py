#!/usr/bin/env python3
"""The table of docs/evidence.md from the reports that run.sh left: table.py FOLDER

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


def arms(path):
    evidence = json.loads(path.read_text())["evidence"]
    return {arm["name"]: arm for arm in evidence["arms"]}


def cell(arm):
    low, high = arm["accuracy_interval"]
    return f"{100 * arm['accuracy']:.1f} ({100 * low:.1f} to {100 * high:.1f})"


def main(folder):
    for classifier in ("mlp", "cnn"):
        found = {path.name.removesuffix(f"-{classifier}.json"): arms(path) for path in folder.glob(f"*-{classifier}.json")}
        ideal = found.pop("even", {}).get("as-is")
        shares = sorted(found, key=float)
        if not shares:
            continue
        print(f"\n| {classifier.upper()}, share of conflicting images |", " | ".join(f"{100 * float(s):g} %" for s in shares), "|")
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


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
