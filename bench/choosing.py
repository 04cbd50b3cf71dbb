"""The bias of choosing, before and after its correction: the best of K configurations, the best of E epochs.

    python bench/choosing.py [--cases 1000] [--replicates 5] [--samples 400]

On the simulated replicates of `simulated.py`. Bias is the estimate minus the true accuracy of what was chosen, in
points; error is the root of the mean square of the same difference.
"""

import argparse
from collections import defaultdict

import numpy as np
from numpy.typing import NDArray

from mvsa_tune.formats import markdown
from mvsa_tune.stats.intervals import Interval, accuracy
from mvsa_tune.stats.selection import covariance, winner
from mvsa_tune.training.result import cross_fitted
from simulated import case, curves

TRUTH = 0.76


def truths(rng: np.random.Generator, kind: str, count: int) -> NDArray[np.float64]:
    """`(K,)` true accuracies about 0.76."""
    if kind == "equal":
        return np.full(count, TRUTH)
    if kind == "one 3 points ahead":
        return np.where(np.arange(count) == 0, TRUTH + 0.03, TRUTH)
    return TRUTH + float(kind.split()[-1]) * rng.standard_normal(count)


def table(found: dict[str, list[list[float]]]) -> list[list[str]]:
    """Bias with its standard error, and error, of each method; in points."""
    lines = []
    for method, errors in found.items():
        off = 100 * np.array(errors).ravel()
        lines.append(
            [method, f"{off.mean():+.2f} ± {off.std() / np.sqrt(len(errors)):.2f}", f"{np.sqrt((off**2).mean()):.2f}"]
        )
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
    """The table of the best of K."""
    body = []
    for count in (8, 24):
        for kind in ("equal", "deviation 0.005", "deviation 0.010", "deviation 0.020", "one 3 points ahead"):
            rng, found, lucky = np.random.default_rng(1), defaultdict(list), []
            for _ in range(cases):
                one = case(rng, truths(rng, kind, count), replicates, samples)
                best, means = winner(list(one.right), 2000), one.right.mean(axis=(1, 2))
                truth = one.truth[best.index]
                centring, variance = np.eye(count) - 1 / count, means.var(ddof=1)
                noise = np.trace(centring @ covariance(list(one.right)) @ centring) / (count - 1)
                kept = max(0.0, 1 - (count - 3) / (count - 1) * min(1.0, noise / variance))
                found["as shown"].append([best.mean - truth])
                found["corrected"].append([best.corrected - truth])
                found["shrunk to the mean"].append([means.mean() + kept * best.lead - truth])
                lucky.append([best.lead, best.luck, best.p < 0.05])
            lead, luck, small = np.mean(lucky, axis=0)
            for line in table(found):
                body.append([str(count), kind, f"{100 * lead:.2f}", f"{100 * luck:.2f}", f"{small:.3f}", *line])
    return markdown(["K", "truths", "lead", "luck", "p < 0.05", "estimate", "bias", "error"], body)


def of_epochs(cases: int, replicates: int, samples: int, epochs: int = 50) -> str:
    """The table of the best epoch, held against the true accuracy of the network at its best epoch."""
    rng, found, chosen_truths = np.random.default_rng(2), defaultdict(list), []
    intervals: dict[str, list[Interval]] = defaultdict(list)
    each = np.arange(replicates)
    for _ in range(cases):
        right, truth = curves(rng, epochs, replicates, samples)
        shown = right.mean(axis=2)
        best = shown.argmax(axis=0)
        chosen = truth[best, each]
        chosen_truths.append(chosen.mean())
        answers = {"best epoch, as shown": right[best, each], "last epoch": right[-1]}
        answers |= {f"cross-fitted, {parts} parts": cross_fitted(right, parts) for parts in (2, 5, 10)}
        for method, values in answers.items():
            found[method].append(values.mean(axis=1) - chosen)
            intervals[method].append(accuracy(values))
        found["last epoch, against its own truth"].append(shown[-1] - truth[-1])
        if replicates > 1:
            found["by the other replicates"].append(by_the_others(shown) - chosen)
    expected = np.mean(chosen_truths)
    held = {method: np.mean([one.low <= expected <= one.high for one in ones]) for method, ones in intervals.items()}
    body = [[*line, f"{held[line[0]]:.3f}" if line[0] in held else "–"] for line in table(found)]
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
