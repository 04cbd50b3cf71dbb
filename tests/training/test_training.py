import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau
from transformers.optimization import get_scheduler

from mvsa_tune.config import Config, Replicate
from mvsa_tune.data.dataset import read_dataset
from mvsa_tune.data.splits import Split, reference_finetune_split, reference_split
from mvsa_tune.models.heads import HEADS
from mvsa_tune.training.metrics import f1_macro
from mvsa_tune.training.result import TrialResult
from mvsa_tune.training.trainer import Samples, StackTrainer, epoch_steps, generators, minibatches, normalised

CONFIG = Config(image_encoder="eye", text_encoder="ear", D=8, lr=1e-2, batch_size=16, epochs=3)
WIDTHS = {"image": 10, "text": 6}


def samples(count: int = 90, device: str = "cpu", dtype: torch.dtype = torch.float32) -> Samples:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 3, (count,), generator=generator)
    vectors = {name: torch.randn(count, width, generator=generator) for name, width in WIDTHS.items()}
    for values in vectors.values():
        values[:, 0] += labels
    return Samples({name: values.to(device, dtype) for name, values in vectors.items()}, labels.to(device), 3)


def trainer(config: Config, replicates: Sequence[Replicate], data: Samples, train: int = 70) -> StackTrainer:
    """Replicates of fold f train on the samples from f on, and validate on the last twenty."""
    train_rows = [torch.arange(train) + replicate.fold for replicate in replicates]
    val_rows = [torch.arange(len(data.labels) - 20, len(data.labels))] * len(replicates)
    return StackTrainer(config, replicates, data, train_rows, val_rows)


# How many samples each fold trains on, in minibatches of 16: five steps, five, four with 17 in the last, four, four
COUNTS = (70, 66, 65, 64, 59)


def uneven(config: Config, replicates: Sequence[Replicate], data: Samples, times: int = 1) -> StackTrainer:
    """Build replicates: fold f trains on the first COUNTS[f] samples, validates on 9 + f and is tested on 8 - f."""
    rows, parts = torch.arange(len(data.labels)), []
    for fold in (replicate.fold for replicate in replicates):
        train = times * COUNTS[fold]
        parts.append(rows[: train + 17].split([train, 9 + fold, 8 - fold]))
    train, validation, test = zip(*parts, strict=True)
    return StackTrainer(config, replicates, data, train, validation, test)


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


def rates(stack: StackTrainer) -> list[float]:
    """Each replicate's learning rate, as its plateaus have left it."""
    return [scheduler.get_last_lr()[0] for scheduler in stack.plateaus]


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


class Reference(nn.Module):
    """The reference's head in plain torch.nn; its dropout takes masks from outside. Fine-tuning shares a BatchNorm."""

    def __init__(self, modalities: Sequence[str], D: int, shared_norm: bool = False) -> None:
        super().__init__()
        self.linear = nn.ModuleDict({m: nn.Linear(WIDTHS[m], D) for m in modalities})
        shared = nn.BatchNorm1d(D)
        self.norm = nn.ModuleDict({m: shared if shared_norm else nn.BatchNorm1d(D) for m in modalities})
        self.classifier = nn.Linear(D * len(modalities), 3)

    def forward(self, inputs: dict[str, Tensor], masks: dict[str, Tensor] | None, rate: float) -> Tensor:
        hidden = []
        for modality in self.linear:
            h = torch.relu(self.norm[modality](self.linear[modality](inputs[modality])))
            hidden.append(h if masks is None else h * masks[modality] / (1 - rate))
        return self.classifier(torch.cat(hidden, dim=1))


def copy_weights(reference: Reference, head: nn.Module, r: int) -> None:
    for modality, tower in head.towers.items():  # type: ignore[union-attr, operator]
        reference.linear[modality].weight.data.copy_(tower.linear.weight[r])
        reference.linear[modality].bias.data.copy_(tower.linear.bias[r, :, 0])
    reference.classifier.weight.data.copy_(head.classifier.weight[r])  # type: ignore[union-attr, index]
    reference.classifier.bias.data.copy_(head.classifier.bias[r, :, 0])  # type: ignore[union-attr, index]


