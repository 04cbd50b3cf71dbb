"""Measure how often intervals contain the truth, on simulated replicates of known truth.

    python bench/interval_coverage.py [--cases 2000]

The replicates are those of `simulated.py`. It prints two tables: intervals of a difference of two configurations, and
of an accuracy, by method. `power.py` measures comparisons of many configurations.
"""

import argparse
from collections import defaultdict
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy import stats

import pooled
from mvsa_tune.formats import markdown
from mvsa_tune.stats.differences import errors
from mvsa_tune.stats.intervals import Crossed, accuracy, draws
from simulated import TRUTH, Case, case

SETTINGS = [(1, 400), (1, 4000), (5, 400), (5, 4000)]
PLAIN = 2000  # resamples of the bootstrap that is not corrected

Ends = tuple[float, float]


def plain_bootstrap(correct: NDArray[np.bool_]) -> Ends:
    """Return the percentile interval of the pigeonhole bootstrap, not corrected."""
    rows, columns = (draws(n, PLAIN, stream) for stream, n in enumerate(correct.shape))
    means = np.einsum("br,br->b", rows, columns @ correct.T.astype(np.float32)) / correct.size
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def moments(correct: NDArray[np.bool_]) -> Ends:
    """Return Student's t interval on the log-odds, with the same variance and degrees; nothing is resampled."""
    crossed = Crossed(correct)
    odds = np.log(crossed.mean / (1 - crossed.mean))
    half = stats.t.ppf(0.975, crossed.degrees) * np.sqrt(crossed.variance) / (crossed.mean * (1 - crossed.mean))
    return float(1 / (1 + np.exp(half - odds))), float(1 / (1 + np.exp(-half - odds)))


def intervals(simulated: Case, seeds: pooled.SeedVariance | None) -> Iterator[tuple[str, Ends, float]]:
    """Yield method, interval and truth of the first configuration.

    The truth of one replicate is its own accuracy on other samples, unless the method's name says otherwise.
    """
    correct, of_seeds = simulated.correct[0], simulated.truth[0]
    truth = simulated.replicates[0, 0] if len(correct) == 1 else of_seeds
    interval = accuracy(correct)
    corrected = interval.low, interval.high
    yield "corrected bootstrap", corrected, truth
    yield "plain bootstrap", plain_bootstrap(correct), truth
    yield "t on the log-odds", moments(correct), truth
    if seeds:
        yield "corrected bootstrap, for other seeds too", corrected, of_seeds
        yield "the same, seed variance pooled", pooled.interval(correct, seeds), of_seeds


def of_accuracies(cases: int) -> str:
    """Return the table of intervals of an accuracy.

    The variance over seeds is pooled from 5 configurations of 5 replicates on as many samples.
    """
    body = []
    for seeds, samples in SETTINGS:
        rng, held, widths = np.random.default_rng(1), defaultdict(list), defaultdict(list)
        for _ in range(cases):
            simulated = case(rng, np.array([TRUTH]), seeds, samples)
            others = pooled.pooled(list(case(rng, np.full(5, TRUTH), 5, samples).correct)) if seeds == 1 else None
            for method, (low, high), truth in intervals(simulated, others):
                held[method].append(low <= truth <= high)
                widths[method].append(high - low)
        for method, hits in held.items():
            figures = f"{np.mean(hits):.3f}", f"{np.mean(widths[method]):.4f}"
            body.append([str(seeds), f"{samples:,}", method, f"{cases:,}", *figures])
    return markdown(["replicates", "samples", "method", "cases", "holds the truth", "mean width"], body)


def of_differences(cases: int) -> str:
    """Return the table of intervals of a difference of 3 points, and of the power of a test of it.

    With one replicate the difference is that of the two networks.
    """
    body = []
    for seeds, samples in SETTINGS:
        rng, held, widths, hits = np.random.default_rng(2), [], [], []
        for _ in range(cases):
            simulated = case(rng, np.array([TRUTH + 0.03, TRUTH]), seeds, samples)
            truth = -np.diff(simulated.replicates[:, 0] if seeds == 1 else simulated.truth)[0]
            first, second = simulated.correct.astype(float)
            difference = errors([first, second]).test_all(np.array([[1.0, -1.0]]))[0]
            low, high = difference.low, difference.high
            held.append(low <= truth <= high)
            widths.append(high - low)
            hits.append(difference.p < 0.05)
        figures = f"{np.mean(held):.3f}", f"{np.mean(widths):.4f}", f"{np.mean(hits):.2f}"
        body.append([str(seeds), f"{samples:,}", f"{cases:,}", *figures])
    head = ["replicates", "samples", "cases", "holds the truth", "mean width", "power"]
    return markdown(head, body)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cases", type=int, default=2000)
    options = parser.parse_args()
    print(of_differences(options.cases), flush=True)
    print(of_accuracies(options.cases), flush=True)


if __name__ == "__main__":
    main()
