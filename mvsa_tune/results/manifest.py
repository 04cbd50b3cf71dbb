"""Which sweep a results folder holds (`sweep.json`), and where its numbers come from: the columns of provenance."""

import hashlib
import json
import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import datetime, timezone
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import TypeVar

from mvsa_tune import __version__
from mvsa_tune.config import MODALITIES, Config, Replicate
from mvsa_tune.errors import some
from mvsa_tune.formats import short

FORMAT = 2  # of the results folder; `results.upgrade` brings older ones to it
Key = TypeVar("Key")


@dataclass(frozen=True)
class SweepManifest:
    """What a results folder is about: all that was requested so far.

    Attributes:
        data: the data folder, as the last command named it.
        data_fingerprint: of its content.
        layout: its layout on disk.
        classes: the labels, in order.
        label_counts: samples by label, in that order.
        dropped: guids of the pairs that the layout's rules drop, and why.
        demo: whether this is the built-in demo set.
        split: the split's name.
        folds: a digest of the rows of each fold.
        protocol: whose defaults were taken, for the tables' heading.
        replicates: every seed and fold that a command requested; a trial may have fewer.
        configs: every requested configuration, in order; none in a search.
        space: the search space, each dimension as its flag writes it; empty in a grid.
        not_run: why a configuration could not run, by its id.
        skipped: guids of the samples left out, whose pictures could not be read, and why.
        vectors: SHA-256 of the caches used, by `ENCODER MODALITY`.
        finetuned: `weights` and `preprocessing` of encoders that are fine-tuned, by `ENCODER MODALITY`.
        numerics: `NUMERICS_VERSION` of the code that trained.
        reading: how the data was read besides its layout: `Dataset.reading`.
    """

    data: str
    data_fingerprint: str
    layout: str
    classes: tuple[str, ...]
    label_counts: tuple[int, ...]
    dropped: Mapping[str, str]
    demo: bool
    split: str
    folds: Mapping[int, str]
    protocol: str
    replicates: tuple[Replicate, ...]
    configs: tuple[Config, ...]
    space: Mapping[str, str]
    not_run: Mapping[str, str]
    skipped: Mapping[str, str]
    vectors: Mapping[str, str]
    finetuned: Mapping[str, Mapping[str, str]]
    numerics: int
    reading: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> str:
        """Return the manifest as JSON."""
        return json.dumps({"format": FORMAT, **asdict(self)}, indent=1) + "\n"

    @staticmethod
    def from_json(text: str) -> "SweepManifest":
        """Return the manifest that `to_json` wrote.

        Raises:
            ValueError, TypeError, KeyError: the text is damaged, or of a later version's format.
        """
        values = json.loads(text)
        if values["format"] != FORMAT:
            raise ValueError(f"format {values['format']}, where this version reads format {FORMAT}")
        return SweepManifest(
            **{
                **{item.name: values[item.name] for item in fields(SweepManifest) if item.name in values},
                "classes": tuple(values["classes"]),
                "label_counts": tuple(values["label_counts"]),
                "space": {name: _as_written_now(text) for name, text in values["space"].items()},
                "folds": {int(fold): digest for fold, digest in values["folds"].items()},
                "replicates": tuple(Replicate(**replicate) for replicate in values["replicates"]),
                "configs": tuple(Config(**config) for config in values["configs"]),
            }
        )

    def facts(self) -> dict[str, tuple[object, str]]:
        """Return what two commands that share a folder must agree on: by name, its value and how it is written."""
        return {
            "data fingerprint": (self.data_fingerprint, self.data_fingerprint[:12]),
            "labels": (self.classes, ", ".join(self.classes)),
            "split": (self.split, self.split),
            **{f"rows of fold {fold}": (digest, digest[:12]) for fold, digest in self.folds.items()},
            "search space": (
                self.space,
                ", ".join(f"{name} {values}" for name, values in self.space.items()) or "none",
            ),
            "unreadable samples": (set(self.skipped), f"{len(self.skipped)} ({some(sorted(self.skipped)) or 'none'})"),
            **{f"vectors of {key}": (sha256, sha256[:12]) for key, sha256 in self.vectors.items()},
            **{f"fine-tuned {key}": (origin, "; ".join(origin.values())) for key, origin in self.finetuned.items()},
            "numerics version": (self.numerics, str(self.numerics)),
        }

    def conflicts(self, other: "SweepManifest") -> list[str]:
        """Return in which respects `other` cannot share a folder with this manifest, each with both values.

        More configurations, seeds or folds are no conflict, nor is a cache that one of the two does not use.
        """
        before, now = self.facts(), other.facts()
        return [
            f"{name}: {text} there, {now[name][1]} now"
            for name, (value, text) in before.items()
            if name in now and now[name][0] != value
        ]

    def differences(self, other: "SweepManifest") -> list[str]:
        """Return the conflicts with `other`, and how its seeds, folds and configurations differ."""
        pairs = [
            (name, first, second)
            for (name, first), second in zip(self.extent().items(), other.extent().values(), strict=True)
        ]
        return [
            *self.conflicts(other),
            *(f"{name}: {first} there, {second} now" for name, first, second in pairs if first != second),
        ]

    def extent(self) -> dict[str, str]:
        """Return which seeds, how many folds and how many configurations were requested, as texts by name."""
        seeds = dict.fromkeys(str(replicate.seed) for replicate in self.replicates)
        ids = hashlib.sha256(" ".join(sorted(config.id for config in self.configs)).encode()).hexdigest()
        return {
            "seeds": some(list(seeds)),
            "folds": str(len({replicate.fold for replicate in self.replicates})),
            "configurations": f"{len(self.configs)} ({ids[:6]})" if self.configs else "those that the search proposed",
        }

    def joined(self, other: "SweepManifest") -> "SweepManifest":
        """Return the manifest of a folder that holds both: what a later command `other` asks for is added."""
        requested_again = {config.id for config in other.configs}
        return replace(
            other,
            protocol=self.protocol,
            folds={**self.folds, **other.folds},
            replicates=_union(self.replicates, other.replicates),
            configs=_union(self.configs, other.configs),
            not_run={trial: why for trial, why in self.not_run.items() if trial not in requested_again}
            | dict(other.not_run),
            vectors={**self.vectors, **other.vectors},
            finetuned={**self.finetuned, **other.finetuned},
        )


