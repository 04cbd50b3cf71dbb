"""The best of K: how much of its lead is luck, what it is worth, and what a search of a given budget can expect.

**Luck.** The K means are scored on the same samples; their errors' covariance comes from the mean squares and products of the two-way layout
(`intervals.py`, with every two configurations' products in the place of squares). What leads such errors give where all configurations are
equally good is found by drawing them (normal, which means of hundreds of answers are).

**What it is worth.** The best of K reads too high, because it was chosen for reading high. Were the means shown the truth, errors drawn anew would
choose a best again, and its own error would be above 0 on average: that much is taken off (the bootstrap's correction of bias, Efron &
Tibshirani 1993, chapter 10). It takes off too little where all are equal, as the means are then further apart than the truths; shrinking
towards the mean takes off more, but far too much from one that is truly ahead. `bench/choosing.py` measures both.

**Budget.** What the best of B configurations drawn from the same space would show: Dodge et al. 2019 (arXiv:1909.03004), by the unbiased estimator of
Tang et al. 2020 (arXiv:2004.13705). It is what would be *shown*, luck included.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mvsa_tune.errors import InputError
from mvsa_tune.stats.intervals import Values, checked

DRAWS = 20_000
TIE = 1e-12  # accuracies nearer than this are equal


@dataclass(frozen=True)
class Winner:
    """The best of K configurations by their mean.

    Attributes:
        index: which it is; of equals the first.
        mean: what it shows.
        lead: over the mean of all K.
        luck: the lead over the mean of all K that the best of K equally good ones would have, on average.
        p: how often chance alone gives such a lead or more.
        margin: over the second.
        luck_margin: the margin over the second that the best of K equally good ones would have, on average.
        corrected: the estimate of its true accuracy; `mean` less it is what choosing is thought to have added.
        spread: estimated standard deviation of the K true accuracies; 0 where they spread no wider than chance.
    """

    index: int
    mean: float
    lead: float
    luck: float
    p: float
    margin: float
    luck_margin: float
    corrected: float
    spread: float


def covariance(values: Sequence[Values]) -> NDArray[np.float64]:
    """`(K, K)` of the errors of K configurations' means, over seeds and samples; of one replicate over samples alone.

    Unbiased, so that where seeds hardly differ it can have a negative eigenvalue.

    Args:
        values: K times `(R, N)`, the same seed and sample in the same place.

    Raises:
        InputError: The shapes differ, or `intervals.checked` finds fault.
    """
    arrays = [checked(one) for one in values]
    if len({array.shape for array in arrays}) > 1:
        raise InputError(
            f"only configurations of the same seeds and samples are compared; given {sorted({array.shape for array in arrays})}"
        )
    x = np.stack(arrays)
    K, R, N = x.shape
    x = x - x.mean(axis=(1, 2), keepdims=True)
    replicates, samples = x.mean(axis=2, keepdims=True), x.mean(axis=1, keepdims=True)
    rest = (x - replicates - samples).reshape(K, -1)
    of_samples = R * samples[:, 0] @ samples[:, 0].T / (N - 1)
    if R == 1:
        return of_samples / N
    of_rest = rest @ rest.T / ((R - 1) * (N - 1))
    of_seeds = N * replicates[:, :, 0] @ replicates[:, :, 0].T / (R - 1) - of_rest
    return (of_samples + of_seeds) / (R * N)


def winner(values: Sequence[Values], draws: int = DRAWS) -> Winner:
    """The best of K configurations, its lead and its worth. The same draws every time.

    Raises:
        InputError: As `covariance`; or K is 1.
    """
    if len(values) < 2:
        raise InputError("the best of one configuration has no lead: two at least are needed")
    means = np.array([np.mean(one) for one in values])
    best, count = int(means.argmax()), len(means)
    centring = np.eye(count) - 1 / count
    apart = centring @ covariance(values) @ centring  # the error that all share moves no lead
    errors = np.random.default_rng(0).standard_normal((draws, count)) @ _root(apart).T
    added = errors[np.arange(draws), (means + errors).argmax(axis=1)].mean()
    drawn = np.sort(errors, axis=1)
    order = np.sort(means)
    lead, margin = means[best] - means.mean(), order[-1] - order[-2]
    noise = np.trace(apart) / (count - 1)
    between = max(0.0, float(means.var(ddof=1)) - noise)
    return Winner(
        index=best,
        mean=float(means[best]),
        lead=float(lead),
        luck=float(drawn[:, -1].mean()),
        p=float(((drawn[:, -1] >= lead - TIE).sum() + 1) / (draws + 1)),
        margin=float(margin),
        luck_margin=float((drawn[:, -1] - drawn[:, -2]).mean()),
        corrected=float(means[best] - added),
        spread=float(np.sqrt(between)),
    )


def expected_best(scores: Sequence[float]) -> NDArray[np.float64]:
    """`(K,)` the mean, over all ways to take B of the K scores without putting back, of the best of B; for B from 1 to K."""
    ordered = np.sort(np.asarray(scores, dtype=np.float64))
    count = len(ordered)
    if not count or not np.isfinite(ordered).all():
        raise InputError("the budget's curve needs scores, all of them finite")
    ranks = np.arange(1, count + 1)
    share = np.full(count, 1 / count)  # of the subsets of B, those whose best is the i-th: C(i − 1, B − 1) / C(K, B)
    curve = np.empty(count)
    for budget in ranks:
        curve[budget - 1] = share @ ordered
        if budget < count:
            share = share * (ranks - budget) * (budget + 1) / (budget * (count - budget))
    return curve


def _root(symmetric: NDArray[np.float64]) -> NDArray[np.float64]:
    """A with A Aᵀ the matrix; negative eigenvalues, which are chance, cut off, and the others shrunk to keep their sum."""
    values, vectors = np.linalg.eigh(symmetric)
    positive = np.maximum(values, 0)
    kept = max(float(values.sum()), 0.0) / positive.sum() if positive.any() else 0.0
    return vectors * np.sqrt(kept * positive)
