"""Measure how often intervals contain the truth and how often tests are wrong, on simulated replicates of known truth.

    python bench/coverage.py [--cases 2000] [--configs 8]

The replicates are those of `simulated.py`. It prints four tables: intervals of a difference; false positives where
nothing differs; power where a configuration is 3 points ahead; intervals of an accuracy, by method.
"""

import argparse
from collections import defaultdict
from collections.abc import Iterator
from itertools import combinations

import numpy as np
from mvsa_tune.stats.tests import family, holm, p_values
from numpy.typing import NDArray
from scipy import stats

import pooled
from mvsa_tune.formats import markdown
from mvsa_tune.stats.intervals import Crossed, accuracy, draws
from simulated import SEED_STD, TRUTH, Case, case

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
            difference = family([Crossed(first - second)])[0]
            low, high = difference.interval.low, difference.interval.high
            held.append(low <= truth <= high)
            widths.append(high - low)
            hits.append(difference.p < 0.05)
        figures = f"{np.mean(held):.3f}", f"{np.mean(widths):.4f}", f"{np.mean(hits):.2f}"
        body.append([str(seeds), f"{samples:,}", f"{cases:,}", *figures])
    head = ["replicates", "samples", "cases", "holds the truth", "mean width", "power"]
    return markdown(head, body)


def first_step(p_values: list[float]) -> float:
    """Return the least of Holm's corrected p-values."""
    return min(p_values) * len(p_values)


def false_positives(cases: int, count: int) -> str:
    """Return the table of how often equal configurations differ significantly in at least one comparison of a case."""
    body = []
    pairs = list(combinations(range(count), 2))
    for seeds, samples in SETTINGS:
        for seed_std in (0.0, SEED_STD) if seeds == 1 else (SEED_STD,):
            rng, significant = np.random.default_rng(3), []
            for _ in range(cases):
                correct = case(rng, np.full(count, TRUTH), seeds, samples, seed_std).correct.astype(float)
                differences = {(i, j): Crossed(correct[i] - correct[j]) for i, j in pairs}
                p = p_values(list(differences.values()))
                best = int(correct.mean(axis=(1, 2)).argmax())
                any_two = first_step(p) < 0.05  # else Holm's method finds none of them
                corrected = holm(p) if any_two else np.ones(len(p))
                significant.append(
                    [
                        p_values([differences[0, 1]])[0] < 0.05,
                        first_step(p_values([differences[0, k] for k in range(1, count)])) < 0.05,
                        any(value < 0.05 for pair, value in zip(pairs, corrected, strict=True) if best in pair),
                        any_two,
                        first_step(p_values([differences[pair] for pair in pairs if best in pair])) < 0.05,
                    ]
                )
            rates = [f"{share:.3f}" for share in np.mean(significant, axis=0)]
            body.append([str(seeds), f"{samples:,}", f"{seed_std:.3f}", f"{cases:,}", *rates])
    comparisons = ["one pair", "a fixed one", "the best", "any two", "the best, as if fixed"]
    return markdown(["replicates", "samples", "seeds' deviation", "cases", *comparisons], body)


def power(cases: int, count: int) -> str:
    """Return the table of how often a lead of 3 points over all other configurations is significant."""
    body = []
    pairs = list(combinations(range(count), 2))
    for seeds, samples in SETTINGS:
        rng, significant = np.random.default_rng(4), []
        truths = TRUTH + 0.03 * (np.arange(count) == 0)
        for _ in range(cases):
            correct = case(rng, truths, seeds, samples).correct.astype(float)
            differences = [Crossed(correct[i] - correct[j]) for i, j in pairs]  # the first K − 1 are the leader's
            significant.append([holm(p_values(differences[:n]))[0] < 0.05 for n in (1, count - 1, len(pairs))])
        rates = [f"{share:.2f}" for share in np.mean(significant, axis=0)]
        body.append([str(seeds), f"{samples:,}", f"{cases:,}", *rates])
    return markdown(["replicates", "samples", "cases", "alone", f"of {count - 1}", f"of {len(pairs)}"], body)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cases", type=int, default=2000)
    parser.add_argument("--configs", type=int, default=8)
    options = parser.parse_args()
    print(of_differences(options.cases), flush=True)
    print(false_positives(options.cases, options.configs), flush=True)
    print(power(options.cases // 10, options.configs), flush=True)
    print(of_accuracies(options.cases), flush=True)


if __name__ == "__main__":
    main()
