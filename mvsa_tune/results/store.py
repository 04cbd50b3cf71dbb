"""The results folder of a sweep: what is recorded of each trial. Tables, plots and statistics read only this.

Below `results/NAME/`: `sweep.json` (the manifest), `trials.csv` (a row for each replicate), `samples.csv` (guid and
label by row number), `split.npz` (rows by fold) and `predictions/TRIAL.npz` (curves and predictions). A trial's
predictions are written before its rows, so a row promises that they are there.

A folder grows: later commands add configurations, seeds and folds, and train only what is missing.
"""

import math
import os
import shutil
import zipfile
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from mvsa_tune.config import Config, Replicate, config_from_texts
from mvsa_tune.data.dataset import Dataset, read_dataset
from mvsa_tune.data.splits import Split, read_split, write_split
from mvsa_tune.errors import InputError
from mvsa_tune.files import acquire, write_text_whole, write_whole
from mvsa_tune.results.manifest import SweepManifest
from mvsa_tune.results.predictions import read_correctness, read_replicates, read_result, write_predictions
from mvsa_tune.results.schema import (
    COLUMNS,
    FAILED,
    FINISHED,
    STOPPED,
    Row,
    append_rows,
    key_of,
    read_rows,
    result_rows,
    write_rows,
)
from mvsa_tune.results.upgrade import is_older_format, upgrade
from mvsa_tune.training.result import Correctness, TrialResult, join, take


