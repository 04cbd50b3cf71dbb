"""A trial that fine-tunes: its replicates, its checkpoints, and how it goes on from them."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from mvsa_tune.config import Config, Replicate
from mvsa_tune.data.dataset import Dataset
from mvsa_tune.data.splits import Split
from mvsa_tune.errors import InputError
from mvsa_tune.finetuning.checkpoint import Checkpoints, read_tensors
from mvsa_tune.finetuning.model import build_network, load_towers
from mvsa_tune.finetuning.trainer import FineTuner, FinetuneTask
from mvsa_tune.training.result import TrialResult
from mvsa_tune.tune.trainable import CURVES, METRIC, PROGRESS, RESOURCE, RESULT, DivergedError
from test_trainable import trial
from tiny_models import text_model

COUNT = 60
SPLIT = Split("few", {0: np.arange(40)}, {0: np.arange(40, COUNT)}, {0: np.arange(0)})
CONFIG = Config(
    image_encoder="demo-convolutions",
    text_encoder="demo-tokens",
    D=8,
    lr=1e-2,
    encoder_lr=1e-2,
    batch_size=16,
    epochs=4,
)


@pytest.fixture
def task(demo: Dataset, tmp_path: Path) -> FinetuneTask:
    few = demo.samples[:COUNT]
    return FinetuneTask(
        sweep=tmp_path / "sweep",
        pictures=tuple(sample.picture for sample in few),
        texts=tuple(sample.text for sample in few),
        weights={},
        labels=np.array(demo.labels[:COUNT]),
        classes=3,
        split=SPLIT,
        replicates=(Replicate(1), Replicate(2)),
        device="cpu",
        threads=1,
        milestones=(2,),
        checkpoint_seconds=0,
    )


def finish(tuner: FineTuner, until: int = CONFIG.epochs) -> TrialResult:
    while (result := tuner.advance(until)) is None:
        pass
    return result


def assert_same(result: TrialResult, expected: TrialResult) -> None:
    for name in ("train_loss", "val_loss", "confusion", "rows", "best", "predicted"):
        np.testing.assert_array_equal(getattr(result, name), getattr(expected, name), err_msg=name)


def elsewhere(task: FinetuneTask, name: str, **changes: object) -> FinetuneTask:
    return dataclasses.replace(task, sweep=task.sweep.with_name(name), **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("seconds", [0, 1e9])
@pytest.mark.long
def test_killed_after_any_epoch_it_goes_on_as_if_nothing_had_happened(task: FinetuneTask, seconds: float) -> None:
    whole = finish(FineTuner(CONFIG, task, task.replicates))
    for calls in (1, 3, 4, 7):
        again = elsewhere(task, f"killed-{calls}", checkpoint_seconds=seconds)
        first = FineTuner(CONFIG, again, again.replicates)
        for _ in range(calls):
            first.advance(CONFIG.epochs)
        assert_same(finish(FineTuner(CONFIG, again, again.replicates)), whole)


def test_what_is_kept_is_not_trained_again(task: FinetuneTask) -> None:
    first = FineTuner(CONFIG, task, task.replicates)
    for _ in range(3):
        assert first.advance(CONFIG.epochs) is None
    second = FineTuner(CONFIG, task, task.replicates)
    assert second.progress == first.progress == 3 / 8
    assert second.epoch == 3


def test_a_replicate_has_the_numbers_that_it_has_alone(task: FinetuneTask) -> None:
    together = finish(FineTuner(CONFIG, task, task.replicates))
    for r, replicate in enumerate(task.replicates):
        alone = finish(FineTuner(CONFIG, elsewhere(task, f"alone-{r}"), [replicate]))
        np.testing.assert_array_equal(alone.val_loss[:, 0], together.val_loss[:, r])
        np.testing.assert_array_equal(alone.best[0], together.best[r])


def test_gradient_checkpointing_changes_no_number(task: FinetuneTask) -> None:
    again = elsewhere(task, "recomputed", recomputed=True)
    assert_same(finish(FineTuner(CONFIG, again, again.replicates)), finish(FineTuner(CONFIG, task, task.replicates)))


def test_the_best_checkpoint_holds_the_weights_of_the_best_epoch(task: FinetuneTask) -> None:
    config = dataclasses.replace(CONFIG, lr=3e-2, encoder_lr=3e-2)  # too fast: the best epoch is an early one
    result = finish(FineTuner(config, task, task.replicates))
    assert (result.best_epoch < config.epochs).any()  # so that best and last can be distinguished
    for r, replicate in enumerate(task.replicates):
        network = build_network(config, load_towers(config, {}), 3)
        network.load_state_dict(read_tensors(Checkpoints(task.sweep, config).best(replicate))[0])
        network.eval()
        inputs = next(task.samples(config).batches([SPLIT.validation[0]]))
        with torch.no_grad():
            assert network(inputs).argmax(dim=1).tolist() == result.best[r].tolist()


def test_a_trial_keeps_two_files_a_replicate_and_after_its_end_one(task: FinetuneTask) -> None:
    tuner = FineTuner(CONFIG, task, task.replicates)
    while tuner.advance(CONFIG.epochs) is None:
        names = sorted(path.name for path in tuner.checkpoints.folder.iterdir())
        assert set(names) <= {f"{seed}-0.{kind}.safetensors" for seed in (1, 2) for kind in ("best", "last")}
    tuner.checkpoints.finish()
    names = sorted(path.name for path in tuner.checkpoints.folder.iterdir())
    assert names == ["1-0.best.safetensors", "2-0.best.safetensors"]


def test_a_damaged_checkpoint_is_named(task: FinetuneTask) -> None:
    first = FineTuner(CONFIG, task, task.replicates)
    first.advance(CONFIG.epochs)
    path = first.checkpoints.last(task.replicates[0])
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(
        InputError, match=r"1-0\.last\.safetensors is damaged .* delete it and run the same command again"
    ):
        FineTuner(CONFIG, task, task.replicates)


def test_a_replicate_whose_loss_is_not_finite_is_trained_no_further_and_leaves_no_state(task: FinetuneTask) -> None:
    config = dataclasses.replace(CONFIG, lr=1e38, encoder_lr=1e38)
    tuner = FineTuner(config, task, task.replicates)
    calls = 1
    while (result := tuner.advance(CONFIG.epochs)) is None:
        calls += 1
    assert calls == 2 and result.epochs == CONFIG.epochs and (result.diverged == 1).all()
    assert not list(tuner.checkpoints.folder.glob("*.last.safetensors"))


@pytest.fixture
def reporting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a trial report after each epoch, not every few seconds."""
    monkeypatch.setattr("mvsa_tune.tune.trainable.REPORT_SECONDS", 0.0)


