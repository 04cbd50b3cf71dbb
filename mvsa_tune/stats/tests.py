"""Two configurations on the same seeds and samples: difference, 95 % interval, paired test; p-values corrected for their number.

The interval is that of `intervals.py`, of the answers' differences. From two replicates on p is Student's t, of the same standard error and degrees of
freedom: over seeds and samples at once. For one replicate it is McNemar's exact test (1947), which is of those two networks: other seeds
may turn it over. Where a `SeedVariance` is given it is the t test there too.

**Compared with the best.** A reference that was chosen because it leads is not one that was fixed before: its lead is partly luck. Then
every two configurations are compared, and p is Holm's (1979) over them all, which holds for whichever was chosen.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

from mvsa_tune.errors import InputError
from mvsa_tune.stats.intervals import Crossed, Interval, Redrawn, SeedVariance, Values, checked, summary

MCNEMAR = "exact McNemar"
PAIRED_T = "paired t over seeds and samples"

REDRAWN_T = "corrected resampled t over draws of the samples"
ALPHA = 0.05  # a corrected p below it tells two apart
TINY = 1e-15  # what rounding leaves of a difference, or of a variance, of 0


@dataclass(frozen=True)
class Difference:
    """The first's accuracy less the second's.

    Attributes:
        interval: of the difference.
        p: two-sided, of no difference, uncorrected.
        corrected: p by Holm over `comparisons`.
        comparisons: how many were made.
        test: `MCNEMAR`, `PAIRED_T` or `REDRAWN_T`.
    """

    interval: Interval
    p: float
    corrected: float
    comparisons: int
    test: str


def difference(first: Values, second: Values, seed_variance: SeedVariance | None = None) -> Difference:
    """One comparison, of answers `(R, N)` each, the same seed and sample in the same place.

    `seed_variance` is that of a difference (`intervals.pooled` of differences; of configurations with seeds of their own, the sum of two).

    Raises:
        InputError: The shapes differ, or `intervals.checked` finds fault.
    """
    return family([_less(first, second, seed_variance)])[0]


def holm(p_values: Sequence[float] | NDArray[np.float64]) -> list[float]:
    """p-values corrected for their number by Holm's step-down method (1979)."""
    return multipletests(p_values, method="holm")[1].tolist() if len(p_values) > 1 else list(p_values)


class Among:
    """Every two of K configurations on the same seeds and samples; p corrected for K (K − 1) / 2.

    The comparisons of the best with the others are read out of these: what was chosen because it leads was not fixed before. K may be in the thousands:
    the mean squares of all differences come out of the K configurations' mean squares and products.
    """

    def __init__(self, values: Sequence[Values]) -> None:
        """`values` is K times `(R, N)`; `InputError` as for `difference`."""
        arrays = [checked(one) for one in values]
        for one in arrays:
            _same_shape(arrays[0], one)
        self.values = np.stack(arrays)
        self.first, self.second = np.triu_indices(len(arrays), 1)

    @cached_property
    def p(self) -> NDArray[np.float64]:
        """`(K (K − 1) / 2,)` uncorrected, in the order of `first` and `second`."""
        count, R, N = self.values.shape
        if R == 1 and _binary(self.values):
            right = self.values[:, 0]
            alone = right @ (1 - right).T  # [i, j]: samples that i alone is right about
            one, other = alone[self.first, self.second], alone[self.second, self.first]
            exact = 2 * stats.binom.cdf(np.minimum(one, other), one + other, 0.5)
            return np.minimum(1.0, np.asarray(exact, dtype=np.float64))
        means = self.values.mean(axis=(1, 2))
        x = self.values - means[:, None, None]
        replicates, samples = x.mean(axis=2, keepdims=True), x.mean(axis=1, keepdims=True)
        free = max(R - 1, 1)
        rest = (x - replicates - samples).reshape(count, -1)
        squares = [
            self._of_pairs(effects) / degrees
            for effects, degrees in (
                (replicates[:, :, 0] * np.sqrt(N), free),
                (samples[:, 0] * np.sqrt(R), N - 1),
                (rest, free * (N - 1)),
            )
        ]
        of_seeds, of_samples, of_rest = squares
        seeds = np.maximum(0, of_seeds - of_rest) if R > 1 else 0.0
        variance = (seeds + np.maximum(0, of_samples - of_rest) + of_rest) / (R * N)
        mean = tuple(float(one.mean()) for one in squares)
        degrees = Crossed(self.values[0] - self.values[-1]).degrees_of(mean)
        lead = np.abs(means[self.first] - means[self.second])
        with np.errstate(divide="ignore", invalid="ignore"):
            p = 2 * stats.t.sf(lead / np.sqrt(variance), degrees)
        return np.where(variance > TINY, p, (lead <= TINY).astype(float))

    def _of_pairs(self, effects: NDArray[np.float64]) -> NDArray[np.float64]:
        """Sums of squares of the differences of K rows of effects, pair by pair."""
        products = effects @ effects.T
        own = np.diag(products)
        return np.maximum(0, own[self.first] + own[self.second] - 2 * products[self.first, self.second])

    @cached_property
    def corrected(self) -> NDArray[np.float64]:
        """The same by Holm."""
        return np.array(holm(self.p))

    def difference(self, i: int, j: int) -> Difference:
        """The i-th less the j-th."""
        low, high = min(i, j), max(i, j)
        place = low * (2 * len(self.values) - low - 1) // 2 + high - low - 1
        crossed = Crossed(self.values[i] - self.values[j])
        return _difference(crossed, float(self.p[place]), float(self.corrected[place]), len(self.p))


