"""The best of K: luck against simulation and known order statistics; the budget's curve against every subset."""

from itertools import combinations

import numpy as np
import pytest
from scipy import integrate, stats

from mvsa_tune.errors import InputError
from mvsa_tune.stats.intervals import Crossed, accuracy
from mvsa_tune.stats.selection import covariance, expected_best, winner
from simulated import case


@pytest.mark.parametrize("seeds", [1, 4])
def test_the_covariance_is_that_of_the_intervals_and_of_the_differences(seeds: int) -> None:
    right = case(np.random.default_rng(0), np.array([0.7, 0.76]), seeds, 300, seed_std=0.05).right
    errors = covariance(list(right))
    assert np.sqrt(np.diag(errors)) == pytest.approx([accuracy(one).error for one in right], rel=1e-6)
    apart = errors[0, 0] + errors[1, 1] - 2 * errors[0, 1]
    difference = Crossed(right[0].astype(float) - right[1])
    assert np.sqrt(apart) == pytest.approx(np.sqrt(difference.variance), rel=1e-6)


def test_luck_is_the_expected_maximum_of_as_many_normal_errors() -> None:
    """Independent configurations, K = 8: the expected largest of eight standard normal draws, integrated."""
    right = np.random.default_rng(1).random((8, 1, 20_000)) < 0.76
    largest = integrate.quad(lambda x: 8 * x * stats.norm.pdf(x) * stats.norm.cdf(x) ** 7, -10, 10)[0]
    assert winner(list(right)).luck == pytest.approx(largest * np.sqrt(0.76 * 0.24 / 20_000), rel=0.03)


def test_among_equals_the_lead_is_luck_and_the_corrected_number_is_nearer_the_truth() -> None:
    rng, found = np.random.default_rng(2), []
    for _ in range(150):
        one = case(rng, np.full(12, 0.76), 3, 200)
        best = winner(list(one.right), 1000)
        found.append(
            (
                best.lead,
                best.luck,
                best.mean - 0.76,
                best.corrected - 0.76,
                best.p < 0.05,
            )
        )
    lead, luck, shown, corrected, small = np.mean(found, axis=0)
    assert lead == pytest.approx(luck, rel=0.12)
    assert shown > 0.02 and abs(corrected) < 0.6 * shown
    assert small <= stats.binom.ppf(0.9999, 150, 0.06) / 150


def test_among_unequals_the_corrected_number_is_nearer_the_truth_too() -> None:
    rng, found = np.random.default_rng(3), []
    for _ in range(150):
        one = case(rng, 0.76 + 0.01 * rng.standard_normal(12), 3, 200)
        best = winner(list(one.right), 500)
        found.append((best.mean - one.truth[best.index], best.corrected - one.truth[best.index]))
    shown, corrected = np.mean(found, axis=0)
    assert abs(corrected) < 0.6 * shown


def test_a_lead_that_no_luck_explains_is_kept() -> None:
    right = case(np.random.default_rng(4), np.array([0.6, 0.9, 0.6, 0.6, 0.6]), 5, 1000).right
    best = winner(list(right))
    assert best.index == 1 and best.p < 0.001 and best.lead > 10 * best.luck
    assert best.corrected == pytest.approx(best.mean, abs=0.002) and best.corrected <= best.mean + 1e-4


def test_equal_answers_have_no_lead() -> None:
    one = np.random.default_rng(5).random((3, 50)) < 0.7
    best = winner([one, one, one])
    assert (best.index, best.lead) == (0, 0) and best.p == 1
    assert best.corrected == pytest.approx(one.mean()) and best.luck == pytest.approx(0, abs=1e-6)


def test_expected_best_is_the_mean_over_every_subset() -> None:
    scores = np.random.default_rng(6).random(9).round(1).tolist()  # with ties
    brute = [np.mean([max(some) for some in combinations(scores, budget)]) for budget in range(1, 10)]
    assert expected_best(scores).tolist() == pytest.approx(brute)
    assert expected_best(range(2000))[[0, -1]].tolist() == pytest.approx([999.5, 1999])
    with pytest.raises(InputError, match="scores"):
        expected_best([0.5, float("nan")])


def test_what_cannot_be_ranked_is_refused() -> None:
    with pytest.raises(InputError, match="at least two"):
        winner([np.ones((2, 5))])
    with pytest.raises(InputError, match="same seeds and samples"):
        winner([np.ones((2, 5)), np.ones((3, 5))])
