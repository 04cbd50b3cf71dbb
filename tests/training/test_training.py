import dataclasses

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score

from mvsa_tune.config import Replicate
from mvsa_tune.models.heads import HEADS
from mvsa_tune.training.metrics import f1_macro
from mvsa_tune.training.result import TrialResult
from mvsa_tune.training.trainer import Samples, epoch_steps, generators, minibatches
from small_stacks import CONFIG, COUNTS, rates, samples, trainer, uneven


# In float32 the bias before a BatchNorm has no gradient but rounding, which Adam scales up to full steps: exactness
# shows only where rounding is the same (the next test), nearness in float64.
@pytest.mark.parametrize(
    "change", [{}, {"ablation": 1}, {"ablation": 2}, {"dropout": 0.0}, *({"head": name} for name in list(HEADS)[1:])]
)
def test_a_stack_gives_each_replicate_what_it_gives_alone(change: dict[str, object]) -> None:
    config, data = dataclasses.replace(CONFIG, **change), samples(dtype=torch.float64)  # type: ignore[arg-type]
    replicates = [Replicate(1), Replicate(2), Replicate(1, fold=1), Replicate(7)]
    together = trainer(config, replicates, data).fit()
    for r, replicate in enumerate(replicates):
        alone = trainer(config, [replicate], data).fit()
        np.testing.assert_allclose(alone.train_loss[:, 0], together.train_loss[:, r], rtol=1e-9)
        np.testing.assert_allclose(alone.val_loss[:, 0], together.val_loss[:, r], rtol=1e-7)
        np.testing.assert_array_equal(alone.confusion[:, 0], together.confusion[:, r])
        np.testing.assert_array_equal(alone.best[0], together.best[r])
    assert len({tuple(column) for column in together.train_loss.T}) == 4  # and they do differ


UNEVEN = [
    Replicate(1, 0),
    Replicate(1, 1),
    Replicate(2, 1),
    Replicate(1, 2),
    Replicate(1, 3),
    Replicate(2, 3),
    Replicate(1, 4),
]


CHANGES = [
    {"schedule": "cosine", "warmup": 0.2},
    {"schedule": "plateau", "lr": 0.1, "epochs": 12},
    {"weight_decay": 0.1, "label_smoothing": 0.2},
    {"select": "loss", "lr": 0.1},
    {"head": "merged-attention"},
    {"ablation": 1},
]


@pytest.mark.parametrize("change", CHANGES)
def test_folds_of_unequal_size_train_in_a_stack_as_alone(change: dict[str, object]) -> None:
    config, data = dataclasses.replace(CONFIG, **change), samples(dtype=torch.float64)  # type: ignore[arg-type]
    together = uneven(config, UNEVEN, data)
    result = together.fit()
    for r, replicate in enumerate(UNEVEN):
        single = uneven(config, [replicate], data)
        alone = single.fit()
        np.testing.assert_allclose(alone.train_loss[:, 0], result.train_loss[:, r], rtol=1e-9)
        np.testing.assert_allclose(alone.val_loss[:, 0], result.val_loss[:, r], rtol=1e-7)
        np.testing.assert_array_equal(alone.confusion[:, 0], result.confusion[:, r])
        np.testing.assert_array_equal(alone.test_confusion[:, 0], result.test_confusion[:, r])
        for name in ("rows", "labels", "predicted"):
            for prefix, size in (("", 9 + replicate.fold), ("test_", 8 - replicate.fold)):
                whole, array = getattr(result, prefix + name), getattr(alone, prefix + name)
                np.testing.assert_array_equal(array[..., 0, :], whole[..., r, :size])
                assert (whole[..., r, size:] == (-1 if name == "rows" else 255)).all()
        assert rates(single) == rates(together)[r : r + 1]
    if config.schedule == "plateau":  # else nothing would have been shown
        assert len(set(rates(together))) > 1


