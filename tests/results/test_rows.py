from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from conftest import result_of
from mvsa_tune.config import Config
from mvsa_tune.results.schema import NAMES, append_rows, read_rows, result_rows, write_rows
from mvsa_tune.training.result import TrialResult

CONFIG = Config(image_encoder="eye", text_encoder=None, ablation=2, D=8, lr=2e-5, epochs=2)


def outcome(epochs: int = 2) -> TrialResult:
    """Two replicates on ten samples; six, and seven, told right after every epoch."""
    predicted = np.arange(10) >= np.array([[6], [7]])
    return result_of(
        np.zeros(10, dtype=int), np.tile(np.arange(10), (2, 1)), np.stack([predicted] * epochs), seconds=4.0
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "trials.csv"
    rows = [
        {**asdict(CONFIG), "trial_id": CONFIG.id, "seed": seed, "fold": 0, **row, "command": "python, with\na line end"}
        for seed, row in zip((42, 43), result_rows(CONFIG, outcome()), strict=True)
    ]
    write_rows(path, rows)
    return path


def test_rows_come_back_as_they_were_written(path: Path) -> None:
    before = path.read_bytes()
    rows, damage = read_rows(path)
    assert not damage and [row["val_acc_best"] for row in rows] == ["0.6", "0.7"]
    assert rows[0]["command"] == "python, with a line end" and rows[0]["text_encoder"] == ""
    write_rows(path, rows)
    assert path.read_bytes() == before


DAMAGE = {
    "a letter in a number": (b",0.7,", b",0.x7,", "line 3 is damaged"),
    "not a number": (b",0.7,", b",nan,", "line 3 is damaged"),
    "a quote that opens": (b"42,0,finished", b'42,0,"finished', "line 2 is damaged"),
    "no such status": (b"42,0,finished", b"42,0,fine", "line 2 is damaged (status 'fine')"),
    "a lost score": (b",0.7,", b",,", "line 3 is damaged (finished, without val_acc_best)"),
    "too few fields": (b",42,0,", b",42,", f"line 2 is damaged ({len(NAMES) - 1} fields, not {len(NAMES)})"),
    "another configuration's id": (CONFIG.id.encode(), b"0123456789", "line 2 is damaged (trial_id 0123456789"),
    "bytes of a picture": (b",42,0,finished", b"\xff\xd8\xff\x00", "line 2 is damaged"),
    "a value that no configuration has": (b",2e-05,", b",-1.0,", "line 2 is damaged (--lr -1.0"),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_a_damaged_line_is_named_and_costs_itself_alone(path: Path, case: str) -> None:
    old, new, told = DAMAGE[case]
    assert old in path.read_bytes()
    path.write_bytes(path.read_bytes().replace(old, new, 1))
    rows, damage = read_rows(path)
    assert len(rows) == 1 and len(damage) == 1 and told in damage[0]


def test_a_line_cut_off_an_empty_file_and_a_lost_header_are_named(path: Path) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole[:-30])
    rows, damage = read_rows(path)
    assert len(rows) == 1 and damage == [f"{path} line 3 is half written"]
    path.write_bytes(whole.partition(b"\n")[2])
    rows, damage = read_rows(path)
    assert len(rows) == 1 and "line 1 is not a header" in damage[0]
    path.write_bytes(b"")
    assert read_rows(path) == ([], [f"{path} is empty"])


def test_a_column_that_is_missing_has_its_default_and_one_that_is_unknown_is_written_back(path: Path) -> None:
    frame = pd.read_csv(path, dtype=str, keep_default_na=False)
    older = frame.drop(columns=["dropout", "val_acc_cross", "test_acc_last", "torch"])
    older["emissions"] = ["12 g", "a, b"]
    older.to_csv(path, index=False, lineterminator="\n")
    rows, damage = read_rows(path)
    assert not damage and [row["emissions"] for row in rows] == ["12 g", "a, b"]
    assert {(row["dropout"], row["val_acc_cross"], row["test_acc_last"], row["torch"]) for row in rows} == {
        ("0.3", "", "", "")
    }
    write_rows(path, rows)
    assert path.read_text().splitlines()[0] == ",".join([*NAMES, "emissions"])
    append_rows(path, [{**rows[0], "seed": "50", "emissions": "3 g"}])  # under the header that the file has
    again, damage = read_rows(path)
    assert not damage and again[:2] == rows and again[2]["emissions"] == "3 g"


def test_columns_may_stand_in_any_order(path: Path) -> None:
    before = read_rows(path)[0]
    frame = pd.read_csv(path, dtype=str, keep_default_na=False)
    frame[frame.columns[::-1]].to_csv(path, index=False, lineterminator="\n")
    assert read_rows(path) == (before, [])


def test_a_trial_short_of_its_epochs_is_stopped_not_finished() -> None:
    assert {row["status"] for row in result_rows(CONFIG, outcome(2))} == {"finished"}
    stopped = result_rows(CONFIG, outcome(1))
    assert {row["status"] for row in stopped} == {"stopped"} and stopped[0]["epochs_run"] == 1