def assert_same_weights(reference: Reference, head: nn.Module, r: int) -> None:
    near = {"rtol": 1e-7, "atol": 1e-7}
    for modality, tower in head.towers.items():  # type: ignore[union-attr, operator]
        linear, norm = reference.linear[modality], reference.norm[modality]
        torch.testing.assert_close(tower.linear.weight[r], linear.weight, **near)
        if not hasattr(tower, "norm"):
            continue  # the first tower has it
        torch.testing.assert_close(tower.norm.weight[r], norm.weight, **near)
        torch.testing.assert_close(tower.norm.bias[r], norm.bias, **near)
        torch.testing.assert_close(tower.norm.running_mean[r], norm.running_mean, **near)
        torch.testing.assert_close(tower.norm.running_var[r], norm.running_var, **near)
    torch.testing.assert_close(head.classifier.weight[r], reference.classifier.weight, **near)  # type: ignore[union-attr, index]


def schedulers(
    config: Config, adam: torch.optim.Optimizer, steps: int
) -> tuple[LRScheduler | None, ReduceLROnPlateau | None]:
    """What moves the learning rate after a step, and after an epoch: other people's code."""
    if config.schedule == "plateau":
        return None, ReduceLROnPlateau(adam, factor=0.1, patience=5)
    if config.schedule == "constant":
        return None, None
    return get_scheduler(config.schedule, adam, round(config.warmup * steps), steps), None


@pytest.mark.parametrize(
    "change",
    [
        {}, {"ablation": 1}, {"ablation": 2}, {"dropout": 0.0}, {"weight_decay": 0.1}, {"label_smoothing": 0.2},
        {"schedule": "linear"}, {"schedule": "cosine", "warmup": 0.25, "epochs": 4}, {"normalise": "l2"},
        {"head": "concat-shared-norm"},
        {"schedule": "plateau", "lr": 0.5, "epochs": 10, "weight_decay": 0.1, "label_smoothing": 0.1, "select": "loss"},
    ],
)  # fmt: skip
@pytest.mark.parametrize(
    "fold", [0, 1, 2]
)  # of 70, 66 and 65 samples, beside one of 64: equal steps alone are not enough
def test_a_replicate_is_a_plain_torch_loop_step_for_step(change: dict[str, object], fold: int) -> None:
    config, raw = dataclasses.replace(CONFIG, **change), samples(dtype=torch.float64)  # type: ignore[arg-type]
    data = dataclasses.replace(raw, vectors={m: normalised(v, config.normalise) for m, v in raw.vectors.items()})
    vectors = raw.vectors
    if config.normalise == "l2":
        vectors = {m: v / v.square().sum(dim=1, keepdim=True).sqrt() for m, v in raw.vectors.items()}
    replicate, count = Replicate(6, fold), COUNTS[fold]
    stack = uneven(config, [Replicate(5, 3), replicate], data)
    reference = Reference(config.modalities, config.D, config.head == "concat-shared-norm").double()
    copy_weights(reference, stack.head, 1)
    adam = (
        torch.optim.AdamW(reference.parameters(), lr=config.lr, weight_decay=config.weight_decay)
        if config.weight_decay
        else torch.optim.Adam(reference.parameters(), lr=config.lr)
    )
    sizes = {0: [16, 16, 16, 16, 6], 1: [16, 16, 16, 16, 2], 2: [16, 16, 16, 17]}[fold]
    after_step, after_epoch = schedulers(config, adam, config.epochs * len(sizes))
    _, order, dropout = generators(replicate, torch.device("cpu"))
    parts = {"": slice(count, count + 9 + fold), "test_": slice(count + 9 + fold, count + 17)}
    best, kept = -np.inf, {}
    for epoch in range(1, config.epochs + 1):
        losses = []
        for batch in torch.randperm(count, generator=order).split(sizes):
            masks = {m: draw_mask(dropout, config, len(batch)) for m in config.modalities}
            logits = reference.train()({m: v[batch] for m, v in vectors.items()}, masks, config.dropout)
            loss = nn.functional.cross_entropy(logits, data.labels[batch], label_smoothing=config.label_smoothing)
            adam.zero_grad()
            loss.backward()
            adam.step()
            losses.append(loss.item() * len(batch))
            if after_step:
                after_step.step()
        result = stack.advance(epoch)
        assert result.train_loss[-1, 1] == pytest.approx(sum(losses) / count, rel=1e-6)
        assert_same_weights(reference, stack.head, 1)
        with torch.no_grad():
            logits = {
                name: reference.eval()({m: v[rows] for m, v in vectors.items()}, None, 0)
                for name, rows in parts.items()
            }
        val_loss = nn.functional.cross_entropy(logits[""], data.labels[parts[""]]).item()
        if after_epoch:
            after_epoch.step(val_loss)
        assert result.val_loss[-1, 1] == pytest.approx(val_loss, rel=1e-6)
        classes = {name: values.argmax(dim=1).numpy() for name, values in logits.items()}
        accuracy = (classes[""] == data.labels[parts[""]].numpy()).mean()
        merit = accuracy if config.select == "accuracy" else -val_loss
        best, kept = (merit, {"epoch": epoch, **classes}) if merit > best else (best, kept)
        for name, rows in parts.items():
            size = rows.stop - rows.start
            predicted = getattr(result, f"{name}predicted")
            assert np.array_equal(predicted[-1, 1, :size], classes[name])
            assert np.array_equal(result.at_best(predicted)[1, :size], kept[name])
        assert result.best_epoch[1] == kept["epoch"]
    if after_epoch:
        assert adam.param_groups[0]["lr"] == rates(stack)[1] < config.lr