@pytest.mark.usefixtures("reporting")
def test_a_trial_reports_at_rungs_and_how_far_it_is_between_them(task: FinetuneTask) -> None:
    running = trial(CONFIG, task)  # type: ignore[arg-type]
    reports = []
    while not reports or not reports[-1].get("done"):
        reports.append(running.step())
    epochs_or_shares = [report.get(RESOURCE) or report[PROGRESS] for report in reports]
    assert epochs_or_shares == [1 / 8, 2 / 8, 3 / 8, 2, 5 / 8, 6 / 8, 7 / 8, 4]
    whole = reports[-1][RESULT]
    assert [report[METRIC] for report in reports if RESOURCE in report] == [whole.scores[1], whole.scores[3]]
    between = [report for report in reports if PROGRESS in report]
    assert all(report[METRIC] == 0.0 for report in between)
    # its curves up to then, of the replicates that have come as far: the first, then both
    assert [report[CURVES].present.sum(axis=0).tolist() for report in between] == [
        [1],
        [2],
        [2, 1],
        [3, 2],
        [4, 2],
        [4, 3],
    ]
    last = between[-1][CURVES]
    np.testing.assert_array_equal(last.accuracy[last.present], whole.accuracy[last.present])


def test_a_trial_that_goes_on_keeps_the_times_of_its_epochs(task: FinetuneTask) -> None:
    first = FineTuner(CONFIG, task, task.replicates)
    for _ in range(6):
        first.advance(CONFIG.epochs)
    before = first.so_far.trained_at
    assert (np.diff(before[:, 0]) > 0).all() and before[0, 1] > before[-1, 0] and np.isnan(before[-1, 1])
    second = FineTuner(CONFIG, task, task.replicates)
    np.testing.assert_array_equal(second.so_far.trained_at, before)
    after = finish(second).trained_at
    np.testing.assert_array_equal(after[~np.isnan(before)], before[~np.isnan(before)])
    assert (np.diff(after, axis=0) > 0).all()


