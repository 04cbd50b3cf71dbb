"""Results: cross-fitting against a plain loop and without the bias of choosing; joining along replicates."""

from dataclasses import fields

import numpy as np
import pytest

from choosing import by_the_others
from mvsa_tune.errors import InputError
from mvsa_tune.training.result import NO_CLASS, NO_ROW, TrialResult, cross_fitted, join, lengthened, take
from simulated import curves


def test_no_sample_has_a_say_in_its_epoch() -> None:
    """One sample a part: each is scored at the best epoch of all the others, written out."""
    correct = np.random.default_rng(0).random((6, 2, 15)) < 0.6
    expected = np.empty((2, 15))
    for replicate in range(2):
        for sample in range(15):
            others = np.delete(correct[:, replicate], sample, axis=1)
            expected[replicate, sample] = correct[others.mean(axis=1).argmax(), replicate, sample]
    assert (cross_fitted(correct, parts=15, rounds=1) == expected).all()


def test_among_equal_epochs_choosing_adds_and_cross_fitting_does_not() -> None:
    correct = np.random.default_rng(1).random((40, 200, 100)) < 0.7
    shown, free = correct.mean(axis=2).max(axis=0), cross_fitted(correct, rounds=3).mean(axis=1)
    assert shown.mean() > 0.78 and free.mean() == pytest.approx(0.7, abs=0.015)


def test_on_curves_like_real_ones_it_is_nearer_the_chosen_networks_truth() -> None:
    rng, shown, free = np.random.default_rng(2), [], []
    for _ in range(60):
        correct, truth = curves(rng, 30, 3, 200)
        best = correct.mean(axis=2).argmax(axis=0)
        chosen = truth[best, range(3)].mean()
        shown.append(correct.mean(axis=2).max(axis=0).mean() - chosen)
        free.append(cross_fitted(correct, rounds=3).mean() - chosen)
    assert np.mean(shown) > 0.015 and abs(np.mean(free)) < np.mean(shown) / 2


def test_one_epoch_leaves_nothing_to_choose() -> None:
    correct = np.random.default_rng(3).random((1, 2, 20)) < 0.6
    assert cross_fitted(correct) == pytest.approx(correct[0].astype(float))


def test_the_others_choose_the_epoch() -> None:
    accuracy = np.array([[0.5, 0.6, 0.7], [0.9, 0.1, 0.6], [0.6, 0.7, 0.5]])
    assert by_the_others(accuracy).tolist() == [0.5, 0.1, 0.5]  # means of the others: by hand
    assert np.isnan(by_the_others(accuracy[:, :1])).all()


def test_too_few_samples_are_refused() -> None:
    with pytest.raises(InputError, match="cannot be divided into 10 parts"):
        cross_fitted(np.ones((2, 1, 5), dtype=bool), parts=10)


def result(sizes: list[int], test_sizes: list[int], seed: int, epochs: int = 4) -> TrialResult:
    """A made-up result of as many replicates as there are sizes: the numbers of their validation and test samples."""
    rng, R = np.random.default_rng(seed), len(sizes)
    arrays = {name: rng.random((epochs, R)).astype(np.float32) for name in ("train_loss", "val_loss")}
    for prefix, counts in (("", sizes), ("test_", test_sizes)):
        arrays[f"{prefix}confusion"] = rng.integers(1, 9, (epochs, R, 3, 3)).astype(np.int32)
        absent = np.arange(max(counts)) >= np.array(counts)[:, None]
        arrays[f"{prefix}rows"] = np.where(absent, NO_ROW, rng.integers(0, 99, absent.shape)).astype(np.int32)
        for name, shape in (("labels", absent.shape), ("predicted", (epochs, *absent.shape))):
            arrays[prefix + name] = np.where(absent, NO_CLASS, rng.integers(0, 3, shape)).astype(np.uint8)
    return TrialResult(**arrays, seconds=1.5, device="cpu", select="loss")


def test_joined_results_hold_each_ones_arrays_along_the_replicates() -> None:
    parts = [result([5, 7], [3, 2], seed=0), result([6], [4], seed=1), result([9], [1], seed=2)]
    joined = join(parts)
    assert (joined.seconds, joined.device, joined.select, joined.epochs) == (4.5, "cpu", "loss", 4)
    assert joined.rows.shape == (4, 9) and joined.test_predicted.shape == (4, 4, 4)
    r = 0
    for part in parts:
        members, r = slice(r, r + len(part.rows)), r + len(part.rows)
        for item in fields(TrialResult):
            array, whole = getattr(part, item.name), getattr(joined, item.name)
            if not isinstance(array, np.ndarray):
                continue
            of_part = whole[members] if item.name.endswith(("rows", "labels")) else whole[:, members]
            if item.name.endswith(("rows", "labels", "predicted")):
                padding = of_part[..., array.shape[-1] :]
                assert (padding == (NO_ROW if item.name.endswith("rows") else NO_CLASS)).all()
                of_part = of_part[..., : array.shape[-1]]
            np.testing.assert_array_equal(of_part, array)
            assert of_part.dtype == array.dtype
    np.testing.assert_array_equal(joined.best_epoch, np.concatenate([part.best_epoch for part in parts]))


def test_replicates_taken_apart_and_joined_again_are_the_result() -> None:
    whole = result([5, 7, 6, 7], [3, 2, 4, 4], seed=0)
    parts = [take(whole, [r]) for r in range(4)]
    again = join([parts[3], *parts[:3]])
    for name, array in vars(take(again, [1, 2, 3, 0])).items():
        np.testing.assert_array_equal(array, getattr(whole, name), err_msg=name)
    assert parts[0].seconds == 1.5 / 4


def test_a_diverged_replicate_keeps_its_epochs_and_repeats_the_last_without_a_loss() -> None:
    short = result([5], [3], seed=0)
    longer = lengthened(short, 6)
    assert longer.epochs == 6 and longer.diverged.tolist() == [5]
    for name in ("confusion", "predicted", "test_confusion", "test_predicted"):
        curve = getattr(longer, name)
        np.testing.assert_array_equal(curve[:4], getattr(short, name))
        assert (curve[4:] == curve[3]).all()
