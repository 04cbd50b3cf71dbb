"""Seeds where they decide: against a closed formula, and on simulated sweeps of known truth."""

import numpy as np
import pytest
from scipy.stats import norm

from mvsa_tune.stats.allocation import allocate, expected_losses
from mvsa_tune.stats.best import p_of_best
from mvsa_tune.stats.differences import ALPHA, errors
from mvsa_tune.stats.intervals import Array
from simulated import TRUTH, case


def accuracies(rng: np.random.Generator, truth: Array, seeds: int, samples: int = 400) -> list[Array]:
    return list(case(rng, truth, seeds, samples).correct.mean(axis=2))


def test_the_expected_loss_of_two_is_that_of_the_normal_distribution() -> None:
    # Both have a variance of 1 over seeds, by hand: deviations of ±1 about the mean, n − 1 = 2.
    first, second = np.array([0.3, 1.3, -0.7]), np.array([-0.2, 0.8, -1.2])
    loss, goal = expected_losses([first, second], last=20)
    error = np.sqrt(1 / 3 + 1 / 3)
    z = 0.5 / error
    assert loss[0] == 0  # the leader loses nothing where it is the best
    assert loss[1] == pytest.approx(error * (norm.pdf(z) - z * norm.sf(z)), abs=0.01)
    assert goal == pytest.approx(np.sqrt(1 / 20))


def test_what_is_decided_gets_no_further_seeds_and_what_is_not_gets_all() -> None:
    spread = np.array([-0.01, 0.0, 0.01])
    assert allocate([0.8 + spread, 0.6 + spread, 0.5 + spread], first=3, last=20).tolist() == [3, 3, 3]
    # Only the two that are level get more: 3 + 1, then the recorded seeds are too few to go on.
    level = [0.8 + spread, 0.8 + spread, 0.5 + spread]
    assert allocate(level, first=3, last=20).tolist() == [4, 4, 3]
    assert allocate(level, first=3, last=20, limits=[20, 3, 20]).tolist() == [4, 3, 3]
    # Thirty that swing alike stay undecided: some get all seeds, and none gets more.
    swinging = [np.tile([0.7, 0.9], 10) for _ in range(30)]
    assert allocate(swinging, first=2, last=6).max() == 6
    assert allocate([spread], first=3, last=20).tolist() == [3]  # nothing to choose from


def test_rounds_that_are_trained_one_by_one_end_where_all_seeds_at_once_would() -> None:
    rng = np.random.default_rng(3)
    whole = accuracies(rng, TRUTH - rng.uniform(0, 0.04, 8), seeds=20)
    wanted = allocate(whole, first=2, last=20)
    have, rounds = np.full(8, 2), 0
    while (more := allocate([of[:n] for of, n in zip(whole, have, strict=True)], 2, 20)).sum() > have.sum():
        assert (more >= have).all()
        have, rounds = more, rounds + 1
    assert have.tolist() == wanted.tolist() and rounds > 1
    assert have.sum() < 8 * 20
    # Seeds that some have beyond, from an earlier command, change nothing.
    ahead = [of[: n + 3] for of, n in zip(whole, have, strict=True)]
    assert allocate(ahead, 2, 20).tolist() == wanted.tolist()


@pytest.mark.parametrize("K", [24, 100])
def test_a_sixth_of_the_trainings_finds_as_good_a_winner_as_all(K: int) -> None:
    shares, regrets, standard_errors = [], [], []
    for number in range(10):
        rng = np.random.default_rng(number)
        whole = accuracies(rng, TRUTH - np.abs(rng.normal(0, 0.03, K)), seeds=20)
        seeds = allocate(whole, first=2, last=20)
        means = np.array([of.mean() for of in whole])
        winner = np.argmax([of[:n].mean() for of, n in zip(whole, seeds, strict=True)])
        shares.append(seeds.sum() / (20 * K))
        regrets.append(means.max() - means[winner])
        standard_errors.append(whole[means.argmax()].std(ddof=1) / np.sqrt(20))
    assert np.mean(shares) <= 1 / 6
    assert np.mean(regrets) <= np.mean(standard_errors)


def test_what_is_truly_best_is_hardly_ever_left_out_where_seeds_were_added_to_what_led() -> None:
    left_out, unequal = [], 0
    for number in range(50):
        correct = case(np.random.default_rng(number), np.full(24, TRUTH), 20, 300, seed_std=0.05).correct
        seeds = allocate(list(correct.mean(axis=2)), first=2, last=20)
        values = sorted((of[:n] for of, n in zip(correct, seeds, strict=True)), key=lambda of: -of.mean())
        unequal += np.ptp(seeds) > 0
        left_out.append((p_of_best(errors([of.astype(float) for of in values])) < ALPHA).any())
    assert unequal > 40
    assert np.mean(left_out) <= 0.06  # 0.16 by deviations from the mean of all
