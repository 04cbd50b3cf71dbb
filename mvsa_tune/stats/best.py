"""Which configurations may be the best, and how far the others are behind it: a model confidence set.

The set contains every configuration that is truly best, equals included, with 95 % probability, although the best was
chosen for its score (Hansen, Lunde & Nason 2011, doi 10.3982/ECTA5771): whether all configurations in question can be
equally good is tested, and if they cannot, the one that is most clearly behind another is taken out, until they can.

The test asks whether any configuration deviates from the mean of all in question (the analysis of means): one that
leads twenty equals stands out there long before the twenty can be told apart two by two. Each deviation is Student's t,
as a normal deviate; the greatest is compared with the greatest of normal errors with the same covariance. A
configuration is taken out only if it alone is behind some other by Student's t as well. p of a configuration is the
largest p up to its step. `bench/power.py` measures error rates and power, `bench/LOG.md` what was tried beside it.

Where some configurations have more seeds than others, those that did badly may have got none for that reason
(`allocation.py`), and the mean of all is too low. Then each one's greatest distance behind another is compared with the
greatest distance between the best and any other of normal errors.

**Intervals** of the distances from the best are simultaneous, and hold although the best was chosen for its score. The
interval of a configuration in the set reaches 0, that of one outside does not go below it.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

from mvsa_tune.stats.differences import ALPHA, MCNEMAR, TINY, Difference, Errors, student
from mvsa_tune.stats.intervals import Array

DRAWS = 4_000
FAR = 38.0  # the normal deviate of the least p that is not 0


def behind_best(errors: Errors) -> list[Difference]:
    """Return the first configuration minus each of the K, itself included; `adjusted` is p of being the best."""
    draws = errors.draws(DRAWS)
    p = p_of_best(errors, draws)
    mean, error, degrees = (part[0] for part in errors.pairs)
    half = error * stats.t.isf(stats.norm.sf(critical(errors, np.flatnonzero(p >= ALPHA), draws)), degrees)
    low = np.where(p < ALPHA, np.maximum(0, mean - half), np.minimum(0, mean - half))
    test = errors.test if errors.answers is None else MCNEMAR
    alone = errors.p_of_pairs[0]
    return [
        Difference(float(m), max(-1.0, float(lo)), min(1.0, float(m + h)), float(e), float(q), float(a), test)
        for m, lo, h, e, q, a in zip(mean, low, half, error, alone, p, strict=True)
    ]


def p_of_best(errors: Errors, draws: NDArray[np.float32] | None = None) -> Array:
    """Return p of each configuration's being the best, `(K,)`; those of `ALPHA` or more may be."""
    draws = errors.draws(DRAWS) if draws is None else draws
    K, mean = len(errors.means), errors.means
    rivals = np.where(mean[:, None] > mean, deviates(errors.p_of_pairs), 0.0)
    behind = rivals.max(axis=0)  # its strongest rival, as a normal deviate
    if np.ptp(errors.seeds):
        greatest = np.sort(_greatest_from_best(errors, np.arange(K), draws))
        return (1 + len(greatest) - np.searchsorted(greatest, behind)) / (1 + len(greatest))
    order = np.lexsort((-mean, behind))
    ordered, errors_drawn = errors[order], draws[order]
    total = np.cumsum(errors_drawn, axis=0, dtype=np.float64).astype(np.float32)
    p = np.ones(K)
    for count in range(K, 1, -1):
        deviation, error, degrees = _from_mean(ordered, count)
        observed = deviates(student(deviation, error, degrees)).max()
        chance = errors_drawn[:count] - total[count - 1] / np.float32(count)
        chance *= (1 / np.maximum(error, 1e-12)).astype(np.float32)[:, None]
        p[count - 1] = (1 + (np.abs(chance, out=chance).max(axis=0) >= observed).sum()) / (draws.shape[1] + 1)
    p[1:] = np.maximum.accumulate(p[1:][::-1])[::-1]
    p[1:] = np.maximum(p[1:], 2 * stats.norm.sf(behind[order][1:]))
    result = np.empty(K)
    result[order] = p
    return result


def critical(errors: Errors, may_be_best: NDArray[np.intp], draws: NDArray[np.float32]) -> float:
    """Return the 95 % quantile of the greatest standardised error between the best and any other.

    The best is that of the draw, as if all that may be the best were equally good: it is chosen for its error.
    """
    greatest = _greatest_from_best(errors, may_be_best, draws)
    return max(float(np.quantile(greatest, 1 - ALPHA)), float(stats.norm.isf(ALPHA / 2)))


def _greatest_from_best(errors: Errors, may_be_best: NDArray[np.intp], draws: NDArray[np.float32]) -> Array:
    """Return the greatest standardised error between the best of each draw and any other, `(draws,)`."""
    error = errors.pairs[1].astype(np.float32)
    best = may_be_best[draws[may_be_best].argmax(axis=0)]
    error_from_best = error[best].T
    differs = error_from_best**2 > TINY  # from itself, and from one that answers alike, there is only rounding
    distance = np.abs(draws[best, np.arange(draws.shape[1])] - draws)
    return np.divide(distance, error_from_best, out=np.zeros_like(distance), where=differs).max(axis=0)


def deviates(p: Array) -> Array:
    """Return two-sided p-values as the absolute values of normal deviates."""
    return np.minimum(-special.ndtri(p / 2), FAR)


def _from_mean(errors: Errors, count: int) -> tuple[Array, Array, Array]:
    """Return deviation, standard error and degrees of freedom of each of the first `count` from their mean."""
    of = slice(0, count)
    own, all_of = (1 - 1 / count) ** 2 - 1 / count**2, 1 / count**2
    covariance = errors.covariance[of, of]
    with_others = covariance.mean(axis=1)
    over_samples = np.maximum(0, np.diag(covariance) - 2 * with_others + with_others.mean())
    seeds, doubt = (part[of] * own + part[of].sum() * all_of for part in (errors.seed_variance, errors.doubt))
    deviation = errors.means[of] - errors.means[of].mean()
    return deviation, np.sqrt(over_samples + seeds), errors.degrees(over_samples, seeds, doubt)