def of_means(values: Sequence[Values], ratio: float) -> list[Difference]:
    """The first of K configurations less each other, where replicates are draws of the samples (`intervals.Redrawn`), `(R, 1)` each.

    p is corrected over every two of them.
    """
    every = [Redrawn(one - other, ratio) for one, other in combinations(values, 2)]
    p = [
        float(2 * stats.t.sf(abs(one.mean) / one.variance**0.5, one.degrees)) if one.variance else float(one.mean == 0)
        for one in every
    ]
    return [
        Difference(summary(one, *one.interval(-1, 1)), alone, corrected, len(every), REDRAWN_T)
        for one, alone, corrected in list(zip(every, p, holm(p), strict=True))[: len(values) - 1]
    ]


def family(compared: Sequence[Crossed]) -> list[Difference]:
    """Comparisons of the same seeds and samples that are made together: `corrected` is Holm's of `p_values`."""
    corrected = holm(p_values(compared))
    return [
        _difference(crossed, p_values([crossed])[0], less, len(compared))
        for crossed, less in zip(compared, corrected, strict=True)
    ]


def p_values(compared: Sequence[Crossed]) -> list[float]:
    """Of each comparison, uncorrected; the degrees of freedom taken from the mean squares of all together.

    A comparison's own degrees are too many where its seeds happen to agree, which is just where its t is too large: far out in the tail, where
    many comparisons put the bar, that finds too much (`bench/LOG.md`).
    """
    if not compared:
        return []
    squares = np.mean([crossed.mean_squares for crossed in compared], axis=0)
    return [_p(crossed, crossed.degrees_of(tuple(squares))) for crossed in compared]


def _less(first: Values, second: Values, seed_variance: SeedVariance | None = None) -> Crossed:
    a, b = checked(first), checked(second)
    _same_shape(a, b)
    return Crossed(a - b, seed_variance)


def _same_shape(a: NDArray[np.float64], b: NDArray[np.float64]) -> None:
    if a.shape != b.shape:
        raise InputError(
            f"only configurations of the same seeds and samples are compared; given {a.shape} and {b.shape} (replicates, samples)"
        )


def _difference(crossed: Crossed, p: float, corrected: float, comparisons: int) -> Difference:
    ends = crossed.interval(-1, 1) if crossed.variance else (crossed.mean, crossed.mean)  # the same answers
    test = MCNEMAR if _of_two_networks(crossed) else PAIRED_T
    return Difference(summary(crossed, *ends), p, corrected, comparisons, test)


def _of_two_networks(crossed: Crossed) -> bool:
    return crossed.R == 1 and not crossed.pooled and _binary(crossed.values)


def _binary(values: NDArray[np.float64]) -> bool:
    """Whether they are answers, right or wrong, or the differences of such."""
    return bool(np.isin(values, (-1, 0, 1)).all())


def _p(crossed: Crossed, degrees: float) -> float:
    if _of_two_networks(crossed):
        first, second = int((crossed.values == 1).sum()), int((crossed.values == -1).sum())  # right alone
        return float(mcnemar([[0, first], [second, 0]], exact=True).pvalue)
    if not crossed.variance:
        return float(crossed.mean == 0)
    return float(2 * stats.t.sf(abs(crossed.mean) / np.sqrt(crossed.variance), degrees))
