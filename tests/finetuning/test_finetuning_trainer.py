"""Fine-tuning one replicate, against the frozen head and against plain torch."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mvsa_tune.config import Config, Replicate
from mvsa_tune.data.dataset import Dataset
from mvsa_tune.data.images import open_picture
from mvsa_tune.data.splits import Split
from mvsa_tune.encoders.demo import load_convolutions, load_tokens
from mvsa_tune.finetuning.model import PreparedSamples
from mvsa_tune.finetuning.trainer import FinetuneTask, ReplicateTrainer, parts
from mvsa_tune.training.trainer import Samples, StackTrainer, generators, minibatches, normalised
from small_stacks import Reference, copy_weights

CPU = torch.device("cpu")
COUNT, TRAIN = 100, 70
STILL = 1e-30  # a learning rate at which no float32 moves
CONFIG = Config(
    image_encoder="demo-convolutions",
    text_encoder="demo-tokens",
    D=8,
    lr=1e-2,
    encoder_lr=1e-2,
    batch_size=16,
    epochs=2,
)


def prepared(demo: Dataset, dropout: float = 0.1) -> PreparedSamples:
    towers = {"image": load_convolutions("image", None, CPU), "text": load_tokens("text", None, CPU)}
    towers["text"].model.dropout.p = dropout  # type: ignore[attr-defined]
    few = demo.samples[:COUNT]
    return PreparedSamples(towers, [sample.picture for sample in few], [sample.text for sample in few], 2, CPU)  # type: ignore[arg-type]


def trainer(
    config: Config, demo: Dataset, replicate: Replicate | None = None, dropout: float = 0.1
) -> ReplicateTrainer:
    samples = prepared(demo, dropout)
    samples.towers = {modality: samples.towers[modality] for modality in config.modalities}
    rows = np.arange(COUNT)
    split = Split("few", {0: rows[:TRAIN]}, {0: rows[TRAIN:]}, {0: rows[:0]})
    task = FinetuneTask.on(demo, "raw", Path(), {}, split=split, replicates=(), device="cpu", threads=2)
    task.prepared[tuple(config.encoders.items())] = samples
    return ReplicateTrainer(config, replicate or Replicate(7), task)


def vectors(demo: Dataset) -> dict[str, torch.Tensor]:
    ready, few = prepared(demo), demo.samples[:COUNT]
    image, text = ready.towers["image"], ready.towers["text"]
    return {
        "image": image.encode([image.prepare(open_picture(sample.picture)) for sample in few]),
        "text": text.encode([text.prepare(sample.text) for sample in few]),
    }


@pytest.mark.parametrize("change", [{}, {"ablation": 1}, {"ablation": 2}, {"head": "gated"}, {"normalise": "l2"}])
def test_with_encoders_that_stand_still_it_trains_as_the_frozen_head_does(
    change: dict[str, object], demo: Dataset
) -> None:
    config = dataclasses.replace(CONFIG, **change, lr=1e-3, encoder_lr=STILL)  # type: ignore[arg-type]
    replicate = Replicate(3)
    finetuned = trainer(config, demo, replicate, dropout=0.0).fit()
    scaled = {name: normalised(block, config.normalise) for name, block in vectors(demo).items()}
    samples = Samples(scaled, torch.tensor(demo.labels[:COUNT]), 3)
    rows = torch.arange(TRAIN)[None], torch.arange(TRAIN, COUNT)[None]
    frozen = StackTrainer(dataclasses.replace(config, encoder_lr=0.0), [replicate], samples, *rows).fit()
    np.testing.assert_allclose(finetuned.train_loss, frozen.train_loss, rtol=1e-4)
    np.testing.assert_allclose(finetuned.val_loss, frozen.val_loss, rtol=2e-3)
    assert (finetuned.predicted[-1] == frozen.predicted[-1]).mean() > 0.95


@pytest.mark.parametrize(
    "change",
    [
        {}, {"weight_decay": 0.1, "label_smoothing": 0.1}, {"schedule": "cosine", "warmup": 0.3},
        {"schedule": "linear"}, {"head": "concat-shared-norm", "batchnorm": "updated"},
    ],
)  # fmt: skip
def test_an_epoch_is_that_of_a_plain_torch_loop(change: dict[str, object], demo: Dataset) -> None:
    rates_of = {"lr": 1e-3, "encoder_lr": 1e-3}
    config = dataclasses.replace(CONFIG, **change, **rates_of, dropout=0.0)  # type: ignore[arg-type]
    ours = trainer(config, demo, dropout=0.0)
    ready, labels = prepared(demo, dropout=0.0), torch.tensor(demo.labels[:COUNT])
    image, text = ready.towers["image"], ready.towers["text"]
    pixels = torch.stack([image.prepare(open_picture(path)) for path in ready.pictures])
    head = Reference(["image", "text"], 8, config.head == "concat-shared-norm")
    head.linear["image"], head.linear["text"] = nn.Linear(32, 8), nn.Linear(32, 8)
    copy_weights(head, ours.network.head, 0)
    encoders = nn.ModuleList([image.model, text.model]).train(config.batchnorm == "updated")
    groups = [
        {"params": list(encoders.parameters()), "lr": config.encoder_lr},
        {"params": list(head.parameters()), "lr": config.lr},
    ]
    optimizer = torch.optim.AdamW(groups, weight_decay=config.weight_decay)
    steps = config.epochs * len(list(minibatches(TRAIN, 16)))
    rising = config.warmup * steps

    def share(step: int) -> float:
        if step < rising:
            return step / rising
        done = (step - rising) / (steps - rising)
        return {"constant": 1.0, "linear": 1 - done, "cosine": (1 + np.cos(np.pi * done)) / 2}[config.schedule]

    rates = torch.optim.lr_scheduler.LambdaLR(optimizer, share)
    order = generators(Replicate(7), CPU)[1]
    losses = []
    for _ in range(config.epochs):
        rows = torch.randperm(TRAIN, generator=order)
        total = 0.0
        head.train()
        for batch in minibatches(TRAIN, 16):
            members = rows[batch]
            words = text.collate([ready.tokens[row] for row in members])
            logits = head({"image": image.model(pixels[members]), "text": text.model(*words)}, None, 0.0)
            loss = F.cross_entropy(logits, labels[members], label_smoothing=config.label_smoothing)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            rates.step()
            total += float(loss) * len(members)
        losses.append(total / TRAIN)
    result = ours.fit()
    np.testing.assert_allclose(result.train_loss[:, 0], losses, rtol=1e-4)
    for tuned, expected in zip(ours.network.encoders["image"].parameters(), image.model.parameters(), strict=True):
        if config.batchnorm == "kept" or tuned.dim() > 1:  # else biases have no gradient but rounding
            torch.testing.assert_close(tuned, expected, rtol=1e-3, atol=4e-4)  # Adam scales rounding up
        assert tuned.grad is None


def test_a_plateau_of_the_validation_loss_lowers_both_learning_rates_as_torch_does(demo: Dataset) -> None:
    ours = trainer(dataclasses.replace(CONFIG, schedule="plateau", lr=1e-3), demo)
    groups = [{"params": [nn.Parameter(torch.zeros(1))], "lr": rate} for rate in (1e-2, 1e-3)]
    optimizer = torch.optim.SGD(groups, lr=0.0)
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.1, patience=5)
    losses = [torch.tensor([max(1.0, 1.5 - epoch / 10)]) for epoch in range(20)]
    for loss in losses:
        ours._observe(loss)
        plateau.step(float(loss))
        np.testing.assert_allclose(ours.rates(0), [group["lr"] for group in optimizer.param_groups])
    assert ours.rates(0)[0] == pytest.approx(1e-4)


def test_the_towers_themselves_stay_as_they_were(demo: Dataset) -> None:
    tuner = trainer(CONFIG, demo)
    before = {name: tensor.clone() for name, tensor in tuner.samples.towers["image"].model.state_dict().items()}
    tuner.train_epoch()
    for name, tensor in tuner.samples.towers["image"].model.state_dict().items():
        assert torch.equal(tensor, before[name])
    moved = tuner.network.encoders["image"].state_dict()
    assert not torch.equal(moved["0.weight"], before["0.weight"])


def test_a_minibatch_in_parts_takes_the_same_step(demo: Dataset) -> None:
    # Of the heads `linear` alone has no BatchNorm, whose statistics a part would be.
    whole, cut = (
        trainer(dataclasses.replace(CONFIG, head="linear", accumulation=count), demo, dropout=0.0).fit()
        for count in (1, 3)
    )
    np.testing.assert_allclose(cut.train_loss, whole.train_loss, rtol=1e-4)
    np.testing.assert_allclose(cut.val_loss, whole.val_loss, rtol=1e-3)


def test_no_part_of_a_minibatch_holds_one_sample_unless_it_is_all_there_is() -> None:
    for size in range(1, 20):
        for count in range(1, 9):
            cut = parts(np.arange(size), count)
            assert np.concatenate(cut).tolist() == list(range(size)) and len(cut) <= count
            assert min(map(len, cut)) >= min(2, size)


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"batchnorm": "updated", "accumulation": 2},
        {"frozen": 0.5, "schedule": "cosine", "warmup": 0.2},
        {"head": "merged-attention", "precision": "bf16"},
        {"ablation": 1},
    ],
)
def test_gone_on_from_its_state_it_continues_bit_for_bit(change: dict[str, object], demo: Dataset) -> None:
    config = dataclasses.replace(CONFIG, **change, epochs=3)  # type: ignore[arg-type]
    whole = trainer(config, demo)
    undisturbed = whole.fit()
    first = trainer(config, demo)
    first.advance(1)
    state = {name: tensor.clone() for name, tensor in first.state().items()}
    torch.manual_seed(99)  # what others draw in between does not matter
    second = trainer(config, demo)
    second.load_state(state)
    result = second.fit()
    for name in ("train_loss", "val_loss", "confusion", "best", "predicted"):
        np.testing.assert_array_equal(getattr(result, name), getattr(undisturbed, name), err_msg=name)
    for tensor, expected in zip(second.network.parameters(), whole.network.parameters(), strict=True):
        assert torch.equal(tensor, expected)


def test_another_seed_is_another_training(demo: Dataset) -> None:
    first, second = (trainer(CONFIG, demo, Replicate(seed)).fit() for seed in (1, 2))
    assert not np.array_equal(first.train_loss, second.train_loss)


def test_a_picture_that_cannot_be_read_is_named(demo: Dataset, tmp_path: Path) -> None:
    tuner = trainer(CONFIG, demo)
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    pictures = tuner.samples.pictures
    tuner.samples.pictures = [*pictures[:5], tmp_path / "broken.jpg", *pictures[6:]]
    with pytest.raises(ValueError, match=r"broken\.jpg cannot be read: not a picture"):
        tuner.train_epoch()
