"""The epoch: cross-fitting against a plain loop, and whether it is free of what choosing adds."""

import numpy as np
import pytest

from mvsa_tune.errors import InputError
from mvsa_tune.training.epochs import by_the_others, cross_fitted
from simulated import curves


def test_no_sample_has_a_say_in_its_epoch() -> None:
    """One sample a part: each is scored at the best epoch of all the others, written out."""
    right = np.random.default_rng(0).random((6, 2, 15)) < 0.6
    expected = np.empty((2, 15))
    for replicate in range(2):
        for sample in range(15):
            others = np.delete(right[:, replicate], sample, axis=1)
            expected[replicate, sample] = right[others.mean(axis=1).argmax(), replicate, sample]
    assert (cross_fitted(right, parts=15, rounds=1) == expected).all()


def test_among_equal_epochs_choosing_adds_and_cross_fitting_does_not() -> None:
    right = np.random.default_rng(1).random((40, 200, 100)) < 0.7
    shown, free = right.mean(axis=2).max(axis=0), cross_fitted(right, rounds=3).mean(axis=1)
    assert shown.mean() > 0.78 and free.mean() == pytest.approx(0.7, abs=0.015)


def test_on_curves_like_real_ones_it_is_nearer_the_chosen_networks_truth() -> None:
    rng, shown, free = np.random.default_rng(2), [], []
    for _ in range(60):
        right, truth = curves(rng, 30, 3, 200)
        best = right.mean(axis=2).argmax(axis=0)
        chosen = truth[best, range(3)].mean()
        shown.append(right.mean(axis=2).max(axis=0).mean() - chosen)
        free.append(cross_fitted(right, rounds=3).mean() - chosen)
    assert np.mean(shown) > 0.015 and abs(np.mean(free)) < np.mean(shown) / 2


def test_one_epoch_leaves_nothing_to_choose() -> None:
    right = np.random.default_rng(3).random((1, 2, 20)) < 0.6
    assert cross_fitted(right) == pytest.approx(right[0].astype(float))


def test_the_others_choose_the_epoch() -> None:
    accuracy = np.array([[0.5, 0.6, 0.7], [0.9, 0.1, 0.6], [0.6, 0.7, 0.5]])
    assert by_the_others(accuracy).tolist() == [0.5, 0.1, 0.5]  # means of the others: by hand
    assert np.isnan(by_the_others(accuracy[:, :1])).all()


def test_too_few_samples_are_refused() -> None:
    with pytest.raises(InputError, match="shared out"):
        cross_fitted(np.ones((2, 1, 5), dtype=bool), parts=10)
