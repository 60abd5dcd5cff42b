#!/usr/bin/env python3
"""Predictions and features with what fairlearn, scikit-learn, SciPy and NumPy make of them, to compare evenset's with.

  evidence.py [FILE]     writes FILE; evidence.json beside this script by default

Needs numpy, scipy, scikit-learn and fairlearn (made with numpy 2.4, scipy 1.17, scikit-learn 1.9, fairlearn 0.15). The
same versions give the same bytes.
"""
import json, pathlib, sys
import numpy as np
from fairlearn.metrics import equalized_odds_difference
from scipy.linalg import sqrtm
from sklearn.neighbors import NearestNeighbors

rng = np.random.default_rng(20240607)


def calibration_error(right, confidence, bins=15):
    """Guo et al. 2017, equation 3: bins of equal width, each with its upper end."""
    edges, error = np.linspace(0, 1, bins + 1), 0.0
    for low, high in zip(edges, edges[1:]):
        inside = (confidence > low) & (confidence <= high)
        if inside.any():
            error += abs(right[inside].mean() - confidence[inside].mean()) * inside.mean()
    return float(error)


def equalised_odds(label, predicted, attribute, classes):
    """fairlearn's for two classes; for more, the largest of each class against the rest."""
    each = [equalized_odds_difference(label == c, predicted == c, sensitive_features=attribute) for c in range(classes)]
    if classes == 2:
        assert np.isclose(each[0], each[1])
        assert np.isclose(each[1], equalized_odds_difference(label, predicted, sensitive_features=attribute))
    return float(max(each))


def predictions():
    found = []
    for classes, attributes, n in [(2, 2, 200), (2, 5, 400), (4, 3, 600), (10, 2, 500)]:
        label, attribute = rng.integers(0, classes, n), rng.integers(0, attributes, n)
        sure = 0.5 + 0.4 * (attribute == 0)
        predicted = np.where(rng.random(n) < sure, label, rng.integers(0, classes, n))
        # 65535ths, as evenset keeps them.
        confidence = rng.integers(20000, 65536, n)
        found.append({
            "classes": classes,
            "label": label.tolist(),
            "attribute": attribute.tolist(),
            "predicted": predicted.tolist(),
            "confidence": confidence.tolist(),
            "equalised_odds": equalised_odds(label, predicted, attribute, classes),
            "calibration_error": calibration_error(label == predicted, confidence / 65535),
        })
    return found


def frechet(a, b):
    covariances = [np.cov(x, rowvar=False) for x in (a, b)]
    between = np.real(np.trace(sqrtm(covariances[0] @ covariances[1])))
    return float(((a.mean(0) - b.mean(0)) ** 2).sum() + sum(map(np.trace, covariances)) - 2 * between)


def kernel_distance(a, b):
    kernel = lambda x, y: (x @ y.T / x.shape[1] + 1) ** 3
    within = lambda x: (kernel(x, x).sum() - np.trace(kernel(x, x))) / (len(x) * (len(x) - 1))
    return float(within(a) + within(b) - 2 * kernel(a, b).mean())


def covered(points, around, k=3):
    radius = NearestNeighbors(n_neighbors=k + 1).fit(around).kneighbors(around)[0][:, -1]
    distance = np.linalg.norm(points[:, None] - around[None], axis=2)
    return float((distance <= radius[None]).any(axis=1).mean())


def features():
    found = []
    for width, real, generated in [(3, 40, 25), (6, 60, 50), (12, 50, 64)]:
        mixing = rng.normal(size=(width, width))
        # 64ths, which a short number holds as they are.
        values = lambda n, scale, shift: np.round(64 * (scale * rng.normal(size=(n, width)) @ mixing + shift)) / 64
        a, b = values(real, 1.0, 0.0), values(generated, 0.8, 0.5)
        found.append({
            "width": width,
            "real": a.ravel().tolist(),
            "generated": b.ravel().tolist(),
            "frechet": frechet(a, b),
            "kernel": kernel_distance(a, b),
            "precision": covered(b, a),
            "recall": covered(a, b),
        })
    return found


path = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else pathlib.Path(__file__).with_suffix(".json")
path.write_text(json.dumps({"predictions": predictions(), "features": features()}, separators=(",", ":")) + "\n")
