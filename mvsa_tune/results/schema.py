"""The columns of `trials.csv`, of the summary and of the tables, each declared once, and the rows of the file.

A new column is one entry in `SCORES` (computed from a trial's result) or `PROVENANCE`; a field of `Config` is a column
by itself. Rows are read by name: a missing column has its default, an unknown one is kept and written back. Only a line
that cannot be parsed, or was cut off, is damaged, and it costs itself alone.
"""

import csv
import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from mvsa_tune.config import CONFIG_FIELDS, Config, Replicate, config_from_texts
from mvsa_tune.errors import InputError
from mvsa_tune.files import append_synced, write_text_whole
from mvsa_tune.training import metrics
from mvsa_tune.training.result import TrialResult

# The status of a replicate: trained to its last epoch, stopped before by the scheduler, or `failed: REASON`.
FINISHED, STOPPED, FAILED = "finished", "stopped", "failed: "

Row = dict[str, str]


def mean_std_interval(mean: float, std: float, low: float, high: float) -> str:
    """Write `mean ± std [low, high]` for a table's cell, without the parts that are NaN."""
    spread = "" if math.isnan(std) else f" ± {std:.3f}"
    return f"{mean:.3f}{spread}" + ("" if math.isnan(low) else f" [{low:.3f}, {high:.3f}]")


def mean_interval(mean: float, std: float, low: float, high: float) -> str:
    """Write `mean [low, high]` for a table's cell."""
    return mean_std_interval(mean, math.nan, low, high)


@dataclass(frozen=True)
class Column:
    """A column of `trials.csv`, and what the summary and the tables make of it.

    Attributes:
        name: its name in `trials.csv`.
        value: computes it from a trial's result, shape `(R,)`; None where whoever records the trial gives it.
        numeric: whether it holds numbers.
        required: whether a row of a replicate that finished, or was stopped, is damaged without it.
        statistics: what the summary holds of it over replicates, as `NAME_STATISTIC`: pandas' names of aggregations.
        header: its heading in the tables; empty where they do not show it.
        cell: writes mean, standard deviation and interval (NaN where there is none) as a table's cell.
        correctness: the array of `Correctness` that it is the mean of, which gives its interval; empty for none.
    """

    name: str
    value: Callable[[TrialResult], NDArray[Any]] | None = None
    numeric: bool = False
    required: bool = False
    statistics: tuple[str, ...] = ()
    header: str = ""
    cell: Callable[[float, float, float, float], str] = mean_std_interval
    correctness: str = ""

    @property
    def tested(self) -> bool:
        """Whether it is about the test samples, which a split may not have."""
        return self.name.startswith("test_")


SPREAD = ("mean", "std", "min", "max")


def _score(name: str, value: Callable[[TrialResult], NDArray[Any]], **more: Any) -> Column:
    return Column(name, value, numeric=True, **{"statistics": SPREAD, **more})


SCORES = (
    _score(
        "val_acc_best",
        lambda result: metrics.accuracy(result.at_best(result.confusion)),
        required=True,
        header="best epoch",
        correctness="best",
    ),
    _score("best_epoch", lambda result: result.best_epoch, statistics=("median",)),
    _score(
        "val_acc_last",
        lambda result: metrics.accuracy(result.confusion[-1]),
        header="last epoch",
        cell=mean_interval,
        correctness="last",
    ),
    _score("val_f1_macro_best", lambda result: metrics.f1_macro(result.at_best(result.confusion))),
    _score("val_f1_weighted_best", lambda result: metrics.f1_weighted(result.at_best(result.confusion))),
    _score("val_loss_last", lambda result: result.val_loss[-1]),
    # At the epoch that is best on other validation samples than those that are scored; configurations are ranked by it.
    _score(
        "val_acc_cross",
        lambda result: result.correctness.accuracy,
        header="cross-fitted",
        cell=mean_interval,
        correctness="cross_fitted",
    ),
    # On the test part of the split, if it has one: nothing is chosen by these.
    _score(
        "test_acc_best", lambda result: metrics.accuracy(result.at_best(result.test_confusion)), header="test accuracy"
    ),
    _score("test_acc_last", lambda result: metrics.accuracy(result.test_confusion[-1])),
    _score("test_f1_macro_best", lambda result: metrics.f1_macro(result.at_best(result.test_confusion))),
    _score(
        "test_f1_weighted_best",
        lambda result: metrics.f1_weighted(result.at_best(result.test_confusion)),
        header="test F1 (weighted)",
    ),
)
RANKED_BY = "val_acc_cross"

COST = (
    Column("seconds", numeric=True),  # a replicate's equal share of its stack's time
    Column("device"),
    Column("matmul"),  # the library of the matrix products: another one rounds differently
    Column("epochs_run", numeric=True),
)
PROVENANCE = tuple(
    Column(name)
    for name in (
        "finished_at", "split", "data_fingerprint", "image_vectors", "text_vectors", "code", "python", "torch", "ray",
        "command",
    )
)  # fmt: skip
_LEADING = CONFIG_FIELDS.index("epochs") + 1  # the fields of the reference's tables come first

