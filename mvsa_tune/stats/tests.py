"""Paired tests of configurations on the same seeds and samples: difference, 95 % interval, p, and p corrected for the number of tests.

The interval is `intervals.py`'s, of the differences of each seed and sample. From two seeds on, p is Student's t with the same standard
error and degrees of freedom: over seeds and samples at once. For one seed it is McNemar's exact test (1947), which is about those two
networks only: other seeds may reverse it.

**Comparisons with the best.** The best was chosen for its score, so that its lead is partly luck. All pairs of configurations are therefore
tested, and p is corrected by Holm's method (1979) over all of them, which holds whichever was chosen.

**Configurations with different seeds** are compared on the seeds that both have; without any in common they are not compared.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from statsmodels.stats.multitest import multipletests

from mvsa_tune.stats.intervals import Array, Crossed, Interval, mean_products, redrawn, satterthwaite, stacked

MCNEMAR = "exact McNemar"
PAIRED_T = "paired t over seeds and samples"
REDRAWN_T = "corrected resampled t over draws of the samples"
ALPHA = 0.05  # configurations whose corrected p is below it differ
TINY = 1e-15  # what rounding leaves of a difference, or of a variance, of 0

Seeds = tuple[int, ...]


@dataclass(frozen=True)
class Difference:
    """The accuracy of one configuration minus that of another.

    Attributes:
        interval: the difference with its interval.
        p: two-sided p-value of no difference, uncorrected.
        corrected: p corrected by Holm's method over `comparisons`.
        comparisons: how many tests were made together.
        test: `MCNEMAR`, `PAIRED_T` or `REDRAWN_T`.
    """

    interval: Interval
    p: float
    corrected: float
    comparisons: int
    test: str


def holm(p: Sequence[float] | Array) -> Array:
    """Return p-values corrected for their number by Holm's step-down method (1979)."""
    return multipletests(p, method="holm")[1] if len(p) > 1 else np.asarray(p, dtype=np.float64)


def on_common_seeds(values: Sequence[Array], seeds: Sequence[Seeds]) -> tuple[Seeds, list[Array]]:
    """Return the seeds that all configurations have, and the values `(R, N)` of each configuration for those."""
    if len(set(seeds)) == 1:
        return seeds[0], list(values)
    common = tuple(seed for seed in seeds[0] if all(seed in others for others in seeds))
    return common, [array[[own.index(seed) for seed in common]] for array, own in zip(values, seeds, strict=True)]


class Comparisons:
    """Tests of every two of K configurations, with p corrected for the number of pairs that share a seed.

    K may be in the thousands: the mean squares of all differences are computed from the mean products of the K configurations.

    Attributes:
        p: `(K, K)` uncorrected p above the diagonal; NaN elsewhere, and for pairs without a common seed.
        corrected: `(K, K)` the same, corrected.
        count: number of pairs tested.
    """

    def __init__(
        self, values: Sequence[Array], seeds: Sequence[Seeds] | None = None, ratio: float | None = None
    ) -> None:
        """Test every pair.

        Args:
            values: `(R, N)` for each configuration, a row per seed.
            seeds: of the rows; None where all configurations have the same.
            ratio: where each seed has its own draw of the samples, so that N is 1: of validation to training samples.

        Raises:
            InputError: the values are not of the same samples, or not finite.
        """
        self.values, self.ratio = values, ratio
        self.seeds = seeds or [tuple(range(len(values[0])))] * len(values)
        self.p = np.full((len(values), len(values)), np.nan)
        sets = [set(own) for own in self.seeds]
        commons = {frozenset(a) & frozenset(b) for a, b in combinations_with_replacement(set(self.seeds), 2)}
        for common in sorted(commons, key=len):  # a pair that shares more seeds is tested again with those
            if len(common) >= (1 if ratio is None else 2):
                members = np.array([k for k, own in enumerate(sets) if common <= own])
                _, rows = on_common_seeds([values[k] for k in members], [self.seeds[k] for k in members])
                first, second = np.triu_indices(len(members), 1)
                self.p[members[first], members[second]] = _pairs(rows, first, second, ratio)
        tested = np.isfinite(self.p)
        self.count = int(tested.sum())
        self.corrected = np.full_like(self.p, np.nan)
        self.corrected[tested] = holm(self.p[tested])

    def difference(self, i: int, j: int) -> Difference | None:
        """Return the i-th configuration minus the j-th; None if they were not compared."""
        pair = min(i, j), max(i, j)
        if np.isnan(self.p[pair]):
            return None
        _, (first, second) = on_common_seeds([self.values[i], self.values[j]], [self.seeds[i], self.seeds[j]])
        if self.ratio is not None:
            interval, test = redrawn((first - second)[:, 0], self.ratio, -1), REDRAWN_T
        else:
            crossed = Crossed(_decided(first) - _decided(second))
            interval, test = crossed.interval(-1, 1), _test(crossed)
        return Difference(interval, float(self.p[pair]), float(self.corrected[pair]), self.count, test)