class Store:
    """The results folder of one sweep."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.trials_path = folder / "trials.csv"
        self.lock = FileLock(folder / ".lock")

    @cached_property
    def manifest(self) -> SweepManifest:
        """What the folder is about. A folder of an older format is upgraded first.

        Raises:
            InputError: there is no sweep in the folder, or its manifest is damaged.
        """
        path = self.folder / "sweep.json"
        try:
            if is_older_format(path):
                self._claim()
                try:
                    upgrade(self.folder)
                finally:
                    self.lock.release()
            return SweepManifest.from_json(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise InputError(f"no sweep in {self.folder}: run one with --name {self.folder.name}") from None
        except OSError as error:
            raise InputError(f"cannot read or upgrade {self.folder}: {error.strerror}") from None
        except (ValueError, TypeError, KeyError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"damaged {path} ({error}): choose another --name or delete the folder") from None

    def begin(self, manifest: SweepManifest, dataset: Dataset, split: Split | None = None) -> list[str]:
        """Open a new or an earlier folder for what `manifest` asks for; return a message for each damage.

        Damaged rows are set aside, the others are used. `manifest` and `split` are joined to those of the folder.

        Raises:
            InputError: the folder cannot be written, is in use, or holds a sweep that this one cannot be added to.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._claim()
            manifest = self._joined(manifest)
            if split:
                with suppress(InputError):  # a new folder, or a damaged file, which is written anew
                    split = self.split().union(split)
                write_split(self.folder / "split.npz", split)
            self._write_samples(dataset)
            write_text_whole(self.folder / "sweep.json", manifest.to_json())
            self.__dict__["manifest"] = manifest
            if not self.trials_path.exists():
                write_rows(self.trials_path, [])
            return self._mend()
        except OSError as error:
            raise InputError(
                f"cannot write the results folder {self.folder}: {error.strerror}; choose --results"
            ) from None

    def _joined(self, manifest: SweepManifest) -> SweepManifest:
        if not (self.folder / "sweep.json").exists():
            if self.trials_path.exists() and read_rows(self.trials_path)[0]:
                raise InputError(
                    f"{self.trials_path} is there without the sweep.json that says what its rows are: choose another "
                    "--name, or delete that folder to start over"
                )
            return manifest
        if conflicts := self.manifest.conflicts(manifest):
            raise InputError(
                f"{self.folder} holds another sweep ({'; '.join(conflicts)}): choose another --name, or delete that "
                "folder to start over"
            )
        return self.manifest.joined(manifest)

    def _mend(self) -> list[str]:
        """Keep a copy of a damaged `trials.csv`; drop rows whose predictions are gone: their trials run again."""
        rows, damage = read_rows(self.trials_path)
        if damage:
            copies = len(list(self.folder.glob("trials.csv.damaged-*")))
            copy = self.folder / f"trials.csv.damaged-{copies + 1}"
            shutil.copy2(self.trials_path, copy)
            damage = [f"{message}; kept in {copy.name}, left out here" for message in damage]
        trials = dict.fromkeys(row["trial_id"] for row in rows if not row["status"].startswith(FAILED))
        gone = {trial for trial in trials if not zipfile.is_zipfile(self._predictions_path(trial))}
        damage += [f"{self._predictions_path(trial)} is missing or damaged: that trial runs again" for trial in gone]
        write_rows(self.trials_path, self._newest([row for row in rows if row["trial_id"] not in gone]))
        return damage

    def end(self) -> None:
        """Let other processes use the folder."""
        self.lock.release()

    def _claim(self) -> None:
        """Reserve the folder for this process; raise InputError with the process that has it."""
        owner = self.folder / ".pid"
        try:
            acquire(self.lock)
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

    def add(
        self, config: Config, replicates: Sequence[Replicate], result: TrialResult, provenance: Mapping[str, str]
    ) -> None:
        """Record replicates of a trial as far as they were trained: their predictions, then their rows."""
        self.add_predictions(config, replicates, result)
        self.add_rows(config, replicates, result, provenance)

    def add_predictions(self, config: Config, replicates: Sequence[Replicate], result: TrialResult) -> TrialResult:
        """Write a new result, joined with those recorded of other replicates trained for as many epochs; return it.

        Its replicates are in the order of the sweep. `add_rows` has to follow.
        """
        known = list(replicates)
        path = self._predictions_path(config.id)
        with suppress(InputError):  # there is no file yet, or it is damaged and its trial was trained again
            earlier, recorded = read_replicates(path), read_result(path)
            others = [r for r, replicate in enumerate(earlier) if replicate not in replicates]
            if others and recorded.epochs == result.epochs:
                known = [*(earlier[r] for r in others), *replicates]
                result = join([take(recorded, others), result])
        replicate_order = self._replicate_order
        order = sorted(range(len(known)), key=lambda r: replicate_order.get(known[r], len(known)))
        result = take(result, order)
        write_predictions(path, [known[r] for r in order], result)
        return result

    def add_rows(
        self, config: Config, replicates: Sequence[Replicate], result: TrialResult, provenance: Mapping[str, str]
    ) -> None:
        """Append the rows of a new result, whose predictions have been written."""
        self._append(config, replicates, result_rows(config, result), provenance)

    def add_failure(
        self, config: Config, replicates: Sequence[Replicate], reason: str, provenance: Mapping[str, str]
    ) -> None:
        """Record that replicates of a trial failed, and why."""
        self._append(config, replicates, [{"status": f"{FAILED}{reason}"} for _ in replicates], provenance)

    def _append(
        self,
        config: Config,
        replicates: Sequence[Replicate],
        rows: Sequence[dict[str, Any]],
        provenance: Mapping[str, str],
    ) -> None:
        identity = {"sweep": self.folder.name, "trial_id": config.id, **asdict(config), **provenance}
        append_rows(
            self.trials_path,
            [{**identity, **asdict(replicate), **row} for replicate, row in zip(replicates, rows, strict=True)],
        )

    def result(self, trial: str) -> TrialResult:
        """Return the result of a recorded trial; raise InputError if its file is missing or damaged."""
        return read_result(self._predictions_path(trial))

    def correctness(self, trial: str) -> Correctness:
        """Return which validation samples a recorded trial classifies correctly; raise InputError as `result`."""
        return read_correctness(self._predictions_path(trial))

    def replicates(self, trial: str) -> tuple[Replicate, ...]:
        """Return a recorded trial's replicates, in the order of its result; raise InputError as `result`."""
        return read_replicates(self._predictions_path(trial))

    def _predictions_path(self, trial: str) -> Path:
        return self.folder / "predictions" / f"{trial}.npz"

    def split(self) -> Split:
        """Return the split that the sweep was made on; raise InputError if its file is missing or damaged."""
        split = read_split(self.folder / "split.npz", self.manifest.split)
        if split is None or split.fold_digests != dict(self.manifest.folds):
            raise InputError(f"{self.folder}/split.npz is missing or damaged: the same sweep, run again, writes it")
        return split

    @property
    def trained(self) -> SweepManifest:
        """The manifest, of the replicates only that some trial has; with `--seeds 3..20` more may be allowed."""
        known = {key_of(row)[1] for row in self._rows()}
        replicates = tuple(replicate for replicate in self.manifest.replicates if replicate in known)
        return replace(self.manifest, replicates=replicates or self.manifest.replicates)

    @property
    def _replicate_order(self) -> dict[Replicate, int]:
        return {replicate: index for index, replicate in enumerate(self.manifest.replicates)}

    def _newest(self, rows: Sequence[Row]) -> list[Row]:
        """Return the newest row of each replicate, in the order of the sweep; a search's in the order they came."""
        trials = dict.fromkeys([*(config.id for config in self.manifest.configs), *(row["trial_id"] for row in rows)])
        trial_order = {trial: index for index, trial in enumerate(trials)}
        order = self._replicate_order
        newest = {key_of(row): row for row in rows}
        return [
            newest[key] for key in sorted(newest, key=lambda key: (trial_order[key[0]], order.get(key[1], len(order))))
        ]

    def _rows(self) -> list[Row]:
        _ = self.manifest  # first: it upgrades a folder of an older format
        return self._newest(read_rows(self.trials_path)[0])

    def rows(self) -> pd.DataFrame:
        """Return the newest row of each replicate, in the order of the sweep; unknown columns follow the known ones."""
        frame = pd.DataFrame(self._rows())
        if frame.empty:
            frame = pd.DataFrame(columns=[column.name for column in COLUMNS])
        for column in COLUMNS:
            if column.numeric:
                frame[column.name] = (
                    frame[column.name].map(lambda text: float(text) if text else math.nan).astype(float)
                )
        return frame.astype({"seed": int, "fold": int})

    def settings(self) -> dict[str, Any]:
        """Return the flags of the folder's last command, from `sweep.yaml`; empty where that is missing or damaged."""
        import yaml  # the help need not wait for it

        for folder in (self.folder, self.folder.parent):  # a search's finalists are in its folder
            with suppress(OSError, ValueError, yaml.YAMLError):
                values = yaml.safe_load((folder / "sweep.yaml").read_text(encoding="utf-8"))
                return values if isinstance(values, dict) else {}
        return {}

    def samples(self) -> pd.DataFrame:
        """Return `guid`, `label` and `encoding` of each labelled sample, by its row number."""
        return pd.read_csv(self.folder / "samples.csv", dtype={"guid": str}, keep_default_na=False)

    def configs(self) -> list[Config]:
        """Return the requested configurations, then those that a search has recorded."""
        recorded = {row["trial_id"]: row for row in self._rows()}
        requested = {config.id: config for config in self.manifest.configs}
        return [*requested.values(), *(config_from_texts(recorded[key]) for key in recorded if key not in requested)]

    def statuses(self) -> dict[str, dict[Replicate, str]]:
        """Return by trial the status of each recorded replicate, in the order of the sweep."""
        statuses: dict[str, dict[Replicate, str]] = {}
        for row in self._rows():
            trial, replicate = key_of(row)
            statuses.setdefault(trial, {})[replicate] = row["status"]
        return statuses

    def recorded(self, statuses: Collection[str] = (FINISHED,)) -> list[str]:
        """Return the ids of the trials whose recorded replicates all have one of these statuses, in order."""
        return [trial for trial, of in self.statuses().items() if set(of.values()) <= set(statuses)]

    def scores(self) -> dict[str, NDArray[Any]]:
        """Return `TrialResult.scores` of each trial that finished or was stopped, by id."""
        return {trial: self.result(trial).scores for trial in self.recorded((FINISHED, STOPPED))}

    def epochs(self) -> dict[str, int]:
        """Return the epochs that each recorded trial was trained for, by id; 0 where it failed before it could tell."""
        epochs = self.rows().groupby("trial_id")["epochs_run"].max().fillna(0)
        return {str(trial): int(count) for trial, count in epochs.items()}

    def tidy(self) -> None:
        """Rewrite `trials.csv` in the order of the sweep, each replicate once; call when nothing is appending."""
        write_rows(self.trials_path, self._rows())


