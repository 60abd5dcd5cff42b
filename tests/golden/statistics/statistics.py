#!/usr/bin/env python3
"""Tables, lists and counts with what SciPy and statsmodels make of them, to compare evenset's statistics with.

  statistics.py [FILE]     writes FILE; statistics.json beside this script by default

Where SciPy loses digits (G of large counts is a small difference of large sums, and Fisher's test then takes equally
probable tables for unequal ones) or has no such function (NPMI, mutual
information, bias-corrected V, the score interval of an area under the curve), the formula is computed with 50 digits.

Needs numpy, scipy, statsmodels and mpmath (made with numpy 2.4, scipy 1.17, statsmodels 0.15). The same versions give
the same bytes.
"""
import json, math, pathlib, sys, warnings
import numpy as np
from mpmath import mp, mpf, log, gammainc
from scipy import optimize, special, stats
from scipy.spatial.distance import jensenshannon
from statsmodels.stats.contingency_tables import StratifiedTable
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import confint_proportions_2indep, multinomial_proportions_confint, proportion_confint

mp.dps = 50
warnings.simplefilter("ignore")
rng = np.random.default_rng(20240607)
Z = float(special.ndtri(0.975))


def shares_of_counts():
    pairs = [(0, 1), (1, 1), (0, 20), (20, 20), (1, 29), (81, 263), (3, 10**6), (5 * 10**10, 10**11), (1, 2**53)]
    pairs += [(int(rng.integers(0, n + 1)), int(n)) for n in rng.integers(1, 5000, 40)]
    return [{"count": c, "total": n, "wilson": list(proportion_confint(c, n, method="wilson"))} for c, n in pairs]


def multinomials():
    lists = [[5, 0, 40, 1], [1], [3, 3], [10**11, 1, 10**9], [56, 72, 73, 59, 62, 87, 58]]
    lists += [rng.poisson(rng.gamma(0.5, 40, k)).tolist() for k in (2, 3, 8, 30, 200)]
    lists = [counts if sum(counts) else [1] + counts[1:] for counts in lists]
    return [{"counts": c, "goodman": multinomial_proportions_confint(c, method="goodman").tolist()} for c in lists]


def differences():
    pairs = [((56, 70), (48, 80)), ((0, 10), (0, 20)), ((10, 10), (0, 10)), ((3, 10**9), (10**5, 10**10))]
    for m, n in rng.integers(1, 400, (40, 2)):
        pairs.append(((int(rng.integers(0, m + 1)), int(m)), (int(rng.integers(0, n + 1)), int(n))))
    newcombe = lambda a, b: list(confint_proportions_2indep(*a, *b, method="newcomb", compare="diff"))
    return [{"a": a, "b": b, "newcombe": newcombe(a, b)} for a, b in pairs]


def distances():
    found = []
    for k in (2, 3, 10, 100):
        for _ in range(6):
            counts = rng.poisson(rng.gamma(0.7, 30, k)) + 0
            counts[0] += 1
            reference = rng.dirichlet(np.full(k, 0.8)) + 1e-6
            p, q = counts / counts.sum(), reference / reference.sum()
            found.append({
                "counts": counts.tolist(), "reference": reference.tolist(),
                "total_variation": float(np.abs(p - q).sum() / 2),
                "kullback_leibler": float(stats.entropy(p, q)),
                "jensen_shannon": float(jensenshannon(p, q) ** 2),
            })
    return found


def tables():
    fixed = [
        [[10, 20], [30, 40]], [[30, 10], [10, 30]], [[3, 1], [1, 3]], [[0, 10], [12, 0]], [[8, 2], [1, 5]],
        [[1, 0], [0, 1]], [[100, 0], [3, 1]], [[2, 1000000], [9, 500000]], [[4, 10**9], [11, 10**9]],
        [[10**11, 10**11 + 12345], [10**11 - 54321, 10**11]], [[25 * 10**9, 10**9], [24 * 10**9, 10**9 + 90000]],
        [[50, 0, 0], [0, 50, 0], [0, 0, 50]], [[12, 5, 8], [6, 14, 9], [7, 7, 30]], [[0, 0, 7], [0, 0, 9], [3, 0, 1]],
        [[45, 45, 1], [50, 60, 2]], [[2**50, 2**49], [2**49, 2**48 + 7]],
    ]
    shapes = [(2, 2), (2, 3), (3, 3), (5, 4), (2, 8), (12, 10)]
    random = [
        rng.multinomial(n, np.outer(rng.dirichlet(np.full(r, 2)), rng.dirichlet(np.full(c, 2))).ravel()).reshape(r, c)
        for r, c in shapes for n in (15, 60, 400, 100000)
    ]
    tied = [rng.poisson(rng.gamma(0.4, 20, shape)) for shape in shapes for _ in range(3)]
    return fixed + [t.tolist() for t in random + tied if (t.sum(0) > 0).sum() > 1 and (t.sum(1) > 0).sum() > 1]