@pytest.mark.skipif(not torch.backends.mkl.is_available(), reason="seen with MKL's products alone")
@pytest.mark.parametrize("change", [{}, {"precision": "bf16", "schedule": "linear"}, {"head": "cross-attention"}])
def test_with_mkl_unequal_folds_have_the_very_bits_they_have_alone(change: dict[str, object]) -> None:
    config = dataclasses.replace(CONFIG, **{"D": 128, "batch_size": 128, **change})  # type: ignore[arg-type]
    data = samples(630)
    together = uneven(config, UNEVEN, data, 7).fit()
    for r, replicate in enumerate(UNEVEN):
        alone = uneven(config, [replicate], data, 7).fit()
        for name in ("train_loss", "val_loss", "confusion"):
            np.testing.assert_array_equal(getattr(alone, name)[:, 0], getattr(together, name)[:, r])


def test_minibatches_of_equal_length_go_together_and_each_replicate_gets_its_own() -> None:
    steps = epoch_steps(COUNTS, 16)
    assert [which for step in steps[:3] for _, which in step] == [slice(None)] * 3
    assert steps[3] == [(slice(48, 64), [0, 1, 3]), (slice(48, 65), [2]), (slice(48, 59), [4])]
    assert steps[4] == [(slice(64, 70), [0]), (slice(64, 66), [1])]
    assert epoch_steps([70, 70], 16) == [[(batch, slice(None))] for batch in minibatches(70, 16)]


@pytest.mark.skipif(not torch.backends.mkl.is_available(), reason="seen with MKL's products alone")
@pytest.mark.parametrize(
    "change",
    [{}, {"ablation": 1}, {"batch_size": 32}, {"precision": "bf16"}, *({"head": name} for name in list(HEADS)[1:])],
)
def test_with_mkl_a_replicate_alone_has_the_very_bits_it_has_in_a_stack(change: dict[str, object]) -> None:
    config = dataclasses.replace(CONFIG, **{"D": 128, "batch_size": 256, "epochs": 4, **change})  # type: ignore[arg-type]
    data = samples(620)
    together = trainer(config, [Replicate(seed) for seed in range(5)], data, 600).fit()
    alone = trainer(config, [Replicate(3)], data, 600).fit()
    np.testing.assert_array_equal(alone.train_loss[:, 0], together.train_loss[:, 3])
    np.testing.assert_array_equal(alone.val_loss[:, 0], together.val_loss[:, 3])


def test_a_training_cut_into_pieces_is_the_training_in_one() -> None:
    whole = trainer(CONFIG, [Replicate(1), Replicate(2)], samples()).fit()
    cut = trainer(CONFIG, [Replicate(1), Replicate(2)], samples())
    first, last = cut.advance(1), cut.advance(3)
    assert first.epochs == 1 and 0 < first.seconds < last.seconds
    np.testing.assert_array_equal(first.val_loss, whole.val_loss[:1])
    for name in ("train_loss", "val_loss", "confusion", "best", "predicted"):
        np.testing.assert_array_equal(getattr(last, name), getattr(whole, name))
    np.testing.assert_allclose(
        whole.scores, [np.maximum.reduce(whole.accuracy[: e + 1]).mean() for e in range(3)], rtol=1e-12
    )


def test_a_sweep_maximises_the_accuracy_of_the_epoch_that_would_be_kept() -> None:
    config = dataclasses.replace(CONFIG, select="loss", lr=0.1, epochs=12)
    result = trainer(config, [Replicate(1), Replicate(2), Replicate(3)], samples()).fit()
    by_hand = []
    for epoch in range(12):
        kept = [min(range(epoch + 1), key=lambda e, r=r: result.val_loss[e, r]) for r in range(3)]
        by_hand.append(np.mean([result.accuracy[e, r] for r, e in enumerate(kept)]))
    np.testing.assert_allclose(result.scores, by_hand, rtol=1e-12)
    assert not np.allclose(by_hand, np.maximum.accumulate(result.accuracy, axis=0).mean(axis=1))
    np.testing.assert_allclose(result.at_best(result.accuracy).mean(), by_hand[-1], rtol=1e-12)


def test_the_order_of_replicates_does_not_matter() -> None:
    data, replicates = samples(dtype=torch.float64), [Replicate(1), Replicate(2), Replicate(3)]
    forward, backward = (trainer(CONFIG, order, data).fit() for order in (replicates, replicates[::-1]))
    np.testing.assert_allclose(forward.val_loss, backward.val_loss[:, ::-1], rtol=1e-7)


