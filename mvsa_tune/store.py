"""Rows on disk: what a sweep is, what is finished, and every number found. Tables and plots read only this.

Under `results/NAME/`: `sweep.json` (what was asked for), `trials.csv` (a row a replicate), `samples.csv` (guid and label by
row number), `predictions/TRIAL.npz` (each replicate's predictions and curves). A trial's predictions are written before its
rows, so a row promises that they are there.
"""

import csv
import io
import itertools
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from filelock import FileLock, Timeout

from mvsa_tune import metrics
from mvsa_tune.config import CONFIG_FIELDS, Config, Replicate
from mvsa_tune.dataset import Dataset
from mvsa_tune.errors import InputError
from mvsa_tune.files import append_synced, write_text_whole, write_whole
from mvsa_tune.training import Outcome

# The configuration columns that come first; the others follow the results.
LEADING = ("image_encoder", "text_encoder", "head", "D", "lr", "batch_size", "ablation", "epochs")
RESULTS = (
    "val_acc_best", "best_epoch", "val_acc_last", "val_f1_macro_best", "val_f1_weighted_best", "val_loss_last",
)  # fmt: skip
TRAILING = tuple(name for name in CONFIG_FIELDS if name not in LEADING)
PROVENANCE = (
    "finished_at", "split", "data_fingerprint", "image_vectors", "text_vectors", "code", "python", "torch", "ray", "command",
)  # fmt: skip
COLUMNS = (
    "sweep", "trial_id", *LEADING, "seed", "fold", "status", *RESULTS, "seconds", "device", *TRAILING, *PROVENANCE,
)  # fmt: skip
NUMBERS = (*RESULTS, "seed", "fold", "seconds")
FINISHED = "finished"


@dataclass(frozen=True)
class Sweep:
    """What a results folder holds the answer to; two commands that differ in it may not share a folder.

    Attributes:
        data: the data folder, as given.
        data_fingerprint: of its content.
        label_counts: samples by label, in label order.
        demo: whether this is the built-in demo set.
        split: the split's name.
        replicates: seeds and folds of every trial.
        configs: what was asked for, in order.
        not_run: why a configuration could not run, by its id.
        skipped: guids of the samples left out, whose pictures could not be read, and why.
        vectors: SHA-256 of the caches used, by `ENCODER MODALITY`.
    """

    data: str
    data_fingerprint: str
    label_counts: tuple[int, ...]
    demo: bool
    split: str
    replicates: tuple[Replicate, ...]
    configs: tuple[Config, ...]
    not_run: Mapping[str, str]
    skipped: Mapping[str, str]
    vectors: Mapping[str, str]

    def to_json(self) -> str:
        """Write as JSON."""
        return json.dumps(asdict(self), indent=1) + "\n"

    @staticmethod
    def from_json(text: str) -> "Sweep":
        """Read what `to_json` wrote."""
        fields = json.loads(text)
        return Sweep(
            **{
                **fields,
                "label_counts": tuple(fields["label_counts"]),
                "replicates": tuple(Replicate(**one) for one in fields["replicates"]),
                "configs": tuple(Config(**one) for one in fields["configs"]),
            }
        )

    def differences(self, other: "Sweep") -> list[str]:
        """Say in which respects another sweep is not this one (the folder's path and what could not run aside)."""
        names = ("data_fingerprint", "split", "replicates", "configs", "skipped")
        different = [name.replace("_", " ") for name in names if getattr(self, name) != getattr(other, name)]
        # A cache that was not there before is no difference; one that was made again with other content is.
        both = self.vectors.keys() & other.vectors.keys()
        return different + [f"vectors of {key}" for key in sorted(both) if self.vectors[key] != other.vectors[key]]


