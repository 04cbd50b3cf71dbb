"""The results folder of a sweep: what it is, what is recorded, every number found. Tables and plots read only this.

Under `results/NAME/`: `sweep.json` (what was asked for), `trials.csv` (a row a replicate), `samples.csv` (guid and label by
row number), `predictions/TRIAL.npz` (each replicate's predictions and curves). A trial's predictions are written before its
rows, so a row promises that they are there.
"""

import math
import os
import shutil
import zipfile
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from mvsa_tune.config import Config, config_from_texts
from mvsa_tune.data.dataset import Dataset, read_dataset
from mvsa_tune.data.splits import Split, read_split, write_split
from mvsa_tune.errors import InputError
from mvsa_tune.files import write_text_whole, write_whole
from mvsa_tune.results.manifest import SweepManifest
from mvsa_tune.results.schema import (
    COLUMNS,
    FAILED,
    FINISHED,
    NUMBERS,
    STOPPED,
    Row,
    append_rows,
    key_of,
    read_rows,
    result_rows,
    write_rows,
)
from mvsa_tune.training.result import Correctness, TrialResult

# How the names of a trial's `Correctness` begin among its arrays.
RIGHT = "right_"


class Store:
    """The results folder of one sweep."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.trials_path = folder / "trials.csv"
        self.lock = FileLock(folder / ".lock")

    @cached_property
    def manifest(self) -> SweepManifest:
        """What the folder is about.

        Raises:
            InputError: there is no sweep in it, or its description is damaged.
        """
        path = self.folder / "sweep.json"
        try:
            return SweepManifest.from_json(path.read_text(encoding="utf-8"))
        except OSError:
            raise InputError(f"no sweep in {self.folder}: run one with --name {self.folder.name}") from None
        except (ValueError, TypeError, KeyError) as error:
            raise InputError(f"damaged {path} ({error}): choose another --name or delete the folder") from None

    def begin(
        self, sweep: SweepManifest, dataset: Dataset, split: Split | None = None, *, grows: bool = False
    ) -> list[str]:
        """Open the folder for a sweep, new or continued; return what was found damaged in it, a line each.

        What is damaged is set aside, and what is whole is used. A sweep that `grows` may have configurations beyond those of
        the one in the folder.

        Raises:
            InputError: the folder cannot be written, is in use, or holds a different sweep.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._claim()
            self._check_same(sweep, grows)
            # What could not run may have changed (an embedding cache made since).
            write_text_whole(self.folder / "sweep.json", sweep.to_json())
            self._write_samples(dataset)
            if split:
                write_split(self.folder / "split.npz", split)
            self.__dict__["manifest"] = sweep
            if not self.trials_path.exists():
                write_rows(self.trials_path, [])
            return self._mend()
        except OSError as error:
            raise InputError(
                f"cannot write the results folder {self.folder}: {error.strerror}; choose --results"
            ) from None

    def _check_same(self, sweep: SweepManifest, grows: bool) -> None:
        described = (self.folder / "sweep.json").exists()
        if not described and self.trials_path.exists() and read_rows(self.trials_path)[0]:
            raise InputError(
                f"{self.trials_path} is there without the sweep.json that says what its rows are: choose another "
                "--name, or delete that folder to start over"
            )
        if described and grows and set(self.manifest.configs) <= set(sweep.configs):
            sweep = replace(sweep, configs=self.manifest.configs)
        if described and (different := self.manifest.differences(sweep)):
            raise InputError(
                f"{self.folder} holds another sweep ({'; '.join(different)}): choose another --name, or delete that folder "
                "to start over"
            )

    def _mend(self) -> list[str]:
        """Keep a copy of a damaged `trials.csv`; drop rows whose predictions are gone, so that their trials run again."""
        rows, damage = read_rows(self.trials_path)
        if damage:
            copies = len(list(self.folder.glob("trials.csv.damaged-*")))
            copy = self.folder / f"trials.csv.damaged-{copies + 1}"
            shutil.copy2(self.trials_path, copy)
            damage = [f"{line}; kept in {copy.name}, left out here" for line in damage]
        trials = dict.fromkeys(row["trial_id"] for row in rows if not row["status"].startswith(FAILED))
        gone = {trial for trial in trials if not zipfile.is_zipfile(self._predictions_path(trial))}
        damage += [f"{self._predictions_path(trial)} is missing or damaged: that trial runs again" for trial in gone]
        write_rows(self.trials_path, self._newest([row for row in rows if row["trial_id"] not in gone]))
        return damage

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

    def add(self, config: Config, outcome: TrialResult, provenance: Mapping[str, str]) -> None:
        """Record a trial as far as it was trained: its predictions, then its rows."""
        arrays: dict[str, Any] = {
            "seed": np.array([one.seed for one in self.manifest.replicates]),
            "fold": np.array([one.fold for one in self.manifest.replicates]),
            **{item.name: np.asarray(getattr(outcome, item.name)) for item in fields(outcome)},
            # For statistics, which need nothing else.
            **{f"{RIGHT}{name}": one for name, one in vars(outcome.correctness).items()},
        }
        write_whole(self._predictions_path(config.id), lambda file: np.savez_compressed(file, **arrays))
        self._append(config, result_rows(config, outcome), provenance)

    def add_failure(self, config: Config, reason: str, provenance: Mapping[str, str]) -> None:
        """Record a trial that failed: a row a replicate, which says why."""
        rows = [{"status": f"{FAILED}{reason}"} for _ in self.manifest.replicates]
        self._append(config, rows, provenance)

    def result(self, trial: str) -> TrialResult:
        """What a recorded trial found.

        Raises:
            InputError: its file is not there, is damaged, or is an earlier version's.
        """
        arrays = self._read(trial, [item.name for item in fields(TrialResult)])
        told = {"seconds": float(arrays["seconds"]), "device": str(arrays["device"]), "select": str(arrays["select"])}
        return TrialResult(**{**arrays, **told})

    def correctness(self, trial: str) -> Correctness:
        """Which validation samples a recorded trial answers rightly; `InputError` as for `outcome`."""
        names = [item.name for item in fields(Correctness)]
        arrays = self._read(trial, [f"{RIGHT}{name}" for name in names])
        return Correctness(**{name: arrays[f"{RIGHT}{name}"] for name in names})

    def _read(self, trial: str, names: Sequence[str]) -> dict[str, Any]:
        """Some of the arrays that are kept of a trial."""
        path = self._predictions_path(trial)
        try:
            with np.load(path, allow_pickle=False) as kept:
                return {name: kept[name] for name in names}
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise InputError(
                f"{path} cannot be read ({error}): the same sweep, run again, makes it anew, or another --name a new sweep"
            ) from None

    def split(self) -> Split:
        """The split that the sweep was made on; InputError if its file is missing, damaged or of another."""
        split = read_split(self.folder / "split.npz", self.manifest.split)
        if split is None or split.digest != self.manifest.split_digest:
            raise InputError(f"{self.folder}/split.npz is missing or damaged: the same sweep, run again, writes it")
        return split

    def _predictions_path(self, trial: str) -> Path:
        return self.folder / "predictions" / f"{trial}.npz"

    def _append(self, config: Config, rows: Sequence[dict[str, Any]], provenance: Mapping[str, str]) -> None:
        identity = {"sweep": self.folder.name, "trial_id": config.id, **asdict(config), **provenance}
        append_rows(
            self.trials_path,
            [{**identity, **asdict(one), **row} for one, row in zip(self.manifest.replicates, rows, strict=True)],
        )

    def _newest(self, rows: Sequence[Row]) -> list[Row]:
        """The newest row of each replicate, in the order of the sweep; a search's in that of their first appearance."""
        trials = dict.fromkeys([*(config.id for config in self.manifest.configs), *(row["trial_id"] for row in rows)])
        places = {trial: place for place, trial in enumerate(trials)}
        order = {replicate: place for place, replicate in enumerate(self.manifest.replicates)}
        newest = {key_of(row): row for row in rows if key_of(row)[1] in order}
        return [newest[key] for key in sorted(newest, key=lambda key: (places[key[0]], order[key[1]]))]

    def _rows(self) -> list[Row]:
        return self._newest(read_rows(self.trials_path)[0])

    def rows(self) -> pd.DataFrame:
        """All whole rows, a replicate each: the newest of each, in the order of the sweep."""
        frame = pd.DataFrame(self._rows(), columns=list(COLUMNS))
        for name in NUMBERS:
            frame[name] = frame[name].map(lambda text: float(text) if text else math.nan).astype(float)
        return frame.astype({"seed": int, "fold": int})

    def samples(self) -> pd.DataFrame:
        """`guid`, `label` and `encoding` of each labelled sample, by its row number."""
        return pd.read_csv(self.folder / "samples.csv", dtype={"guid": str}, keep_default_na=False)

    def configs(self) -> list[Config]:
        """What the sweep is of: the configurations asked for, and those that a search has recorded."""
        recorded = {row["trial_id"]: row for row in self._rows()}
        asked = {config.id: config for config in self.manifest.configs}
        return [*asked.values(), *(config_from_texts(recorded[key]) for key in recorded if key not in asked)]

    def recorded(self, statuses: Collection[str] = (FINISHED,)) -> list[str]:
        """Ids of the trials whose every replicate has one of these statuses, in the order of the sweep."""
        counts = Counter(row["trial_id"] for row in self._rows() if row["status"] in statuses)
        return [trial for trial, count in counts.items() if count == len(self.manifest.replicates)]

    def own_data(self, moved: Path | None = None) -> Dataset:
        """The samples that the sweep was trained on, in `moved` or where they were.

        Raises:
            InputError: they are not there, or are others.
        """
        folder, sweep = moved or Path(self.manifest.data), self.manifest
        if not folder.exists():
            raise InputError(f"the data of {self.folder} is not in {folder}: say where it is with --data")
        dataset = read_dataset(folder, layout=sweep.layout, labels=sweep.classes)
        if dataset.fingerprint != sweep.data_fingerprint:
            raise InputError(
                f"{folder} is not the data of {self.folder}: its fingerprint is {dataset.fingerprint[:12]}, the sweep's "
                f"{sweep.data_fingerprint[:12]}; say where that is with --data"
            )
        return dataset

    def scores(self) -> dict[str, NDArray[np.float64]]:
        """`TrialResult.scores` of each trial that finished or was stopped, by id."""
        return {trial: self.result(trial).scores for trial in self.recorded((FINISHED, STOPPED))}

    def epochs(self) -> dict[str, int]:
        """Epochs that each recorded trial was trained for, by id; 0 where it failed before it could tell."""
        epochs = self.rows().groupby("trial_id")["epochs_run"].max().fillna(0)
        return {str(trial): int(count) for trial, count in epochs.items()}

    def tidy(self) -> None:
        """Rewrite `trials.csv` in the order of the sweep, each replicate once; call when nothing is appending."""
        write_rows(self.trials_path, self._rows())