def missing(
    statuses: Mapping[Replicate, str], requested: Sequence[Replicate], *, stopped_counts: bool
) -> tuple[Replicate, ...]:
    """Return the replicates of a configuration that are to be trained, given those recorded.

    What has finished stays. A configuration that the scheduler has stopped is decided where `stopped_counts`; else all
    of it is trained, so that its replicates have as many epochs. What failed is tried again.
    """
    stopped = [replicate for replicate, status in statuses.items() if status == STOPPED]
    failed = any(status.startswith(FAILED) for status in statuses.values())
    if stopped and stopped_counts and not failed:
        return ()
    finished = {replicate for replicate, status in statuses.items() if status == FINISHED}
    return tuple(replicate for replicate in dict.fromkeys([*stopped, *requested]) if replicate not in finished)


def sweep_data(store: Store, moved: Path | None = None) -> Dataset:
    """Return the samples that a sweep was trained on, in `moved` or where they were.

    Raises:
        InputError: they are not there, or differ.
    """
    folder, manifest = moved or Path(store.manifest.data), store.manifest
    if not folder.exists():
        raise InputError(f"the data of {store.folder} is not in {folder}: say where it is with --data")
    merge, encoding = (manifest.reading.get(name, "") for name in ("merge", "encoding"))
    dataset = read_dataset(folder, layout=manifest.layout, labels=manifest.classes, merge=merge, encoding=encoding)
    if dataset.fingerprint != manifest.data_fingerprint:
        raise InputError(
            f"{folder} is not the data of {store.folder}: its fingerprint is {dataset.fingerprint[:12]}, the sweep's "
            f"{manifest.data_fingerprint[:12]}; say where that is with --data"
        )
    return dataset