def exact_g(observed):
    rows, columns, n = observed.sum(1), observed.sum(0), int(observed.sum())
    terms = ((int(x), int(rows[i]) * int(columns[j])) for (i, j), x in np.ndenumerate(observed) if x)
    return 2 * sum(x * log(mpf(x) * n / margins) for x, margins in terms)


def tail(g, df):
    return float(gammainc(mpf(df) / 2, g / 2, mp.inf, regularized=True))


def fisher(observed):
    (a, b), (c, d) = [[int(x) for x in row] for row in observed]
    if a + c > b + d:
        a, b, c, d = b, a, d, c
    rows, column = (a + b, c + d), a + c
    if column > 5000:
        return float(stats.fisher_exact(observed).pvalue)
    ways = [math.comb(rows[0], x) * math.comb(rows[1], column - x) for x in range(column + 1)]
    p = float(mpf(sum(w for w in ways if w <= ways[a])) / sum(ways))
    assert sum(rows) > 10**5 or math.isclose(p, stats.fisher_exact(observed).pvalue, rel_tol=1e-9), observed
    return p


def corrected_v(observed):
    n, (r, c) = int(observed.sum()), observed.shape
    rows, columns = observed.sum(1), observed.sum(0)
    chi2 = sum((int(x) - mpf(int(rows[i])) * int(columns[j]) / n) ** 2 * n / (int(rows[i]) * int(columns[j]))
               for (i, j), x in np.ndenumerate(observed))
    phi2 = max(mpf(0), chi2 / n - mpf((r - 1) * (c - 1)) / (n - 1))
    smaller = min(r - mpf((r - 1) ** 2) / (n - 1), c - mpf((c - 1) ** 2) / (n - 1)) - 1
    return float(mp.sqrt(phi2 / smaller)) if smaller > 0 else 0.0


def entropy(counts):
    n = int(counts.sum())
    return -sum(mpf(int(x)) / n * log(mpf(int(x)) / n) for x in counts.ravel() if x)


def cells(observed):
    n, found = int(observed.sum()), []
    for (i, j), x in np.ndenumerate(observed):
        x, row, column = int(x), int(observed[i].sum()), int(observed[:, j].sum())
        fourfold = np.array([[x, row - x], [column - x, n - row - column + x]])
        expected = min(row, n - row) * min(column, n - column) / n
        p = tail(exact_g(fourfold), 1) if expected >= 5 else fisher(fourfold)
        a, b, c, d = (fourfold + mpf(1) / 2).ravel()
        odds, error = a * d / (b * c), mp.sqrt(1 / a + 1 / b + 1 / c + 1 / d)
        found.append({
            "count": x, "p": p, "npmi": float(log(mpf(x) * n / (row * column)) / -log(mpf(x) / n)) if x else -1.0,
            "odds_ratio": float(odds),
            "odds_ratio_interval": [float(odds * mp.exp(sign * Z * error)) for sign in (-1, 1)],
        })
    for cell, q in zip(found, multipletests([cell["p"] for cell in found], method="fdr_bh")[1]):
        cell["q"] = float(q)
    return found


def simulated(observed, draws=40_000):
    table = stats.random_table(observed.sum(1), observed.sum(0), seed=1)
    expected = stats.contingency.expected_freq(observed)
    g = lambda t: 2 * (special.xlogy(t, t / expected)).sum((-2, -1))
    return float((g(table.rvs(draws)) >= g(observed) - 1e-7).mean())


def associations():
    found = []
    for table in tables():
        full = np.array(table)
        observed = full[full.sum(1) > 0][:, full.sum(0) > 0]
        g, df = exact_g(observed), (observed.shape[0] - 1) * (observed.shape[1] - 1)
        exact = {"table": table, "g": float(g), "degrees_of_freedom": df, "cramers_v": corrected_v(observed)}
        smallest = float(stats.contingency.expected_freq(observed).min())
        if smallest >= 5:
            exact |= {"method": "chi-squared", "p": tail(g, df)}
            scipys = stats.chi2_contingency(observed, correction=False, lambda_="log-likelihood")
            if observed.sum() < 10**6:
                assert math.isclose(scipys.pvalue, exact["p"], rel_tol=1e-9, abs_tol=1e-300), (table, scipys, exact)
        elif observed.shape == (2, 2):
            exact |= {"method": "fisher", "p": fisher(observed)}
        else:
            exact |= {"method": "monte-carlo", "p": simulated(observed)}
        n, occupied = int(observed.sum()), int((observed > 0).sum())
        plug_in, sums = g / (2 * n), entropy(observed.sum(1)) + entropy(observed.sum(0))
        exact["mutual_information"] = {
            "plug_in": float(plug_in), "normalised": float(2 * plug_in / sums),
            "corrected": float(max(mpf(0), plug_in + mpf(sum(observed.shape) - 1 - occupied) / (2 * n))),
        }
        found.append(exact | {"cells": cells(observed)})
    return found


