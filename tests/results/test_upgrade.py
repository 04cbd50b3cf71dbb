"""Results folders of version 0.1 (tests/fixtures/README.md) are read with the same numbers; none is trained again."""

import zipfile
from pathlib import Path

import pandas as pd
import pytest

from conftest import ROOT, grid
from mvsa_tune import NUMERICS_VERSION
from mvsa_tune.config import Replicate
from mvsa_tune.errors import InputError
from mvsa_tune.report.write import write_results
from mvsa_tune.results.store import Store
from mvsa_tune.results.upgrade import upgrade

FOLDERS = ("grid", "asha", "holdout", "search", "search/confirmed", "demo-finetune")
COMMAND = ("--data", "data", "--pairs", "eye+ear", "--batch-size", 8, "--seeds", 2, "--results", "results")
GRID = (
    "--D",
    4,
    8,
    "--lr",
    0.01,
    0.003,
    "--ablation",
    0,
    1,
    "--head",
    "concat",
    "late",
    "--epochs",
    6,
    "--scheduler",
    "none",
)
# Scores in tables.csv: their names now, and in version 0.1.
TABLED = {
    f"val_acc_{score}_{statistic}": f"{score}_{statistic}"
    for score in ("best", "last", "cross")
    for statistic in ("mean", "std", "low", "high")
}


@pytest.fixture
def work(tmp_path: Path) -> Path:
    with zipfile.ZipFile(ROOT / "tests" / "fixtures" / "results_format_1.zip") as archive:
        archive.extractall(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", FOLDERS)
def test_a_folder_of_version_0_1_is_read_with_the_same_numbers(work: Path, name: str) -> None:
    folder = work / "results" / name
    rows, summary = (pd.read_csv(folder / file) for file in ("trials.csv", "summary.csv"))
    tables = pd.read_csv(folder / "tables.csv")
    store = Store(folder)
    analysis, _ = write_results(store)
    scores = ["seed", "fold", "status", "val_acc_best", "best_epoch", "val_acc_last", "val_loss_last", "val_acc_cross"]
    pd.testing.assert_frame_equal(store.rows()[scores], rows[scores], check_dtype=False)
    assert set(store.rows()["trial_id"]) == {config.id for config in store.configs()} & set(store.statuses())
    now = pd.read_csv(folder / "summary.csv")
    # Ids are others, and distances from the best are tested in another way (docs/statistics.md).
    other = ("trial_id", "p", "behind_best_low", "behind_best_high")
    same = [column for column in summary.columns.intersection(now.columns) if column not in other]
    assert len(same) > 40
    pd.testing.assert_frame_equal(now[same], summary[same], check_dtype=False)
    written = pd.read_csv(folder / "tables.csv")
    for column, before in TABLED.items():
        pd.testing.assert_series_equal(written[column], tables[before], check_names=False, check_dtype=False)
    for trial in store.recorded():
        assert store.result(trial).epochs == next(config.epochs for config in store.configs() if config.id == trial)
        assert len(store.correctness(trial).accuracy) == len(store.replicates(trial))
    assert len(analysis.summary) == len(summary)


def test_it_is_not_added_to_since_other_numbers_would_come_out_now(work: Path) -> None:
    refused = grid(*COMMAND, *GRID, "--name", "grid", cwd=work)
    assert refused.returncode == 2 and f"numerics version: 1 there, {NUMERICS_VERSION} now" in refused.stderr
    assert len(Store(work / "results" / "grid").rows()) == 32


def test_an_upgrade_that_was_cut_off_goes_on(work: Path) -> None:
    folder = work / "results" / "search"
    first = (folder / "sweep.json").read_text()
    upgrade(folder)
    upgraded = {path: path.read_bytes() for path in folder.glob("*") if path.suffix in (".csv", ".json")}
    (folder / "sweep.json").write_text(first)  # as if it had ended before its last step
    upgrade(folder)
    assert {path: path.read_bytes() for path in upgraded} == upgraded
    assert Store(folder).recorded() and all(Store(folder).correctness(trial) for trial in Store(folder).recorded())


def test_a_damaged_line_stays_and_costs_itself_alone(work: Path) -> None:
    path = work / "results" / "grid" / "trials.csv"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:3], lines[3].replace("finished", "fin", 1), *lines[4:], "half"]))
    store = Store(path.parent)
    assert len(store.rows()) == 31
    assert "fin," in path.read_text() and path.read_text().endswith("half")
    assert sorted(map(len, store.statuses().values()))[:2] == [1, 2]
    assert Replicate(42) in store.manifest.replicates


def test_a_folder_that_another_process_writes_is_not_upgraded(work: Path) -> None:
    folder = work / "results" / "grid"
    with Store(folder).lock, pytest.raises(InputError, match="is in use by process"):
        Store(folder).manifest  # noqa: B018
