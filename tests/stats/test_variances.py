"""Moderated seed variances: Smyth's posterior mean, a cautious prior, and what a wild configuration does."""

import numpy as np
import pytest
from scipy import stats

from mvsa_tune.stats.variances import DROP, PRIOR_DEGREES, moderate, prior


def drawn(true: np.ndarray, degrees: int, seed: int = 0) -> np.ndarray:
    return true * np.random.default_rng(seed).chisquare(degrees, len(true)) / degrees


def test_a_moderated_variance_is_smyths_posterior_mean_and_at_least_the_median_of_all() -> None:
    variances, degrees = drawn(np.ones(12), 4), np.array([2.0, 4.0] * 6)
    d0, s0 = prior(variances, degrees)
    moderated, freedom = moderate(variances, degrees)
    posterior = [(d0 * s0 + degrees[k] * variances[k]) / (d0 + degrees[k]) for k in range(12)]
    for k in range(12):
        assert moderated[k] == pytest.approx(max(posterior[k], np.median(posterior)))
        assert freedom[k] == pytest.approx(d0 + degrees[k])


def test_the_prior_is_the_least_that_the_likelihood_allows() -> None:
    variances = drawn(np.geomspace(1, 20, 30), 4)
    degrees = np.full(30, 4.0)
    chosen, scale = prior(variances, degrees)

    def likelihood(d0: float) -> float:
        scales = variances.mean() * np.exp(np.linspace(-4, 1.5, 2000))
        return max(float((stats.f.logpdf(variances / s, 4, d0) - np.log(s)).sum()) for s in scales)

    best = max(map(likelihood, PRIOR_DEGREES))
    lower = PRIOR_DEGREES[chosen > PRIOR_DEGREES]
    assert likelihood(chosen) >= best - DROP - 0.02 and likelihood(float(lower[-1])) < best - DROP + 0.02
    density = [(stats.f.logpdf(variances / s, 4, chosen) - np.log(s)).sum() for s in (scale * 0.9, scale, scale * 1.1)]
    assert density[1] == max(density)


def test_alike_variances_are_shrunk_much_and_different_ones_little() -> None:
    alike = prior(drawn(np.ones(100), 4), np.full(100, 4.0))[0]
    different = prior(drawn(np.tile([1.0, 25.0], 50), 4), np.full(100, 4.0))[0]
    assert alike >= 8 and different <= 2


def test_a_wild_variance_keeps_most_of_its_own_and_hardly_changes_the_others() -> None:
    variances = drawn(np.ones(12), 4, seed=1)
    wild = variances.copy()
    wild[0] = 40.0
    calm, _ = moderate(variances, np.full(12, 4.0))
    disturbed, _ = moderate(wild, np.full(12, 4.0))
    assert disturbed[0] > 0.6 * 40
    assert np.median(disturbed[1:] / calm[1:]) < 1.25


def test_one_variance_stays_and_a_configuration_with_one_seed_borrows_it() -> None:
    moderated, degrees = moderate(np.array([3.0]), np.array([4.0]))
    assert (moderated[0], degrees[0]) == (3, 4)
    moderated, degrees = moderate(np.array([2.0, 3.0, 0.0]), np.array([4.0, 4.0, 0.0]))
    assert 2 <= moderated[2] <= 3 and degrees[2] > 0
    assert (moderate(np.zeros(3), np.full(3, 2.0))[0] == 0).all()