def family(compared: Sequence[Crossed]) -> list[Difference]:
    """Return comparisons that are made together, given as differences `(R, N)`; Holm's method corrects `p_values`."""
    corrected = holm(p_values(compared))
    return [
        Difference(crossed.interval(-1, 1), p_values([crossed])[0], float(p), len(compared), _test(crossed))
        for crossed, p in zip(compared, corrected, strict=True)
    ]


def p_values(compared: Sequence[Crossed]) -> list[float]:
    """Return the uncorrected p of each comparison; the degrees of freedom come from the mean squares of all those of the same shape.

    A comparison's own degrees are too many where its seeds happen to agree, which is just where its t is too large: far out in the tail,
    which many comparisons together depend on, that finds too much (`bench/LOG.md`).
    """
    squares: dict[tuple[int, int], list[tuple[float, float, float]]] = {}
    for crossed in compared:
        squares.setdefault((crossed.R, crossed.N), []).append(crossed.mean_squares)
    degrees = {shape: satterthwaite(np.mean(of_shape, axis=0), *shape) for shape, of_shape in squares.items()}
    return [
        float(_mcnemar((crossed.values == 1).sum(), (crossed.values == -1).sum()))
        if _test(crossed) == MCNEMAR
        else float(_student(crossed.mean, crossed.variance, degrees[crossed.R, crossed.N]))
        for crossed in compared
    ]


def _pairs(values: Sequence[Array], first: NDArray[np.intp], second: NDArray[np.intp], ratio: float | None) -> Array:
    """Return p of pairs of configurations with the same seeds."""
    if ratio is not None:
        accuracy = np.stack(values)[:, :, 0]
        differences, R = accuracy[first] - accuracy[second], accuracy.shape[1]
        return _student(differences.mean(axis=1), differences.var(axis=1, ddof=1) * (1 / R + ratio), R - 1)
    x = _decided(stacked(values))
    _, R, N = x.shape
    if R == 1:
        alone = x[:, 0] @ (1 - x[:, 0]).T  # [i, j]: samples that i classifies correctly and j does not
        return _mcnemar(alone[first, second], alone[second, first])
    means, squares = x.mean(axis=(1, 2)), []
    for products in mean_products(x):
        diagonal = np.diag(products)
        squares.append(np.maximum(0, diagonal[first] + diagonal[second] - 2 * products[first, second]))
    replicates, samples, residual = squares
    variance = (np.maximum(0, replicates - residual) + np.maximum(samples, residual)) / (R * N)
    return _student(means[first] - means[second], variance, satterthwaite([s.mean() for s in squares], R, N))


def _decided(values: Array) -> Array:
    """Return values `(…, R, N)` for a test: for one seed 0 or 1, as McNemar's test needs, by the majority of the epochs chosen."""
    return np.round(values + 1e-9) if values.shape[-2] == 1 else values


def _test(crossed: Crossed) -> str:
    return MCNEMAR if crossed.R == 1 and np.isin(crossed.values, (-1, 0, 1)).all() else PAIRED_T


def _mcnemar(first: Any, second: Any) -> Array:
    """Return the exact p of so many samples that only the first, and only the second, classifies correctly."""
    return np.minimum(1.0, 2 * stats.binom.cdf(np.minimum(first, second), first + second, 0.5))


def _student(means: Any, variance: Any, degrees: float) -> Array:
    """Return the two-sided p of differences of mean 0; without variance 1 where there is no difference, else 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        p = 2 * stats.t.sf(np.abs(means) / np.sqrt(variance), degrees)
    return np.where(variance > TINY, p, (np.abs(means) <= TINY).astype(float))
