"""Intervals: moments of the resampling, the variance against statsmodels, and how often they contain the truth."""

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
    correct = np.random.default_rng(0).random((5, 40)) < 0.7
    interval = accuracy(correct)
    assert interval.n == 5 and interval.mean == pytest.approx(correct.mean())
    assert interval.std == pytest.approx(correct.mean(axis=1).std(ddof=1))
    assert interval.low < interval.mean < interval.high and interval.holds_for == SEEDS_AND_SAMPLES


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
    repeats = [Crossed(crossed(rng, 4, 30, seed_std=0.5)) for _ in range(3000)]
    true = 0.25 / 4 + 1 / 30 + 1 / 120
    assert np.mean([drawn.variance for drawn in repeats]) == pytest.approx(true, rel=0.05)
    assert np.var([drawn.mean for drawn in repeats]) == pytest.approx(true, rel=0.08)


@pytest.mark.parametrize("seeds", [1, 2, 5])
def test_resampled_means_have_the_estimated_variance(seeds: int) -> None:
    drawn = Crossed(crossed(np.random.default_rng(3), seeds, 60) + 0.3)
    variances = {drawn.variance: drawn.resampled(20_000)}
    if seeds == 1:
        variances[drawn.variance + 0.02] = pooled.resampled(drawn, pooled.SeedVariance(0.02, 8), 20_000)
    for variance, means in variances.items():
        assert means.mean() == pytest.approx(drawn.mean, abs=4 * np.sqrt(variance / 20_000))
        assert means.var() == pytest.approx(variance, rel=0.05)


@pytest.mark.parametrize(("seeds", "samples"), [(1, 400), (2, 200), (5, 400)])
@pytest.mark.long
def test_intervals_contain_the_truth_as_often_as_they_say(seeds: int, samples: int) -> None:
    """From 93 to 97 %, and what chance does to 250 cases in all but one of 10,000 tries."""
    rng, held = np.random.default_rng(4), 0
    for _ in range(250):
        drawn = case(rng, np.array([0.76]), seeds, samples)
        interval = accuracy(drawn.correct[0])
        truth = drawn.replicates[0, 0] if seeds == 1 else drawn.truth[0]
        held += interval.low <= truth <= interval.high
    least, most = stats.binom.ppf(0.0001, 250, 0.93), stats.binom.ppf(0.9999, 250, 0.97)
    assert least <= held <= most


@pytest.mark.long
def test_one_replicate_says_nothing_of_other_seeds_without_the_variance_of_other_configurations() -> None:
    rng, narrow, wide = np.random.default_rng(5), 0, 0
    for _ in range(150):
        drawn = case(rng, np.full(6, 0.76), 2, 400, seed_std=0.06)
        single, seeds = drawn.correct[0, :1], pooled.pooled(list(drawn.correct[1:]))
        interval = accuracy(single)
        assert seeds is not None and interval.holds_for == SAMPLES
        low, high = pooled.interval(single, seeds)
        narrow += interval.low <= drawn.truth[0] <= interval.high
        wide += low <= drawn.truth[0] <= high
    assert narrow < 0.75 * 150 and wide > 0.88 * 150


def test_the_pooled_variance_is_the_seeds() -> None:
    rng = np.random.default_rng(6)
    interval = pooled.pooled([crossed(rng, 3, 50, seed_std=0.5) for _ in range(2000)] + [crossed(rng, 1, 50)])
    assert interval is not None and interval.variance == pytest.approx(0.25, rel=0.06) and interval.degrees == 4000
    assert pooled.pooled([crossed(rng, 1, 50)]) is None


def test_all_correct_is_not_certain() -> None:
    interval = accuracy(np.ones((5, 40), dtype=bool))
    low, high = stats.binomtest(40, 40).proportion_ci(method="wilson")
    assert (interval.low, interval.high) == pytest.approx((low, high)) and [interval.low, interval.high] == wilson(
        1, 40
    )


def test_an_interval_stays_within_what_an_accuracy_can_be() -> None:
    correct = np.ones((2, 50), dtype=bool)
    correct[0, :20] = False
    interval = accuracy(correct)
    assert interval.low == 0 and interval.high == 1  # two replicates that differ by 0.4 say very little


@pytest.mark.parametrize("values", [np.ones(5), np.ones((2, 1)), np.array([[0, np.nan]])])
def test_other_shapes_and_values_raise(values: np.ndarray) -> None:
    with pytest.raises(InputError, match="replicate"):
        accuracy(values)
