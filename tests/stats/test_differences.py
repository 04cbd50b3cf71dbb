"""Differences: against scipy's and statsmodels' tests, and by hand."""

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from mvsa_tune.errors import InputError
from mvsa_tune.stats.differences import MCNEMAR, MODERATED_T, Difference, errors, holm, redrawn_errors
from mvsa_tune.stats.variances import moderate
from simulated import case

FIRST_MINUS_SECOND = np.array([[1.0, -1.0]])


def answers(seed: int, *shape: int, share: float = 0.7) -> np.ndarray:
    return (np.random.default_rng(seed).random(shape) < share).astype(float)


def difference(first: np.ndarray, second: np.ndarray) -> Difference:
    return errors([first, second]).test_all(FIRST_MINUS_SECOND)[0]


def test_one_replicate_is_tested_by_mcnemar() -> None:
    a, b = answers(0, 1, 60), answers(1, 1, 60, share=0.5)
    result = difference(a, b)
    only_a, only_b = int(((a == 1) & (b == 0)).sum()), int(((a == 0) & (b == 1)).sum())
    assert result.test == MCNEMAR and result.p == pytest.approx(stats.binomtest(only_a, only_a + only_b).pvalue)
    assert errors([a, b]).p_of_pairs[0, 1] == result.p and result.mean == pytest.approx(a.mean() - b.mean())
    assert difference(answers(0, 2, 60), answers(1, 2, 60)).test == MODERATED_T


def test_where_samples_are_all_that_varies_the_test_is_the_paired_t() -> None:
    """Replicates that all answer alike: N differences, and scipy's t of them."""
    a, b = (np.tile(answers(seed, 1, 80), (4, 1)) for seed in (2, 3))
    expected = stats.ttest_rel(a[0], b[0])
    result = difference(a, b)
    assert result.p == pytest.approx(expected.pvalue)
    ends = expected.confidence_interval(0.95)
    assert (result.low, result.high) == pytest.approx((ends.low, ends.high))


def test_where_seeds_are_all_that_varies_the_variance_is_the_moderated_one() -> None:
    """All samples alike within a replicate: R accuracies a configuration, and nothing else."""
    values = [np.random.default_rng(seed).random((6, 1)) * np.ones((6, 30)) for seed in range(5)]
    moderated, degrees = moderate(np.array([v[:, 0].var(ddof=1) for v in values]), np.full(5, 5.0))
    mean, error, _ = errors(values).pairs
    assert mean[0, 3] == pytest.approx(values[0].mean() - values[3].mean())
    assert error[0, 3] == pytest.approx(np.sqrt((moderated[0] + moderated[3]) / 6))
    freedom = (moderated[0] + moderated[3]) ** 2 / ((moderated / np.sqrt(degrees))[[0, 3]].sum()) ** 2
    assert errors(values).pairs[2][0, 3] == pytest.approx(freedom)


def test_the_variance_of_a_mean_is_that_of_other_seeds_and_other_samples() -> None:
    """Simulated means scatter as their standard errors say."""
    rng = np.random.default_rng(5)
    drawn = [errors(list(case(rng, np.full(6, 0.76), 5, 400).correct.astype(float))).pairs for _ in range(300)]
    scatter = np.mean([mean[0, 1] ** 2 for mean, _, _ in drawn])
    said = np.mean([error[0, 1] ** 2 for _, error, _ in drawn])
    assert said == pytest.approx(scatter, rel=0.25)


@pytest.mark.parametrize(("K", "N"), [(3, 50), (6, 5)])
def test_drawn_errors_have_the_variances_and_covariances_of_the_means(K: int, N: int) -> None:
    """Over samples those of the mean answers, by `np.cov`; over seeds each its own."""
    values = [answers(seed, 4, N) + seed / 10 * np.random.default_rng(seed).random((4, 1)) for seed in range(K)]
    result = errors(values)
    expected = np.cov([array.mean(axis=0) for array in values]) / N + np.diag(result.seed_variance)
    scale = np.sqrt(np.outer(np.diag(expected), np.diag(expected)))
    drawn = result.draws(100_000)
    assert np.abs(np.cov(drawn) - expected).max() < 0.03 * scale.max()
    assert np.abs(drawn.mean(axis=1)).max() < 0.02 * scale.max() ** 0.5


def test_configurations_may_have_different_numbers_of_seeds() -> None:
    values = [answers(seed, R, 100) for seed, R in enumerate((3, 5, 1))]
    result = errors(values)
    assert result.seeds.tolist() == [3, 5, 1] and result.seed_variance[2] >= 0
    assert result.contrasts(np.array([1.0, -1.0, 0.0]))[1] == pytest.approx(result.pairs[1][0, 1])
    assert result.contrasts(np.array([1.0, -1.0, 0.0]))[2] == pytest.approx(result.pairs[2][0, 1])


def test_the_interval_and_p_say_the_same() -> None:
    rng = np.random.default_rng(6)
    for _ in range(40):
        drawn = case(rng, np.array([0.76, 0.79]), 5, 400).correct.astype(float)
        result = difference(*drawn)
        assert (result.p < 0.05) == (not result.low <= 0 <= result.high)


def test_equal_answers_do_not_differ() -> None:
    for seeds in (1, 3):
        drawn = answers(8, seeds, 50)
        assert difference(drawn, drawn).p == 1


def test_p_is_holms_over_the_differences_tested_together() -> None:
    result = errors([answers(seed, 3, 100, share=0.5 + seed / 25) for seed in range(5)])
    weights = np.array([[-1.0, *np.eye(4)[k]] for k in range(4)])
    differences = result.test_all(weights)
    expected = multipletests([each.p for each in differences], method="holm")[1]
    assert [each.adjusted for each in differences] == expected.tolist()
    assert result.test_all(np.zeros((0, 5))) == [] and holm([0.3]).tolist() == [0.3]


def test_two_configurations_on_redrawn_samples_are_tested_by_nadeau_and_bengios_t() -> None:
    values = np.random.default_rng(3).random((2, 6))
    gap = values[0] - values[1]
    t = gap.mean() / np.sqrt(gap.var(ddof=1) * (1 / 6 + 0.25))
    result = redrawn_errors(values, 0.25).test_all(FIRST_MINUS_SECOND)[0]
    assert result.p == pytest.approx(2 * stats.t.sf(abs(t), 5))


def test_what_all_draws_share_is_taken_out() -> None:
    values = np.random.default_rng(4).random((4, 6))
    shifted = values + np.linspace(0, 3, 6)
    for first, second in zip(redrawn_errors(values, 0.25).pairs, redrawn_errors(shifted, 0.25).pairs, strict=True):
        np.testing.assert_allclose(first, second, atol=1e-12)


def test_values_of_other_samples_raise() -> None:
    with pytest.raises(InputError, match="same samples"):
        errors([answers(0, 2, 10), answers(0, 2, 11)])
    with pytest.raises(InputError, match="finite"):
        errors([np.full((2, 10), np.nan), answers(0, 2, 10)])
