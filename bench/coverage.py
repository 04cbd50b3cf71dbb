"""How often the intervals hold the truth, and the tests find what is there or not, on simulated replicates of known truth.

    python bench/coverage.py [--cases 2000] [--configs 8]

The replicates are those of `simulated.py`. Prints four tables: intervals of an accuracy, by method; intervals of a difference; false finds
where nothing differs; power where 3 points do.
"""

import argparse
from collections import defaultdict
from collections.abc import Iterator
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy import stats

import pooled
from mvsa_tune.formats import markdown
from mvsa_tune.stats.intervals import Crossed, accuracy, draws
from mvsa_tune.stats.tests import family, holm, p_values
from simulated import SEED_STD, Case, case

TRUTH = 0.76
SETTINGS = [(1, 400), (1, 4000), (5, 400), (5, 4000)]
PLAIN = 2000  # resamples of the bootstrap that is not corrected

Ends = tuple[float, float]


def plain_bootstrap(right: NDArray[np.bool_]) -> Ends:
    """The pigeonhole bootstrap's percentile interval, not corrected."""
    rows, columns = (draws(n, PLAIN, place) for place, n in enumerate(right.shape))
    means = np.einsum("br,br->b", rows, columns @ right.T.astype(np.float32)) / right.size
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def moments(right: NDArray[np.bool_]) -> Ends:
    """Student's t on the log-odds, of the same variance and degrees of freedom; nothing is resampled."""
    crossed = Crossed(right)
    odds = np.log(crossed.mean / (1 - crossed.mean))
    half = stats.t.ppf(0.975, crossed.degrees) * np.sqrt(crossed.variance) / (crossed.mean * (1 - crossed.mean))
    return float(1 / (1 + np.exp(half - odds))), float(1 / (1 + np.exp(-half - odds)))


def intervals(one: Case, seeds: pooled.SeedVariance | None) -> Iterator[tuple[str, Ends, float]]:
    """Method, interval and truth, of the first configuration. One replicate is held against its own truth, unless named otherwise."""
    right = one.right[0]
    alone = len(right) == 1
    truth = one.replicates[0, 0] if alone else one.truth[0]
    found = accuracy(right)
    yield "corrected bootstrap", (found.low, found.high), truth
    yield "plain bootstrap", plain_bootstrap(right), truth
    yield "t on the log-odds", moments(right), truth
    if seeds:
        yield "corrected bootstrap, for other seeds too", (found.low, found.high), one.truth[0]
        yield "the same, seed variance pooled", pooled.interval(right, seeds), one.truth[0]


def of_accuracies(cases: int) -> str:
    """The table of intervals of an accuracy. The variance over seeds is pooled from 5 configurations of 5 replicates on as many samples."""
    body = []
    for seeds, samples in SETTINGS:
        rng, held, widths = np.random.default_rng(1), defaultdict(list), defaultdict(list)
        for _ in range(cases):
            one = case(rng, np.array([TRUTH]), seeds, samples)
            others = pooled.pooled(list(case(rng, np.full(5, TRUTH), 5, samples).right)) if seeds == 1 else None
            for method, (low, high), truth in intervals(one, others):
                held[method].append(low <= truth <= high)
                widths[method].append(high - low)
        for method, hits in held.items():
            body.append(
                [
                    str(seeds),
                    f"{samples:,}",
                    method,
                    f"{cases:,}",
                    f"{np.mean(hits):.3f}",
                    f"{np.mean(widths[method]):.4f}",
                ]
            )
    return markdown(["replicates", "samples", "method", "cases", "holds the truth", "mean width"], body)


