"""The best of K: how much of its lead is luck, what it is worth, and what a search with a smaller budget can expect.

**Luck.** The K means are scored on the same seeds and samples; the covariance of their errors comes from the mean products of the two-way
layout (`intervals.py`). The lead that such errors give where all configurations are equally good is found by drawing them from a normal
distribution (the errors are means of hundreds of values).

**Worth.** The best of K has too high a score, because it was chosen for it. If the means were the truth, a best chosen from newly drawn
errors would have an error above 0 on average: so much is subtracted (the bootstrap's correction of bias, Efron & Tibshirani 1993,
chapter 10). It is too little where all are equal, as the means spread wider than the truths. Shrinking towards the mean subtracts more,
but far too much from one that is truly ahead. `bench/choosing.py` measures both.

**Budget.** The score that the best of B configurations from the same space would show: Dodge et al. 2019 (arXiv:1909.03004), by the unbiased
estimator of Tang et al. 2020 (arXiv:2004.13705). It includes the luck of choosing.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mvsa_tune.errors import InputError
from mvsa_tune.stats.intervals import Array, Values, mean_products, stacked

DRAWS = 20_000
TIE = 1e-12  # accuracies nearer than this are equal


@dataclass(frozen=True)
class Winner:
    """The best of K configurations by their mean.

    Attributes:
        index: which it is; of equals the first.
        mean: its mean.
        lead: its lead over the mean of all K.
        luck: the expected lead of the best of K equally good ones.
        p: how often chance alone gives such a lead or more.
        corrected: its mean without what choosing it has added.
    """

    index: int
    mean: float
    lead: float
    luck: float
    p: float
    corrected: float


def covariance(values: Sequence[Values]) -> Array:
    """Return the covariance `(K, K)` of the errors of K means, over seeds and samples; over samples alone for one seed.

    It is unbiased, so that it can have a negative eigenvalue where seeds hardly differ.

    Args:
        values: `(R, N)` for each configuration, with the same seeds and samples in the same order.

    Raises:
        InputError: the shapes differ, or a value is not finite.
    """
    x = stacked(values)
    replicates, samples, residual = mean_products(x)
    return (samples + replicates - residual) / (x.shape[1] * x.shape[2])


def winner(values: Sequence[Values], draws: int = DRAWS) -> Winner:
    """Return the best of K configurations, its lead and its worth; the same draws every time.

    Raises:
        InputError: as `covariance`, or K is 1.
    """
    if len(values) < 2:
        raise InputError("the best of one configuration has no lead: at least two are needed")
    means = np.array([np.mean(array) for array in values])
    best, count = int(means.argmax()), len(means)
    centring = np.eye(count) - 1 / count
    centred = centring @ covariance(values) @ centring  # an error that all share changes no lead
    errors = np.random.default_rng(0).standard_normal((draws, count)) @ _root(centred).T
    added = errors[np.arange(draws), (means + errors).argmax(axis=1)].mean()
    lead, leads = means[best] - means.mean(), errors.max(axis=1)
    return Winner(
        index=best,
        mean=float(means[best]),
        lead=float(lead),
        luck=float(leads.mean()),
        p=float(((leads >= lead - TIE).sum() + 1) / (draws + 1)),
        corrected=float(means[best] - added),
    )


def expected_best(scores: Sequence[float]) -> Array:
    """Return the expected best of B of the K scores, drawn without replacement, for B from 1 to K: `(K,)`."""
    ordered = np.sort(np.asarray(scores, dtype=np.float64))
    count = len(ordered)
    if not count or not np.isfinite(ordered).all():
        raise InputError("the curve of the budget needs scores, all of them finite")
    ranks = np.arange(1, count + 1)
    share = np.full(count, 1 / count)  # of the subsets of B, those whose best is the i-th: C(i − 1, B − 1) / C(K, B)
    curve = np.empty(count)
    for budget in ranks:
        curve[budget - 1] = share @ ordered
        if budget < count:
            share = share * (ranks - budget) * (budget + 1) / (budget * (count - budget))
    return curve


def _root(symmetric: Array) -> Array:
    """Return A with A Aᵀ = the matrix; negative eigenvalues, which are chance, become 0, and the others shrink to keep the sum."""
    values, vectors = np.linalg.eigh(symmetric)
    positive = np.maximum(values, 0)
    kept = max(float(values.sum()), 0.0) / positive.sum() if positive.any() else 0.0
    return vectors * np.sqrt(kept * positive)
