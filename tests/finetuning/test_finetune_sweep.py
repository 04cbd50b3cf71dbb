"""Whole sweeps of fine-tuning, as a user runs them: killed and gone on, and what is done with their weights."""

import json
import shutil
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import chaos
from conftest import grid, make_set
from mvsa_tune.cli import main
from mvsa_tune.config import Config, Replicate
from mvsa_tune.data.dataset import Dataset
from mvsa_tune.finetuning.checkpoint import Checkpoints
from mvsa_tune.finetuning.trainer import FinetuneTask
from mvsa_tune.inference.predict import predict
from mvsa_tune.inference.select import chosen_network
from mvsa_tune.inference.trained import load_finetuned
from mvsa_tune.results.store import Store, sweep_data
from mvsa_tune.sweeps import FINETUNE
from mvsa_tune.tune import sweep

NUMBERS = ["seed", "status", "val_acc_best", "best_epoch", "val_acc_last", "val_loss_last", "epochs_run"]


def flags(demo: Dataset, *more: object) -> list[str]:
    pair = ["--pairs", "demo-convolutions+demo-tokens", "--D", 8, "--lr", 0.01, "--batch-size", 64]
    rest = ["--epochs", 5, "--seeds", 2, "--scheduler", "none", "--checkpoint-seconds", 0, "--quiet"]
    return [str(word) for word in ["--data", demo.folder, *pair, *rest, *more]]