def of_differences(cases: int) -> str:
    """The table of intervals of a difference and of power, 3 points apart. One replicate: of those two networks' truths."""
    body = []
    for seeds, samples in SETTINGS:
        rng, held, widths, finds = np.random.default_rng(2), [], [], []
        for _ in range(cases):
            one = case(rng, np.array([TRUTH + 0.03, TRUTH]), seeds, samples)
            truth = -np.diff(one.replicates[:, 0] if seeds == 1 else one.truth)[0]
            found = family([Crossed(one.right[0].astype(float) - one.right[1])])[0]
            held.append(found.interval.low <= truth <= found.interval.high)
            widths.append(found.interval.high - found.interval.low)
            finds.append(found.p < 0.05)
        body.append(
            [
                str(seeds),
                f"{samples:,}",
                f"{cases:,}",
                f"{np.mean(held):.3f}",
                f"{np.mean(widths):.4f}",
                f"{np.mean(finds):.2f}",
            ]
        )
    head = ["replicates", "samples", "cases", "holds the truth", "mean width", "found"]
    return markdown(head, body)


def first_step(p_values: list[float]) -> float:
    """The least of Holm's corrected p-values."""
    return min(p_values) * len(p_values)


def false_finds(cases: int, count: int) -> str:
    """The table of false finds among equal configurations, each in at least one comparison of a case."""
    body = []
    pairs = list(combinations(range(count), 2))
    for seeds, samples in SETTINGS:
        for seed_std in (0.0, SEED_STD) if seeds == 1 else (SEED_STD,):
            rng, finds = np.random.default_rng(3), []
            for _ in range(cases):
                one = case(rng, np.full(count, TRUTH), seeds, samples, seed_std).right
                less = {(i, j): Crossed(one[i].astype(float) - one[j]) for i, j in pairs}
                p = dict(zip(pairs, p_values(list(less.values())), strict=True))
                best = int(one.mean(axis=(1, 2)).argmax())
                of_best = p_values([crossed for pair, crossed in less.items() if best in pair])
                any_two = first_step(list(p.values())) < 0.05  # else Holm's method finds none of them
                every = dict(zip(pairs, holm(list(p.values())), strict=True)) if any_two else {}
                finds.append(
                    [
                        p_values([less[0, 1]])[0] < 0.05,
                        first_step(p_values([less[0, k] for k in range(1, count)])) < 0.05,
                        any(value < 0.05 for pair, value in every.items() if best in pair),
                        any_two,
                        first_step(of_best) < 0.05,
                    ]
                )
            rates = [f"{share:.3f}" for share in np.mean(finds, axis=0)]
            body.append([str(seeds), f"{samples:,}", f"{seed_std:.3f}", f"{cases:,}", *rates])
    head = [
        "replicates",
        "samples",
        "seeds' deviation",
        "cases",
        "one pair",
        "a fixed one",
        "the best",
        "any two",
        "the best, as if fixed",
    ]
    return markdown(head, body)


def power(cases: int, count: int) -> str:
    """The table of what is found where one configuration is 3 points ahead of all others, itself with a fixed other."""
    body = []
    pairs = list(combinations(range(count), 2))
    for seeds, samples in SETTINGS:
        rng, finds = np.random.default_rng(4), []
        truths = TRUTH + 0.03 * (np.arange(count) == 0)
        for _ in range(cases):
            one = case(rng, truths, seeds, samples).right.astype(float)
            every = [Crossed(one[i] - one[j]) for i, j in pairs]  # the first K − 1 are the leader's
            finds.append(
                [holm(p)[0] < 0.05 for p in (p_values(every[:1]), p_values(every[: count - 1]), p_values(every))]
            )
        rates = [f"{share:.2f}" for share in np.mean(finds, axis=0)]
        body.append([str(seeds), f"{samples:,}", f"{cases:,}", *rates])
    return markdown(["replicates", "samples", "cases", "alone", f"of {count - 1}", f"of {len(pairs)}"], body)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cases", type=int, default=2000)
    parser.add_argument("--configs", type=int, default=8)
    options = parser.parse_args()
    print(of_differences(options.cases), flush=True)
    print(false_finds(options.cases, options.configs), flush=True)
    print(power(options.cases // 10, options.configs), flush=True)
    print(of_accuracies(options.cases), flush=True)


if __name__ == "__main__":
    main()