@pytest.mark.long
@pytest.mark.parametrize(
    ("split", "apart", "shared"), [(reference_split, 0.751, 0.694), (reference_finetune_split, 0.768, 0.709)]
)
def test_sharing_a_batchnorm_costs_on_real_vectors_what_it_costs_a_plain_loop(
    split: Callable[[Sequence[int]], Split], apart: float, shared: float, real: Path
) -> None:
    """The values are of a loop of plain torch by somebody else: three seeds, the best of twelve epochs."""
    labels = read_dataset(real).labels
    files = {"image": "image_mobilenet_v2", "text": "text_minilm"}
    vectors = {
        m: torch.tensor(np.load(real / "embeddings" / f"{name}.npy")[: len(labels)]) for m, name in files.items()
    }
    data, rows = Samples(vectors, torch.tensor(labels), 3), split(labels)
    parts = [[torch.from_numpy(part[0])] * 3 for part in (rows.train, rows.validation)]
    seeds, scores = [Replicate(seed) for seed in (42, 43, 44)], {}
    for head in ("concat", "concat-shared-norm"):
        config = dataclasses.replace(CONFIG, head=head, D=256, lr=1e-4, batch_size=128, epochs=12)
        scores[head] = StackTrainer(config, seeds, data, *parts).fit().accuracy.max(axis=0).mean()
    assert scores == {"concat": pytest.approx(apart, abs=0.02), "concat-shared-norm": pytest.approx(shared, abs=0.02)}


def draw_mask(generator: torch.Generator, config: Config, size: int) -> Tensor:
    """One replicate's dropout mask `(B, D)`, by its definition: a 16-bit number below rate × 2^16 drops the unit."""
    if config.dropout == 0:
        return torch.ones(size, config.D)
    words = torch.empty((config.D * size + 3) // 4, dtype=torch.int64).random_(-(2**63), None, generator=generator)
    bits = words.view(torch.int16)[: config.D * size].int() + 2**15
    return (bits >= round(config.dropout * 2**16)).view(config.D, size).T.float()


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