def test_the_same_call_gives_the_same_bits() -> None:
    first, second = (trainer(CONFIG, [Replicate(1), Replicate(2)], samples()).fit() for _ in range(2))
    for name in ("train_loss", "val_loss", "confusion", "best", "predicted"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))


@pytest.mark.parametrize(
    ("count", "size", "sizes"),
    [
        (10, 4, [4, 4, 2]),
        (9, 4, [4, 5]),
        (8, 4, [4, 4]),
        (5, 4, [5]),
        (3, 4, [3]),
        (7, 2, [2, 2, 3]),
        (3600, 512, [512] * 7 + [16]),
    ],
)
def test_minibatches_hold_every_sample_once_and_never_one_alone(count: int, size: int, sizes: list[int]) -> None:
    batches = list(minibatches(count, size))
    assert [batch.stop - batch.start for batch in batches] == sizes
    assert [row for batch in batches for row in range(batch.start, batch.stop)] == list(range(count))


def test_outcome_scores_and_predictions_agree_with_each_other() -> None:
    data = samples()
    result = trainer(dataclasses.replace(CONFIG, epochs=12), [Replicate(1), Replicate(2)], data).fit()
    true = data.labels[result.rows[0]].numpy()
    for r in range(2):
        best = result.accuracy[:, r].max()
        assert (result.best[r] == true).mean() == pytest.approx(best)
        assert result.accuracy[result.best_epoch[r] - 1, r] == best
        assert (result.accuracy[: result.best_epoch[r] - 1, r] < best).all()  # the first of equals
        assert (result.predicted[-1, r] == true).mean() == pytest.approx(result.accuracy[-1, r])
        at_best = result.confusion[result.best_epoch[r] - 1, r]
        assert f1_macro(at_best) == pytest.approx(f1_score(true, result.best[r], average="macro", zero_division=0))


def test_a_replicate_that_diverges_is_marked_and_harms_no_other() -> None:
    data = samples()
    stack = trainer(CONFIG, [Replicate(1), Replicate(2)], data)
    stack.head.classifier.weight.data[0] = float("nan")  # type: ignore[union-attr, index]
    result = stack.fit()
    assert result.diverged.tolist() == [1, 0]
    np.testing.assert_allclose(
        result.train_loss[:, 1], trainer(CONFIG, [Replicate(2)], data).fit().train_loss[:, 0], rtol=1e-4
    )


def test_bf16_stays_near_float32() -> None:
    data, replicates = samples(), [Replicate(seed) for seed in range(4)]
    full = trainer(CONFIG, replicates, data).fit()
    mixed = trainer(dataclasses.replace(CONFIG, precision="bf16"), replicates, data).fit()
    np.testing.assert_allclose(mixed.train_loss, full.train_loss, rtol=0.05)
    assert not np.array_equal(mixed.train_loss, full.train_loss)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_a_gpu_gives_what_the_cpu_gives() -> None:
    config = dataclasses.replace(CONFIG, dropout=0.0)  # each device draws other dropout
    cpu, gpu = (
        trainer(config, [Replicate(1), Replicate(2)], samples(device=device)).fit() for device in ("cpu", "cuda")
    )
    np.testing.assert_allclose(cpu.train_loss, gpu.train_loss, rtol=1e-3)


def test_training_knows_nothing_of_a_sample_it_validates_on() -> None:
    data = samples()
    spoiled = Samples(data.vectors, torch.where(torch.arange(90) >= 70, 0, data.labels), 3)
    clean, other = (trainer(CONFIG, [Replicate(1)], which).fit() for which in (data, spoiled))
    np.testing.assert_array_equal(clean.train_loss, other.train_loss)


def learned(result: TrialResult) -> float:
    return float(result.accuracy.max())


def test_a_head_learns_what_its_modality_shows() -> None:
    config = dataclasses.replace(CONFIG, epochs=30)
    assert learned(trainer(config, [Replicate(1)], samples()).fit()) > 0.5


def test_every_seed_and_fold_draws_for_itself() -> None:
    replicates = [Replicate(1), Replicate(2), Replicate(1, fold=1), Replicate(0, fold=1)]
    streams = [g for replicate in replicates for g in generators(replicate, torch.device("cpu"))]
    assert len({g.initial_seed() for g in streams}) == 3 * len(replicates)