class Store:
    """The results folder of one sweep."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.trials_path = folder / "trials.csv"
        self.lock = FileLock(folder / ".lock")

    @cached_property
    def sweep(self) -> Sweep:
        """What the folder is about.

        Raises:
            InputError: there is no sweep in it, or its description is damaged.
        """
        path = self.folder / "sweep.json"
        try:
            return Sweep.from_json(path.read_text(encoding="utf-8"))
        except OSError:
            raise InputError(f"no sweep in {self.folder}: run one with --name {self.folder.name}") from None
        except (ValueError, TypeError, KeyError) as error:
            raise InputError(f"damaged {path} ({error}): choose another --name or delete the folder") from None

    def begin(self, sweep: Sweep, dataset: Dataset) -> None:
        """Open the folder for a sweep, new or continued.

        Raises:
            InputError: the folder cannot be written, or it holds a different sweep.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._claim()
            if self.trials_path.exists() and self.trials_path.stat().st_size == 0:
                self.trials_path.unlink()
            if self.trials_path.exists() and not (self.folder / "sweep.json").exists():
                raise InputError(
                    f"{self.trials_path} is there without the sweep.json that says what its rows are: choose another "
                    "--name, or delete that folder to start over"
                )
            if (self.folder / "sweep.json").exists() and (different := self.sweep.differences(sweep)):
                raise InputError(
                    f"{self.folder} holds another sweep (other {', '.join(different)}): choose another --name, or delete "
                    "that folder to start over"
                )
            # What could not run may have changed (an embedding cache made since).
            write_text_whole(self.folder / "sweep.json", sweep.to_json())
            self._write_samples(dataset)
            self.__dict__["sweep"] = sweep
            if self.trials_path.exists():
                self.tidy()
            else:
                write_text_whole(self.trials_path, ",".join(COLUMNS) + "\n")
        except OSError as error:
            raise InputError(
                f"cannot write the results folder {self.folder}: {error.strerror}; choose --results"
            ) from None

    def end(self) -> None:
        """Give the folder back."""
        self.lock.release()

    def _claim(self) -> None:
        """Keep the folder to this process until it ends; InputError names the process that has it."""
        owner = self.folder / ".pid"
        try:
            self.lock.acquire(timeout=0)
        except Timeout:
            pid = owner.read_text(encoding="utf-8") if owner.exists() else "unknown"
            raise InputError(
                f"{self.folder} is in use by process {pid}: wait for it, or choose another --name"
            ) from None
        write_text_whole(owner, str(os.getpid()))

    def _write_samples(self, dataset: Dataset) -> None:
        labelled = dataset.samples[: len(dataset.labels)]
        columns = ("guid", "label", "encoding")
        frame = pd.DataFrame([[getattr(sample, name) for name in columns] for sample in labelled], columns=columns)
        write_whole(self.folder / "samples.csv", lambda file: frame.to_csv(file, index_label="row"))

    def add(self, config: Config, outcome: Outcome, provenance: Mapping[str, str]) -> None:
        """Record a trained trial: its predictions, then its rows."""
        arrays: dict[str, Any] = {
            "seed": np.array([one.seed for one in self.sweep.replicates]),
            "fold": np.array([one.fold for one in self.sweep.replicates]),
            "rows": outcome.rows,
            "best": outcome.best,
            "last": outcome.last,
            "train_loss": outcome.train_loss,
            "val_loss": outcome.val_loss,
            "confusion": outcome.confusion,
        }
        write_whole(self.predictions_path(config), lambda file: np.savez_compressed(file, **arrays))
        self._append(config, result_rows(outcome), provenance)

    def add_failure(self, config: Config, reason: str, provenance: Mapping[str, str]) -> None:
        """Record a trial that failed: a row a replicate, which says why."""
        rows = [{"status": f"failed: {reason}"} for _ in self.sweep.replicates]
        self._append(config, rows, provenance)

    def predictions_path(self, config: Config) -> Path:
        """Where a trial's predictions are."""
        return self.folder / "predictions" / f"{config.id}.npz"

    def _append(self, config: Config, rows: Sequence[dict[str, Any]], provenance: Mapping[str, str]) -> None:
        identity = {"sweep": self.folder.name, "trial_id": config.id, **asdict(config), **provenance}
        full = [
            {**identity, **asdict(replicate), **row} for replicate, row in zip(self.sweep.replicates, rows, strict=True)
        ]
        text = io.StringIO()
        csv.DictWriter(text, COLUMNS, lineterminator="\n").writerows(full)
        append_synced(self.trials_path, text.getvalue())

    def rows(self) -> pd.DataFrame:
        """All rows, a replicate each: the newest of each, in the order of the sweep.

        Raises:
            InputError: the file is not a table of rows.
        """
        frame = self._texts()
        try:
            for name in NUMBERS:
                frame[name] = frame[name].map(lambda text: float(text) if text else math.nan).astype(float)
            return frame.astype({"seed": int, "fold": int})
        except ValueError as error:
            raise self._damaged(error) from None

    def _damaged(self, error: Exception) -> InputError:
        reason = str(error).strip().splitlines()[-1]
        return InputError(f"{self.trials_path} is damaged ({reason}): mend it, or choose another --name")

    def _texts(self) -> pd.DataFrame:
        """`rows` as the texts in the file, so that writing them again changes no digit."""
        try:
            text = self.trials_path.read_text(encoding="utf-8")
            whole = text[: text.rfind("\n") + 1]  # a last line cut off by a kill is not a row
            if whole.partition("\n")[0] != ",".join(COLUMNS):
                raise InputError(
                    f"{self.trials_path} does not begin with this version's columns: choose another --name"
                )
            frame = pd.read_csv(io.StringIO(whole), dtype=str, keep_default_na=False)
        except FileNotFoundError:
            raise InputError(f"no {self.trials_path}") from None
        except (UnicodeDecodeError, pd.errors.ParserError) as error:
            raise self._damaged(error) from None
        asked = itertools.product(self.sweep.configs, self.sweep.replicates)
        places = {(config.id, str(one.seed), str(one.fold)): place for place, (config, one) in enumerate(asked)}
        keys = zip(frame["trial_id"], frame["seed"], frame["fold"], strict=True)
        frame["place"] = [places.get(key, -1) for key in keys]
        frame = frame[frame["place"] >= 0].drop_duplicates("place", keep="last")
        return frame.sort_values("place", ignore_index=True).drop(columns="place")

    def finished(self) -> set[str]:
        """Ids of the configurations whose every replicate is recorded as finished."""
        rows = self.rows()
        done = rows[(rows["status"] == FINISHED) & rows["val_acc_last"].notna()].groupby("trial_id").size()
        return set(done.index[done == len(self.sweep.replicates)])

    def tidy(self) -> None:
        """Rewrite `trials.csv` in the order of the sweep, each replicate once; call when nothing is appending."""
        rows = self._texts()
        write_whole(self.trials_path, lambda file: rows.to_csv(file, index=False, lineterminator="\n"))


def result_rows(outcome: Outcome) -> list[dict[str, Any]]:
    """A trial's results, a replicate each. `seconds` is the replicate's equal share of the stack's time."""
    accuracy = outcome.accuracy
    f1_macro, f1_weighted = metrics.f1_macro(outcome.confusion), metrics.f1_weighted(outcome.confusion)
    rows: list[dict[str, Any]] = []
    for r, (epoch, diverged) in enumerate(zip(outcome.best_epoch, outcome.diverged, strict=True)):
        timing = {"seconds": round(outcome.seconds / len(outcome.best), 3), "device": outcome.device}
        if diverged:
            rows.append({"status": f"failed: the loss was not finite in epoch {diverged}", **timing})
            continue
        at_best = (epoch - 1, r)
        rows.append(
            {
                "status": FINISHED,
                "val_acc_best": accuracy[at_best],
                "best_epoch": int(epoch),
                "val_acc_last": accuracy[-1, r],
                "val_f1_macro_best": f1_macro[at_best],
                "val_f1_weighted_best": f1_weighted[at_best],
                "val_loss_last": outcome.val_loss[-1, r],
                **timing,
            }
        )
    return rows
