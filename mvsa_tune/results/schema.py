"""`trials.csv`: a row a replicate. Read line by line, so that a damaged line costs itself alone."""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from mvsa_tune.config import CONFIG_FIELDS, Config, Replicate, config_from_texts
from mvsa_tune.errors import InputError
from mvsa_tune.files import append_synced, write_text_whole
from mvsa_tune.training import metrics
from mvsa_tune.training.result import TrialResult

# The configuration columns that come first; the others follow the results.
LEADING = ("image_encoder", "text_encoder", "head", "D", "lr", "batch_size", "ablation", "epochs")
RESULTS = (
    "val_acc_best", "best_epoch", "val_acc_last", "val_f1_macro_best", "val_f1_weighted_best", "val_loss_last",
)  # fmt: skip
# The accuracy at the epoch that is best on other validation samples than those scored (`training.result.cross_fitted`).
CROSS = "val_acc_cross"
# On the split's test part, if it has one: nothing is chosen by them.
TEST_RESULTS = ("test_acc_best", "test_acc_last", "test_f1_macro_best", "test_f1_weighted_best")
TRAILING = tuple(name for name in CONFIG_FIELDS if name not in LEADING)
PROVENANCE = (
    "finished_at", "split", "data_fingerprint", "image_vectors", "text_vectors", "code", "python", "torch", "ray", "command",
)  # fmt: skip
COLUMNS = (
    "sweep", "trial_id", *LEADING, "seed", "fold", "status", *RESULTS, "seconds", "device", "epochs_run", CROSS, *TEST_RESULTS,
    *TRAILING, *PROVENANCE,
)  # fmt: skip
REQUIRED = (*RESULTS, "seconds", "epochs_run", CROSS)
NUMBERS = (*REQUIRED, *TEST_RESULTS)
# The status of a replicate trained to its last epoch, and of one that the scheduler stopped before; else `failed: why`.
FINISHED, STOPPED, FAILED = "finished", "stopped", "failed: "

Row = dict[str, str]


def result_rows(config: Config, outcome: TrialResult) -> list[dict[str, Any]]:
    """A trial's results, a replicate each. `seconds` is the replicate's equal share of the stack's time."""
    scores = {
        "best_epoch": outcome.best_epoch,
        "val_loss_last": outcome.val_loss[-1],
        CROSS: outcome.correctness.accuracy,
    }
    scores |= _scores("val", outcome.at_best(outcome.confusion), outcome.confusion[-1])
    if outcome.tested:
        scores |= _scores("test", outcome.at_best(outcome.test_confusion), outcome.test_confusion[-1])
    status = FINISHED if outcome.epochs == config.epochs else STOPPED
    rows: list[dict[str, Any]] = []
    for r, diverged in enumerate(outcome.diverged):
        cost = {"seconds": round(outcome.seconds / len(outcome.rows), 3), "device": outcome.device}
        cost |= {"epochs_run": outcome.epochs}
        if diverged:
            rows.append({"status": f"{FAILED}the loss was not finite in epoch {diverged}", **cost})
            continue
        rows.append({"status": status, **{name: values[r] for name, values in scores.items()}, **cost})
    return rows


def _scores(part: str, best: metrics.Counts, last: metrics.Counts) -> dict[str, NDArray[Any]]:
    """A part's scores by column, `(R,)` each, from its counts `(R, C, C)` at the best epoch and after the last."""
    return {
        f"{part}_acc_best": metrics.accuracy(best),
        f"{part}_acc_last": metrics.accuracy(last),
        f"{part}_f1_macro_best": metrics.f1_macro(best),
        f"{part}_f1_weighted_best": metrics.f1_weighted(best),
    }


def to_lines(rows: Sequence[Mapping[str, Any]]) -> str:
    """Write rows as CSV, each on one line."""
    text = io.StringIO()
    one_line = [
        {name: " ".join(value.splitlines()) if isinstance(value, str) else value for name, value in row.items()}
        for row in rows
    ]
    csv.DictWriter(text, COLUMNS, lineterminator="\n").writerows(one_line)
    return text.getvalue()


def append_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Append rows in one write, and wait until they are on the disk."""
    append_synced(path, to_lines(rows))


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write the whole file, or leave it as it was."""
    write_text_whole(path, ",".join(COLUMNS) + "\n" + to_lines(rows))


def read_rows(path: Path) -> tuple[list[Row], list[str]]:
    """Return the rows that are whole, as texts in file order, and what is wrong with each line that is not.

    Raises:
        InputError: the file cannot be read.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None
    if not content:
        return [], [f"{path} is empty"]
    lines = content.split(b"\n")
    rows, damage = [], []
    if lines[0].rstrip(b"\r") != ",".join(COLUMNS).encode():
        damage.append(f"{path} line 1 is not the header of this version's columns")
    for number, line in enumerate(lines[1:], start=2):
        if number == len(lines):  # what follows the last line end: nothing, or a line that a kill cut off
            if line:
                damage.append(f"{path} line {number} is half written")
            continue
        try:
            rows.append(_parse(line))
        except (ValueError, csv.Error) as error:
            damage.append(f"{path} line {number} is damaged ({error})")
    return rows, damage


def _parse(line: bytes) -> Row:
    """One line → its texts by column; ValueError, or the csv module's error, if it is not a whole row."""
    values = next(csv.reader([line.decode("utf-8")], strict=True), [])
    if len(values) != len(COLUMNS):
        raise ValueError(f"{len(values)} fields, not {len(COLUMNS)}")
    row = dict(zip(COLUMNS, values, strict=True))
    for name in NUMBERS:
        if row[name] and not math.isfinite(float(row[name])):
            raise ValueError(f"{name} {row[name]}")
    int(row["seed"]), int(row["fold"])
    if row["status"] in (FINISHED, STOPPED):
        lacking = [name for name in REQUIRED if not row[name]]
        if lacking:
            raise ValueError(f"{row['status']}, without {', '.join(lacking)}")
    elif not row["status"].startswith(FAILED):
        raise ValueError(f"status {row['status']!r}")
    if config_from_texts(row).id != row["trial_id"]:
        raise ValueError(f"trial_id {row['trial_id']} is not that of its configuration")
    return row


def key_of(row: Row) -> tuple[str, Replicate]:
    """Which trial and which replicate a row is of."""
    return row["trial_id"], Replicate(int(row["seed"]), int(row["fold"]))