@pytest.fixture(scope="module")
def tuned(demo: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results folder of a fine-tuned sweep: both modalities and text alone, two seeds."""
    folder = tmp_path_factory.mktemp("tuned")
    ended = grid(*flags(demo, "--ablation", 0, 1, "--name", "calm"), cwd=folder, kind=FINETUNE)
    assert ended.returncode == 0, ended.stderr
    return folder / "results" / "calm"


def config_of(sweep: Path, ablation: int = 0) -> Config:
    return next(config for config in Store(sweep).configs() if config.ablation == ablation)


def test_fine_tuning_gives_the_rows_tables_and_logs_of_any_sweep(tuned: Path) -> None:
    rows = pd.read_csv(tuned / "trials.csv")
    assert len(rows) == 4 and set(rows["status"]) == {"finished"} and (rows["encoder_lr"] == 0.01).all()
    assert rows["image_vectors"].tolist()[:2] == ["built in"] * 2 and rows["val_acc_best"].between(0.5, 1).all()
    table = (tuned / "tables.md").read_text()
    assert "| demo-convolutions | demo-tokens | yes " in table.split("## Table 2")[0]
    assert (tuned / "summary.csv").exists() and len(list((tuned / "tensorboard").iterdir())) == 2
    kept = sorted(path.name for path in Checkpoints(tuned, config_of(tuned)).folder.iterdir())
    assert kept == ["42-0.best.safetensors", "43-0.best.safetensors"]


def test_killed_in_the_middle_of_a_trial_it_goes_on_from_the_last_checkpoint_to_the_same_rows(
    demo: Dataset, tuned: Path, tmp_path: Path
) -> None:
    command = flags(demo, "--ablation", 0, 1, "--name", "chaos")
    process = chaos.start(tmp_path, *command, script="finetune.py")
    last = Checkpoints(tmp_path / "results" / "chaos", config_of(tuned)).folder / "43-0.last.safetensors"
    deadline = time.monotonic() + 120
    while not last.exists():  # the second replicate has been trained for an epoch
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.01)
    assert chaos.kill(process, "worker")  # it is tried again, from there
    while chaos.rows(tmp_path / "results" / "chaos") < 2:
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.01)
    assert chaos.kill(process, "ray")
    process.communicate(timeout=60)
    again = grid("--config", "results/chaos/sweep.yaml", cwd=tmp_path, kind=FINETUNE)
    assert again.returncode == 0, again.stderr
    sweeps = (tuned, tmp_path / "results" / "chaos")
    first, second = (pd.read_csv(sweep / "trials.csv")[NUMBERS] for sweep in sweeps)
    pd.testing.assert_frame_equal(first, second)
    calm, killed = (Store(sweep).result(config_of(tuned).id) for sweep in sweeps)
    for name in ("train_loss", "val_loss", "confusion", "best", "predicted"):
        np.testing.assert_array_equal(getattr(calm, name), getattr(killed, name))


def test_the_best_weights_label_the_unlabelled_as_they_labelled_the_validation_samples(
    tuned: Path, demo: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # The validation samples as a new set of unlabelled ones: their labels are on record.
    store, config = Store(tuned), config_of(tuned)
    result = store.result(config.id)
    new, few = make_set(tmp_path / "new", count=0, unlabelled=0), demo.samples
    rows = result.rows[0]
    (new / "train.txt").unlink()
    (new / "test_without_label.txt").write_text("guid,tag\n" + "".join(f"{few[row].guid},null\n" for row in rows))
    for row in rows:
        for path in (few[row].picture, few[row].picture.with_suffix(".txt")):
            (new / "data" / path.name).write_bytes(path.read_bytes())
    out = tmp_path / "out.txt"
    command = ["predict", str(tuned), "--config", config.id, "--data", str(new), "--out", str(out), "--probabilities"]
    assert main(command) == 0, capsys.readouterr().err
    predicted = pd.read_csv(out, dtype=str)
    assert predicted["guid"].tolist() == [few[row].guid for row in rows]
    means = pd.read_csv(tmp_path / "out.probabilities.csv")[["negative", "neutral", "positive"]]
    np.testing.assert_allclose(means.sum(axis=1), 1, atol=1e-5)
    agree = np.array(["negative", "neutral", "positive"])[result.best]
    both = agree[0] == agree[1]  # where the replicates agree, so must their mean
    assert (predicted["tag"].to_numpy()[both] == agree[0][both]).all() and both.sum() > 20


def test_an_exported_configuration_gives_what_predict_gives_without_ray(
    tuned: Path, demo: Dataset, tmp_path: Path
) -> None:
    config = config_of(tuned)
    assert main(["export", str(tuned), "--config", config.id, "--out", str(tmp_path / "out")]) == 0
    card = json.loads((tmp_path / "out" / "card.json").read_text())
    assert card["labels"] == ["negative", "neutral", "positive"] and card["files"] == [
        "42-0.safetensors",
        "43-0.safetensors",
    ]
    assert card["encoders"]["text"]["preprocessing"].startswith("text reference 2; ")
    assert (
        card["metrics"]["val_acc_best"]["n"] == 2 and len(card["metrics"]["val_acc_best"]["interval_replicates"]) == 2
    )
    assert (
        main(["predict", str(tuned), "--config", config.id, "--out", str(tmp_path / "list.txt"), "--probabilities"])
        == 0
    )
    network = load_finetuned(tmp_path / "out", {})
    samples = demo.samples[len(demo.labels) :]
    exported = network([sample.picture for sample in samples], [sample.text for sample in samples])
    predicted = pd.read_csv(tmp_path / "list.probabilities.csv")[card["labels"]].to_numpy()
    np.testing.assert_allclose(exported, predicted, atol=1e-5)


def test_a_refit_is_trained_on_all_labelled_samples_for_the_median_of_the_best_epochs(
    tuned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = config_of(tuned, ablation=1)
    assert main(["predict", str(tuned), "--config", config.id, "--refit", "--out", str(tmp_path / "list.txt")]) == 0
    epochs = int(np.median(Store(tuned).result(config.id).best_epoch))
    assert f"trained on all 600 labelled samples for {epochs} epochs" in capsys.readouterr().out
    assert len(pd.read_csv(tmp_path / "list.txt")) == 60


def test_an_exported_refit_labels_as_the_refit_does(tuned: Path, demo: Dataset, tmp_path: Path) -> None:
    store, config = Store(tuned), config_of(tuned, ablation=1)
    exported = ["export", str(tuned), "--config", config.id, "--refit", "--out", str(tmp_path / "out")]
    assert main(exported) == 0
    network, samples = load_finetuned(tmp_path / "out", {}), demo.samples[len(demo.labels) :]
    assert [path.name for path in network.files] == ["42-0.safetensors", "43-0.safetensors"]
    votes = network.votes([sample.picture for sample in samples], [sample.text for sample in samples])
    np.testing.assert_array_equal(votes, predict(store, config, refit=True).votes)


def test_a_refit_is_begun_again_where_the_median_of_the_best_epochs_is_lower_now(tuned: Path, tmp_path: Path) -> None:
    shutil.copytree(tuned, tmp_path / "copy")
    store, config = Store(tmp_path / "copy"), config_of(tuned, ablation=1)
    epochs = int(np.median(store.result(config.id).best_epoch))
    network = chosen_network(store, config, None, {}, refit=True)
    before = [network.weights(path) for path in network.files]
    folder, split = tmp_path / "copy" / "refit", store.split().whole()
    fields = {"split": split, "replicates": (Replicate(42), Replicate(43)), "device": "cpu", "threads": 1}
    task = FinetuneTask.on(sweep_data(store), "reference", folder, {}, **fields)
    trainer = task.build(config, task.replicates)
    while trainer.advance(epochs + 1) is None:
        pass
    again = chosen_network(store, config, None, {}, refit=True)
    for path, weights in zip(again.files, before, strict=True):
        assert all(torch.equal(tensor, weights[name]) for name, tensor in again.weights(path).items())


def test_what_a_fine_tuned_sweep_gets_wrong_is_shown(tuned: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["errors", str(tuned), "--config", config_of(tuned).id]) == 0
    assert "negative" in capsys.readouterr().out and (tuned / "errors.csv").exists()


def test_onnx_and_weights_that_are_gone_are_one_line(
    tuned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = config_of(tuned, ablation=1)
    flags = [str(tuned), "--config", config.id, "--out", str(tmp_path / "out")]
    assert main(["export", *flags, "--onnx"]) == 2
    assert "only heads on frozen vectors" in capsys.readouterr().err
    folder = Checkpoints(tuned, config).folder
    folder.rename(tmp_path / "away")
    assert main(["predict", *flags]) == 2
    assert "no fine-tuned weights in" in capsys.readouterr().err
    (tmp_path / "away").rename(folder)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (["--pairs", "demo-pixels+demo-words"], "demo-pixels has no weights"),
        (["--weights", "demo-tokens"], "write ENCODER=PATH"),
        (["--weights", "demo-tokens=nowhere"], "there is no such file or folder"),
        (["--frozen", "1"], "--frozen 1.0: must be at least 0 and below 1"),
        (["--checkpoint-seconds", "-1"], "--checkpoint-seconds -1"),
        (["--gradient-checkpointing", "--batchnorm", "updated"], "would update the statistics twice"),
    ],
)
def test_wrong_input_is_one_line_before_anything_starts(
    wrong: list[str], message: str, demo: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert FINETUNE.main([*flags(demo, "--results", tmp_path / "results"), *wrong]) == 2
    printed = capsys.readouterr().err
    assert message in printed and printed.count("\n") == 1 and not (tmp_path / "results").exists()


def test_unreadable_pictures_are_listed_and_left_out_on_request(
    demo: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_set(tmp_path / "set", count=40, unlabelled=0)  # whose pictures are none
    for number, sample in enumerate(demo.samples[:39]):
        (folder / "data" / f"{100 + number}.jpg").write_bytes(sample.picture.read_bytes())
    command = [
        "--data",
        str(folder),
        "--pairs",
        "demo-convolutions+demo-tokens",
        "--results",
        str(tmp_path / "results"),
    ]
    assert FINETUNE.main([*command, "--dry-run"]) == 2
    printed = capsys.readouterr().err
    assert "1 pictures cannot be read" in printed and "139.jpg: not a picture" in printed
    torch.manual_seed(0)
    assert FINETUNE.main([*command, "--dry-run", "--skip-bad"]) == 0
    assert "left out  1 sample, unreadable: 139; leaves reference: " in capsys.readouterr().out


def test_trials_that_do_not_fit_into_memory_are_told_before_they_start(
    demo: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sweep, "available_memory", lambda: 2**20)
    command = [*flags(demo, "--D", 4, 8, "--results", tmp_path / "results"), "--cpus-per-trial", "1"]
    assert FINETUNE.main(command) == 2
    printed = capsys.readouterr().err
    assert (
        "trials at once need about" in printed and "--cpus-per-trial" in printed and not (tmp_path / "results").exists()
    )
    assert FINETUNE.main([*command, "--dry-run"]) == 0
