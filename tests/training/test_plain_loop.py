"""A replicate of a stack is what a loop of plain torch trains."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau
from transformers.optimization import get_scheduler

from mvsa_tune.config import Config, Replicate
from mvsa_tune.data.dataset import read_dataset
from mvsa_tune.data.splits import Split, reference_finetune_split, reference_split
from mvsa_tune.training.trainer import Samples, StackTrainer, generators, normalised
from small_stacks import CONFIG, COUNTS, Reference, copy_weights, rates, samples, uneven


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
