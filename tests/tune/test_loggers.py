"""`--log`: tiny sweeps that log to MLflow and to Weights & Biases, on this machine alone."""

import importlib.util
import os
import sqlite3
import sys
from pathlib import Path

import pandas as pd
import pytest

from conftest import run_command
from mvsa_tune.results.store import Store
from mvsa_tune.sweeps import GRID
from test_input import FEW

# Beside the environment: where they are in it, Ray imports both in every sweep.
LOGGERS = Path(sys.prefix) / "loggers"


def logged(tiny: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> Store:
    if not (LOGGERS / name).exists():
        pytest.skip(f"{name} is not in {LOGGERS}")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([os.environ.get("PYTHONPATH", ""), str(LOGGERS)]))
    done = run_command("--data", tiny, "--pairs", "eye+ear", *FEW, "--lr", 0.01, 1e38, "--log", name, cwd=tiny.parent)
    assert done.returncode == 1, done.stderr  # a trial diverges
    return Store(tiny.parent / "results" / "grid")


def test_mlflow_has_a_run_for_each_trial_with_its_fields_and_epochs(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = logged(tiny, monkeypatch, "mlflow")
    with sqlite3.connect(store.folder / "mlflow.db") as database:
        runs, params, metrics = (
            pd.read_sql(f"select * from {name}", database) for name in ("runs", "params", "metrics")
        )
    good, bad = store.configs()
    assert dict(zip(runs["name"], runs["status"], strict=True)) == {good.name: "FINISHED", bad.name: "FAILED"}
    run = runs.set_index("name")["run_uuid"]
    fields = params[params["run_uuid"] == run[good.name]].set_index("key")["value"]
    assert fields["D"] == "4" and float(fields["lr"]) == 0.01 and fields["image_encoder"] == "eye"
    curve = metrics[(metrics["run_uuid"] == run[good.name]) & (metrics["key"] == "val_acc")].sort_values("step")
    assert curve["step"].tolist() == [1, 2, 3]
    assert curve["value"].tolist() == pytest.approx(store.result(good.id).accuracy.mean(axis=1).tolist())


def test_wandb_has_a_run_for_each_trial(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    store = logged(tiny, monkeypatch, "wandb")
    runs = {path.name.split("-")[1].removesuffix(".wandb"): path for path in store.folder.glob("wandb/*/run-*.wandb")}
    assert set(runs) == {config.id for config in store.configs()}
    assert b"val_acc" in runs[store.configs()[0].id].read_bytes()


@pytest.mark.parametrize("name", ["mlflow", "wandb"])
def test_a_logger_that_is_not_installed_is_one_line_before_anything_starts(
    name: str, tiny: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr("mvsa_tune.tune.sweep.find_spec", lambda wanted: None if wanted == name else find(wanted))
    flags = ["--data", str(tiny), "--pairs", "eye+ear", "--results", str(tiny / "results"), "--log", name]
    assert GRID.main(flags) == 2
    printed = capsys.readouterr()
    assert printed.err == f"grid.py: --log {name}: it is not installed: pip install {name}\n" and printed.out == ""
    assert not (tiny / "results").exists()
