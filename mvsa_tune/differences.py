"""Two configurations on the same seeds and samples: difference, 95 % interval, paired test; p-values corrected for their number.

The interval is that of `intervals.py`, of the answers' differences. From two replicates on p is Student's t, of the same standard error and degrees of
freedom: over seeds and samples at once. For one replicate it is McNemar's exact test (1947), which is of those two networks: other seeds
may turn it over. Where a `SeedVariance` is given it is the t test there too.

**Compared with the best.** A reference that was chosen because it leads is not one that was fixed before: its lead is partly luck. Then
every two configurations are compared, and p is Holm's (1979) over them all, which holds for whichever was chosen.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

from mvsa_tune.errors import InputError
from mvsa_tune.intervals import Crossed, Interval, SeedVariance, Values, checked, summary

MCNEMAR = "exact McNemar"
PAIRED_T = "paired t over seeds and samples"


@dataclass(frozen=True)
class Difference:
    """The first's accuracy less the second's.

    Attributes:
        interval: of the difference.
        p: two-sided, of no difference, uncorrected.
        corrected: p by Holm over `comparisons`.
        comparisons: how many were made.
        test: `MCNEMAR` or `PAIRED_T`.
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


def p_value(first: Values, second: Values, seed_variance: SeedVariance | None = None) -> float:
    """The p of `difference` alone, which resamples nothing."""
    return p_values([_less(first, second, seed_variance)])[0]


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values corrected for their number by Holm's step-down method (1979)."""
    return multipletests(p_values, method="holm")[1].tolist() if len(p_values) > 1 else list(p_values)


def against(reference: Values, others: Sequence[Values]) -> list[Difference]:
    """The others, each less a reference that was **fixed before** the numbers were seen; p corrected for `len(others)`."""
    return family([_less(other, reference) for other in others])


def among(values: Sequence[Values]) -> dict[tuple[int, int], Difference]:
    """Every two of K configurations, `(i, j)` for i < j the i-th less the j-th; p corrected for K (K − 1) / 2.

    The comparisons of the best with the others are read out of these (`swapped` turns one round).
    """
    pairs = list(combinations(range(len(values)), 2))
    return dict(zip(pairs, family([_less(values[i], values[j]) for i, j in pairs]), strict=True))


def swapped(found: Difference) -> Difference:
    """The second less the first."""
    of = found.interval
    return replace(found, interval=replace(of, mean=-of.mean, low=-of.high, high=-of.low))


def family(compared: Sequence[Crossed]) -> list[Difference]:
    """Comparisons of the same seeds and samples that are made together: `corrected` is Holm's of `p_values`."""
    found = []
    for crossed, less in zip(compared, holm(p_values(compared)), strict=True):
        ends = crossed.interval(-1, 1) if crossed.variance else (crossed.mean, crossed.mean)  # the same answers
        test = MCNEMAR if _of_two_networks(crossed) else PAIRED_T
        found.append(Difference(summary(crossed, *ends), p_values([crossed])[0], less, len(compared), test))
    return found


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
    if a.shape != b.shape:
        raise InputError(
            f"only configurations of the same seeds and samples are compared; given {a.shape} and {b.shape} (replicates, samples)"
        )
    return Crossed(a - b, seed_variance)


def _of_two_networks(crossed: Crossed) -> bool:
    return crossed.R == 1 and not crossed.pooled and bool(np.isin(crossed.values, (-1, 0, 1)).all())


def _p(crossed: Crossed, degrees: float) -> float:
    if _of_two_networks(crossed):
        first, second = int((crossed.values == 1).sum()), int((crossed.values == -1).sum())  # right alone
        return float(mcnemar([[0, first], [second, 0]], exact=True).pvalue)
    if not crossed.variance:
        return float(crossed.mean == 0)
    return float(2 * stats.t.sf(abs(crossed.mean) / np.sqrt(crossed.variance), degrees))