COLUMNS = (
    *(Column(name) for name in ("sweep", "trial_id", *CONFIG_FIELDS[:_LEADING], "seed", "fold", "status")),
    *SCORES[:6],
    *COST,
    *SCORES[6:],
    *(Column(name) for name in CONFIG_FIELDS[_LEADING:]),
    *PROVENANCE,
)
NAMES = tuple(column.name for column in COLUMNS)
_NUMERIC = tuple(column.name for column in COLUMNS if column.numeric)
_DEFAULTS = {name: "" if value is None else str(value) for name, value in asdict(Config()).items()}


def score_columns(*, tested: bool) -> list[Column]:
    """Return the columns that are computed from a result; with those of the test samples where a split has any."""
    return [column for column in SCORES if tested or not column.tested]


def result_rows(config: Config, result: TrialResult) -> list[dict[str, Any]]:
    """Return a trial's status, scores and cost, one dictionary for each replicate."""
    scores = {column.name: column.value(result) for column in score_columns(tested=result.tested) if column.value}
    status = FINISHED if result.epochs == config.epochs else STOPPED
    seconds = round(result.seconds / len(result.rows), 3)
    rows: list[dict[str, Any]] = []
    for r, diverged in enumerate(result.diverged):
        cost = {"seconds": seconds, "device": result.device, "matmul": result.matmul, "epochs_run": result.epochs}
        if diverged:
            rows.append({"status": f"{FAILED}the loss was not finite in epoch {diverged}", **cost})
        else:
            rows.append({"status": status, **{name: values[r] for name, values in scores.items()}, **cost})
    return rows


def key_of(row: Row) -> tuple[str, Replicate]:
    """Return the trial and the replicate that a row is about."""
    return row["trial_id"], Replicate(int(row["seed"]), int(row["fold"]))


def identities(content: bytes) -> set[tuple[str | None, ...]]:
    """Return what distinguishes the rows of a file from those of other sweeps: trial, replicate, split and data."""
    rows = csv.DictReader(content.decode(errors="replace").splitlines())
    return {tuple(map(row.get, ("trial_id", "seed", "fold", "split", "data_fingerprint"))) for row in rows}


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write the whole file, or leave it as it was. Columns that this version does not know follow its own."""
    header = list(dict.fromkeys([*NAMES, *(name for row in rows for name in row)]))
    write_text_whole(path, csv_text(header, [dict(zip(header, header, strict=True)), *rows]))


def append_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Append rows in one write, under the file's own header, and wait until they are on the disk."""
    with path.open(encoding="utf-8") as file:
        header = next(csv.reader(file))
    append_synced(path, csv_text(header, rows))


def csv_text(header: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> str:
    """Return rows as CSV, each on one line, without a header."""
    text = io.StringIO()
    writer = csv.DictWriter(text, header, lineterminator="\n")
    for row in rows:  # each on one line, so that damage to a line costs no other row
        writer.writerow({name: " ".join(v.splitlines()) if isinstance(v, str) else v for name, v in row.items()})
    return text.getvalue()


def read_rows(path: Path) -> tuple[list[Row], list[str]]:
    """Return the rows of the file as texts by column, in file order, and a message for each line that is damaged.

    Raises:
        InputError: the file cannot be read.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None
    if not content:
        return [], [f"{path} is empty"]
    first, *lines = content.split(b"\n")
    rows, damage = [], []
    header = _split(first)
    if not {"trial_id", "seed", "status"} <= set(header):
        damage.append(f"{path} line 1 is not a header: the rows below are read as if it named this version's columns")
        header = list(NAMES)
    for number, line in enumerate(lines, start=2):
        if number == len(lines) + 1:  # what follows the last line end: nothing, or a line that a kill cut off
            if line:
                damage.append(f"{path} line {number} is half written")
            continue
        try:
            rows.append(_parse(header, line))
        except (ValueError, csv.Error) as error:
            damage.append(f"{path} line {number} is damaged ({error})")
    return rows, damage


def _split(line: bytes) -> list[str]:
    """Return the cells of a line; none where it is not CSV."""
    try:
        return next(csv.reader([line.decode("utf-8")], strict=True), [])
    except (ValueError, csv.Error):
        return []


def _parse(header: Sequence[str], line: bytes) -> Row:
    """Return a line's texts by column; raise ValueError, or the csv module's error, if it is not a whole row."""
    cells = next(csv.reader([line.decode("utf-8")], strict=True), [])
    if len(cells) != len(header):
        raise ValueError(f"{len(cells)} fields, not {len(header)}")
    row = {name: _DEFAULTS.get(name, "") for name in NAMES} | dict(zip(header, cells, strict=True))
    row["fold"] = row["fold"] or "0"
    key_of(row)
    for name in _NUMERIC:
        if row[name] and not math.isfinite(float(row[name])):
            raise ValueError(f"{name} {row[name]}")
    if row["status"] in (FINISHED, STOPPED):
        missing = [column.name for column in COLUMNS if column.required and not row[column.name]]
        if missing:
            raise ValueError(f"{row['status']}, without {', '.join(missing)}")
    elif not row["status"].startswith(FAILED):
        raise ValueError(f"status {row['status']!r}")
    if config_from_texts(row).id != row["trial_id"]:
        raise ValueError(f"trial_id {row['trial_id']} does not match its configuration")
    return row