def _as_written_now(dimension: str) -> str:
    """Return a dimension's text with numbers that earlier versions wrote as 0.001 written as 1e-3."""
    return re.sub(r"(?<![^\s.])0\.00\d+(?![^\s.])", lambda number: short(float(number.group())), dimension)


def _union(first: Iterable[Key], second: Iterable[Key]) -> tuple[Key, ...]:
    return tuple(dict.fromkeys([*first, *second]))


def provenance(split: str, data_fingerprint: str, origins: Mapping[str, str]) -> dict[str, str]:
    """Return a row's provenance columns.

    Args:
        split: the split's name.
        data_fingerprint: of the data set.
        origins: by modality, what identifies the vectors or the weights that the trial started from.
    """
    return {
        **{f"{modality}_vectors": origins.get(modality, "") for modality in MODALITIES},
        "finished_at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "split": split,
        "data_fingerprint": data_fingerprint[:12],
        "code": code_version(),
        "python": platform.python_version(),
        "torch": metadata.version("torch"),
        "ray": metadata.version("ray"),
        "command": command_line(),
    }


def command_line() -> str:
    """Return the command that this process runs, as a person would type it."""
    program, *arguments = sys.argv
    is_ours = Path(program).name in ("mvsa-tune", "__main__.py")
    return shlex.join([*(["mvsa-tune"] if is_ours else ["python", program]), *arguments])


@lru_cache(maxsize=1)
def code_version() -> str:
    """Return the package's version and, in a clone, its commit (`-dirty` with uncommitted changes)."""
    folder = Path(__file__).parents[2]
    if not (folder / "pyproject.toml").exists():  # installed: a repository around it is another project's
        return __version__
    command = ["git", "describe", "--always", "--dirty", "--exclude=*"]
    try:
        described = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    except OSError:  # no git on this machine
        return __version__
    commit = described.stdout.strip()
    return f"{__version__}+{commit}" if commit else __version__
