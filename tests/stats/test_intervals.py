"""Intervals: exact moments of the resampling, the variance against statsmodels' mixed model, and how often they hold the truth."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import pooled
from mvsa_tune.errors import InputError
from mvsa_tune.stats.intervals import SAMPLES, SEEDS_AND_SAMPLES, Crossed, accuracy, wilson
from simulated import case


def crossed(rng: np.random.Generator, seeds: int, samples: int, seed_std: float = 0.2) -> np.ndarray:
    """Values of mean 0 with an effect of the seed, one of the sample, and noise."""
    return seed_std * rng.normal(size=(seeds, 1)) + rng.normal(size=(1, samples)) + rng.normal(size=(seeds, samples))


def test_mean_and_deviation_are_those_of_the_replicates() -> None:
    right = np.random.default_rng(0).random((5, 40)) < 0.7
    found = accuracy(right)
    assert found.n == 5 and found.mean == pytest.approx(right.mean())
    assert found.std == pytest.approx(right.mean(axis=1).std(ddof=1))
    assert found.low < found.mean < found.high and found.holds_for == SEEDS_AND_SAMPLES


def test_mean_squares_are_those_of_a_two_way_analysis_of_variance() -> None:
    from statsmodels.formula.api import ols
    from statsmodels.stats.anova import anova_lm

    values = crossed(np.random.default_rng(1), 4, 12)
    seed, sample = np.indices(values.shape)
    table = anova_lm(
        ols("v ~ C(r) + C(n)", pd.DataFrame({"v": values.ravel(), "r": seed.ravel(), "n": sample.ravel()})).fit()
    )
    assert Crossed(values).mean_squares == pytest.approx(tuple(table["sum_sq"] / table["df"]))


def test_the_variance_is_unbiased() -> None:
    rng = np.random.default_rng(2)
    tries = [Crossed(crossed(rng, 4, 30, seed_std=0.5)) for _ in range(3000)]
    true = 0.25 / 4 + 1 / 30 + 1 / 120
    assert np.mean([one.variance for one in tries]) == pytest.approx(true, rel=0.05)
    assert np.var([one.mean for one in tries]) == pytest.approx(true, rel=0.08)


@pytest.mark.parametrize("seeds", [1, 2, 5])
def test_resampled_means_have_the_estimated_variance(seeds: int) -> None:
    one = Crossed(crossed(np.random.default_rng(3), seeds, 60) + 0.3)
    variances = {one.variance: one.resampled(20_000)}
    if seeds == 1:
        variances[one.variance + 0.02] = pooled.resampled(one, pooled.SeedVariance(0.02, 8), 20_000)
    for variance, means in variances.items():
        assert means.mean() == pytest.approx(one.mean, abs=4 * np.sqrt(variance / 20_000))
        assert means.var() == pytest.approx(variance, rel=0.05)


@pytest.mark.parametrize(("seeds", "samples"), [(1, 400), (2, 200), (5, 400)])
def test_intervals_hold_the_truth_as_often_as_they_say(seeds: int, samples: int) -> None:
    """From 93 to 97 %, and what chance does to 250 cases in all but one of 10,000 tries."""
    rng, held = np.random.default_rng(4), 0
    for _ in range(250):
        one = case(rng, np.array([0.76]), seeds, samples)
        found = accuracy(one.right[0])
        truth = one.replicates[0, 0] if seeds == 1 else one.truth[0]
        held += found.low <= truth <= found.high
    least, most = stats.binom.ppf(0.0001, 250, 0.93), stats.binom.ppf(0.9999, 250, 0.97)
    assert least <= held <= most


def test_one_replicate_says_nothing_of_other_seeds_without_the_variance_of_other_configurations() -> None:
    rng, alone, wide = np.random.default_rng(5), 0, 0
    for _ in range(150):
        one = case(rng, np.full(6, 0.76), 2, 400, seed_std=0.06)
        single, seeds = one.right[0, :1], pooled.pooled(list(one.right[1:]))
        interval = accuracy(single)
        assert seeds is not None and interval.holds_for == SAMPLES
        low, high = pooled.interval(single, seeds)
        alone += interval.low <= one.truth[0] <= interval.high
        wide += low <= one.truth[0] <= high
    assert alone < 0.75 * 150 and wide > 0.88 * 150


def test_the_pooled_variance_is_the_seeds() -> None:
    rng = np.random.default_rng(6)
    found = pooled.pooled([crossed(rng, 3, 50, seed_std=0.5) for _ in range(2000)] + [crossed(rng, 1, 50)])
    assert found is not None and found.variance == pytest.approx(0.25, rel=0.06) and found.degrees == 4000
    assert pooled.pooled([crossed(rng, 1, 50)]) is None


def test_all_right_is_not_certain() -> None:
    found = accuracy(np.ones((5, 40), dtype=bool))
    low, high = stats.binomtest(40, 40).proportion_ci(method="wilson")
    assert (found.low, found.high) == pytest.approx((low, high)) and [found.low, found.high] == wilson(1, 40)


def test_an_interval_stays_within_what_an_accuracy_can_be() -> None:
    right = np.ones((2, 50), dtype=bool)
    right[0, :20] = False
    found = accuracy(right)
    assert found.low == 0 and found.high == 1  # two replicates that differ by 0.4 say very little


@pytest.mark.parametrize("values", [np.ones(5), np.ones((2, 1)), np.array([[0, np.nan]])])
def test_what_is_no_table_of_answers_is_refused(values: np.ndarray) -> None:
    with pytest.raises(InputError, match="replicate"):
        accuracy(values)