def strata():
    lists = [
        [[[512, 313], [89, 19]], [[353, 207], [17, 8]], [[120, 205], [202, 391]], [[138, 279], [131, 244]],
         [[53, 138], [94, 299]], [[22, 351], [24, 317]]],
        [[[81, 6], [234, 36]], [[192, 71], [55, 25]]],
        [[[10**9, 2 * 10**9], [10**9, 10**9 + 5]], [[3, 4], [5, 6]]],
    ]
    lists += [rng.integers(1, 60, (k, 2, 2)).tolist() for k in (1, 2, 5, 20) for _ in range(4)]
    found = []
    for tables in lists:
        table = StratifiedTable([np.array(t, dtype=float) for t in tables])
        test = table.test_null_odds(correction=False)
        found.append({
            "strata": tables, "odds_ratio": float(table.oddsratio_pooled),
            "interval": [float(x) for x in table.oddsratio_pooled_confint()],
            "statistic": float(test.statistic), "p": float(test.pvalue),
        })
    return found


def areas():
    found = []
    for m, n, shift, grid in [(20, 20, 0, 0), (20, 300, 1, 0.5), (5, 7, 3, 0), (200, 1000, 0.3, 0.1), (30, 30, 9, 0)]:
        for _ in range(3):
            group, rest = rng.normal(shift, 1, m), rng.normal(0, 1, n)
            if grid:
                group, rest = np.round(group / grid) * grid, np.round(rest / grid) * grid
            value = float(stats.mannwhitneyu(group, rest).statistic / (m * n))
            def variance(a):
                q1, q2 = a / (2 - a), 2 * a * a / (1 + a)
                return (a * (1 - a) + (m - 1) * (q1 - a * a) + (n - 1) * (q2 - a * a)) / (m * n)
            distance = lambda a: (value - a) ** 2 - Z * Z * variance(a)
            low = optimize.brentq(distance, 1e-12, value - 1e-12, xtol=1e-15)
            high = optimize.brentq(distance, value + 1e-12, 1 - 1e-12, xtol=1e-15) if value < 1 else 1.0
            found.append({"group": group.tolist(), "rest": rest.tolist(), "auc": value, "interval": [low, high]})
    return found


def vendi():
    found = []
    for n, d in [(1, 3), (5, 2), (12, 30), (40, 8), (60, 60)]:
        embeddings = rng.normal(0.3, 1, (n, d)).astype(np.float32)
        units = embeddings.astype(float) / np.linalg.norm(embeddings.astype(float), axis=1, keepdims=True)
        eigenvalues = np.linalg.eigvalsh(units @ units.T / n)
        eigenvalues = eigenvalues[eigenvalues > 1e-15]
        found.append({"embeddings": embeddings.ravel().tolist(), "n": n, "score": float(np.exp(stats.entropy(eigenvalues)))})
    return found


def discoveries():
    lists = [rng.uniform(0, 1, k) ** 3 for k in (1, 2, 10, 500)] + [np.round(rng.uniform(0, 0.2, 40), 2)]
    return [{"p": p.tolist(), "q": multipletests(p, method="fdr_bh")[1].tolist()} for p in lists]


def fishers():
    lists = [[[a, b], [c, d]] for a, b, c, d in rng.integers(0, 40, (60, 4)).tolist()]
    lists += [[[3, 200000], [40, 300000]], [[1500, 1400], [1700, 1650]], [[0, 10**9], [7, 10**9]], [[90, 10], [10, 90]]]
    return [{"table": t, "p": fisher(t)} for t in lists]


if __name__ == "__main__":
    file = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else pathlib.Path(__file__).with_name("statistics.json")
    parts = [shares_of_counts, multinomials, differences, distances, associations, strata, areas, vendi, discoveries,
             fishers]
    body = ",\n".join(f'"{part.__name__}": [\n' + ",\n".join(json.dumps(case) for case in part()) + "\n]" for part in parts)
    file.write_text("{\n" + body + "\n}\n")
