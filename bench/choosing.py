"""Measure the bias of choosing, before and after correction: the best of K configurations, the best of E epochs.

    python bench/choosing.py [--cases 1000] [--replicates 5] [--samples 400]

The replicates are simulated (`simulated.py`). Bias is the mean of the estimate minus the true accuracy of what was
chosen, in points; error is the root of the mean square of that difference.
"""

import argparse
from collections import defaultdict

import numpy as np
from numpy.typing import NDArray

from mvsa_tune.formats import markdown
from mvsa_tune.stats.intervals import Interval, accuracy
from mvsa_tune.stats.selection import covariance, winner
from mvsa_tune.training.result import cross_fitted
from simulated import TRUTH, case, curves


def truths(rng: np.random.Generator, kind: str, count: int) -> NDArray[np.float64]:
    """Return true accuracies about 0.76, `(K,)`."""
    if kind == "equal":
        return np.full(count, TRUTH)
    if kind == "one 3 points ahead":
        return np.where(np.arange(count) == 0, TRUTH + 0.03, TRUTH)
    return TRUTH + float(kind.split()[-1]) * rng.standard_normal(count)


def table(differences: dict[str, list[list[float]]]) -> list[list[str]]:
    """Return a line for each method: its bias with the bias's standard error, and its error, in points."""
    lines = []
    for method, cases in differences.items():
        points = 100 * np.array(cases).ravel()
        bias = f"{points.mean():+.2f} ± {points.std() / np.sqrt(len(cases)):.2f}"
        lines.append([method, bias, f"{np.sqrt((points**2).mean()):.2f}"])
    return lines


def by_the_others(accuracy: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return each replicate's accuracy at the epoch that is best on the mean of the others' curves, shape `(R,)`.

    It is free of the replicate's own luck, not of the samples', which all replicates share. NaN for a single replicate.
    `accuracy` is `(E, R)`.
    """
    if accuracy.shape[1] < 2:
        return np.full(accuracy.shape[1], np.nan)
    others = accuracy.sum(axis=1, keepdims=True) - accuracy
    return np.take_along_axis(accuracy, others.argmax(axis=0)[None], axis=0)[0]


def of_winners(cases: int, replicates: int, samples: int) -> str:
    """Return the table of the best of K."""
    body = []
    for count in (8, 24):
        for kind in ("equal", "deviation 0.005", "deviation 0.010", "deviation 0.020", "one 3 points ahead"):
            rng, differences, leads = np.random.default_rng(1), defaultdict(list), []
            for _ in range(cases):
                simulated = case(rng, truths(rng, kind, count), replicates, samples)
                correct, means = list(simulated.correct), simulated.correct.mean(axis=(1, 2))
                best = winner(correct, 2000)
                truth = simulated.truth[best.index]
                centring, variance = np.eye(count) - 1 / count, means.var(ddof=1)
                noise = np.trace(centring @ covariance(correct) @ centring) / (count - 1)
                share = max(0.0, 1 - (count - 3) / (count - 1) * min(1.0, noise / variance))
                differences["as shown"].append([best.mean - truth])
                differences["corrected"].append([best.corrected - truth])
                differences["shrunk to the mean"].append([means.mean() + share * best.lead - truth])
                leads.append([best.lead, best.luck, best.p < 0.05])
            lead, luck, small = np.mean(leads, axis=0)
            for line in table(differences):
                body.append([str(count), kind, f"{100 * lead:.2f}", f"{100 * luck:.2f}", f"{small:.3f}", *line])
    return markdown(["K", "truths", "lead", "luck", "p < 0.05", "estimate", "bias", "error"], body)


def of_epochs(cases: int, replicates: int, samples: int, epochs: int = 50) -> str:
    """Return the table of the best epoch, compared with the true accuracy of the network at its best epoch."""
    rng, differences, chosen_truths = np.random.default_rng(2), defaultdict(list), []
    intervals: dict[str, list[Interval]] = defaultdict(list)
    each = np.arange(replicates)
    for _ in range(cases):
        correct, truth = curves(rng, epochs, replicates, samples)
        shown = correct.mean(axis=2)
        best = shown.argmax(axis=0)
        chosen = truth[best, each]
        chosen_truths.append(chosen.mean())
        estimates = {"best epoch, as shown": correct[best, each], "last epoch": correct[-1]}
        estimates |= {f"cross-fitted, {parts} parts": cross_fitted(correct, parts) for parts in (2, 5, 10)}
        for method, values in estimates.items():
            differences[method].append(values.mean(axis=1) - chosen)
            intervals[method].append(accuracy(values))
        differences["last epoch, against its own truth"].append(shown[-1] - truth[-1])
        if replicates > 1:
            differences["by the other replicates"].append(by_the_others(shown) - chosen)
    expected = np.mean(chosen_truths)
    coverage = {
        method: np.mean([interval.low <= expected <= interval.high for interval in of_method])
        for method, of_method in intervals.items()
    }
    body = [[*line, f"{coverage[line[0]]:.3f}" if line[0] in coverage else "–"] for line in table(differences)]
    return markdown(["estimate", "bias", "error", "interval holds the truth"], body)


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--replicates", type=int, default=5)
    parser.add_argument("--samples", type=int, default=400)
    options = parser.parse_args()
    print(of_epochs(options.cases, options.replicates, options.samples), flush=True)
    print(of_winners(options.cases, options.replicates, options.samples), flush=True)


if __name__ == "__main__":
    main()