@pytest.mark.usefixtures("reporting")
def test_a_trial_that_goes_on_reports_at_no_rung_that_it_has_gone_past(task: FinetuneTask) -> None:
    first = trial(CONFIG, task)  # type: ignore[arg-type]
    for _ in range(5):  # past the rung at epoch 2 with the first replicate
        first.step()
    second = trial(CONFIG, task)  # type: ignore[arg-type]
    reports = [second.step() for _ in range(3)]
    assert [report.get(RESOURCE) for report in reports] == [None, None, 4]
    known = FineTuner(CONFIG, task, task.replicates).scores_gone_past()
    np.testing.assert_array_equal(known, reports[-1][RESULT].scores[:2])


@pytest.mark.usefixtures("reporting")
def test_a_trial_cut_off_at_a_rung_reports_there_again(task: FinetuneTask) -> None:
    first = trial(CONFIG, task)  # type: ignore[arg-type]
    report = [first.step() for _ in range(4)][-1]
    assert len(FineTuner(CONFIG, task, task.replicates).scores_gone_past()) == 0
    again = trial(CONFIG, task).step()  # type: ignore[arg-type]
    assert (again[RESOURCE], again[METRIC]) == (report[RESOURCE], report[METRIC]) == (2, report[METRIC])


def test_a_loss_that_is_not_finite_fails_the_trial(task: FinetuneTask) -> None:
    running = trial(dataclasses.replace(CONFIG, lr=1e38, encoder_lr=1e38), task)  # type: ignore[arg-type]
    while RESULT not in (report := running.step()):
        pass
    assert RESOURCE not in report
    with pytest.raises(DivergedError, match="2 of 2 replicates"):
        running.step()


def test_texts_are_tokenised_once_whatever_the_trials(task: FinetuneTask) -> None:
    first = task.samples(CONFIG)
    assert task.samples(dataclasses.replace(CONFIG, D=16, lr=0.1)) is first
    assert task.samples(dataclasses.replace(CONFIG, ablation=1)) is not first


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        ("demo-pixels+demo-tokens", "demo-pixels has no weights"),
        ("demo-convolutions+demo-words", "demo-words has no weights"),
        ("nothing+demo-tokens", "unknown encoder nothing"),
        ("demo-tokens+demo-tokens", "has no image side"),
    ],
)
def test_an_encoder_that_cannot_be_trained_is_named(pair: str, message: str) -> None:
    image, text = pair.split("+")
    with pytest.raises(InputError, match=message):
        load_towers(dataclasses.replace(CONFIG, image_encoder=image, text_encoder=text), {})


@pytest.mark.parametrize("recomputed", [False, True])
@pytest.mark.long
def test_models_of_the_libraries_own_formats_are_fine_tuned(
    task: FinetuneTask, tmp_path: Path, recomputed: bool
) -> None:
    from torchvision.models import resnet18

    text_model("Roberta", tmp_path / "roberta")
    torch.manual_seed(0)
    torch.save(resnet18().state_dict(), tmp_path / "resnet18.pth")
    pair = {"image_encoder": "torchvision:resnet18", "text_encoder": f"hf:{tmp_path}/roberta@pooler"}
    config = dataclasses.replace(CONFIG, **pair, epochs=1, frozen=0.3)  # type: ignore[arg-type]
    few = Split("few", {0: np.arange(8)}, {0: np.arange(8, 12)}, {0: np.arange(0)})
    weights = {"torchvision:resnet18": tmp_path / "resnet18.pth"}
    libraries = elsewhere(
        task, "libraries", split=few, weights=weights, replicates=(Replicate(1),), recomputed=recomputed
    )
    assert np.isfinite(finish(FineTuner(config, libraries, libraries.replicates), 1).val_loss).all()
    before = load_towers(config, weights)
    after, _ = read_tensors(Checkpoints(libraries.sweep, config).best(Replicate(1)))
    moved = {
        f"encoders.{modality}.{name}": not torch.equal(after[f"encoders.{modality}.{name}"], tensor)
        for modality, tower in before.items()
        for name, tensor in tower.model.named_parameters()
    }
    assert (
        not moved["encoders.image.conv1.weight"] and not moved["encoders.text.body.embeddings.word_embeddings.weight"]
    )
    assert moved["encoders.image.fc.weight"] and moved["encoders.text.body.pooler.dense.weight"]
