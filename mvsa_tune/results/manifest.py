"""`sweep.json`: what a results folder is about, which commands may add to it, and what they add."""

import json
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, TypeVar

from mvsa_tune.config import Config, Replicate
from mvsa_tune.errors import some

FORMAT = 2  # of the results folder; `results.upgrade` brings older ones to it
Key = TypeVar("Key")
Value = TypeVar("Value")


@dataclass(frozen=True)
class SweepManifest:
    """What a results folder is about: all that was asked of it so far.

    Attributes:
        data: the data folder, as the last command named it.
        data_fingerprint: of its content.
        layout: the form that it has on disk.
        classes: the labels, in order.
        label_counts: samples by label, in that order.
        dropped: guids of the pairs that the form's own rules drop, and why.
        demo: whether this is the built-in demo set.
        split: the split's name.
        folds: a digest of the rows of each fold.
        protocol: whose defaults were taken, for the tables' heading.
        replicates: every seed and fold that a command asked for; a trial may have fewer.
        configs: every configuration that was asked for, in order; none in a search.
        space: the search space, each dimension as its flag writes it; empty in a grid.
        not_run: why a configuration could not run, by its id.
        skipped: guids of the samples left out, whose pictures could not be read, and why.
        vectors: SHA-256 of the caches used, by `ENCODER MODALITY`.
        finetuned: `weights` and `preprocessing` of encoders that are fine-tuned, by `ENCODER MODALITY`.
        numerics: `NUMERICS_VERSION` of the code that trained.
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
                **{item.name: values[item.name] for item in fields(SweepManifest)},
                "classes": tuple(values["classes"]),
                "label_counts": tuple(values["label_counts"]),
                "folds": {int(fold): digest for fold, digest in values["folds"].items()},
                "replicates": tuple(Replicate(**replicate) for replicate in values["replicates"]),
                "configs": tuple(Config(**config) for config in values["configs"]),
            }
        )

    def conflicts(self, other: "SweepManifest") -> list[str]:
        """Return in which respects `other` cannot share a folder with this manifest, each with both values.

        More configurations, seeds or folds are no conflict, nor is a cache that one of the two does not use.
        """
        facts: list[tuple[str, Any, Any, Callable[[Any], str]]] = [
            ("data fingerprint", self.data_fingerprint, other.data_fingerprint, _digits),
            ("labels", self.classes, other.classes, ", ".join),
            ("split", self.split, other.split, str),
            *_shared("rows of fold", self.folds, other.folds, _digits),
            ("search space", self.space, other.space, _written),
            ("unreadable samples", set(self.skipped), set(other.skipped), _counted),
            *_shared("vectors of", self.vectors, other.vectors, _digits),
            *_shared("fine-tuned", self.finetuned, other.finetuned, lambda origin: "; ".join(origin.values())),
            ("numerics version", self.numerics, other.numerics, str),
        ]
        return [f"{name}: {write(first)} there, {write(now)} now" for name, first, now, write in facts if first != now]

    def differences(self, other: "SweepManifest") -> list[str]:
        """Return the conflicts with `other`, and how its seeds, folds and configurations differ."""
        facts = [
            ("seeds", *(some(_seeds(manifest.replicates)) for manifest in (self, other))),
            ("folds", *(str(len({r.fold for r in manifest.replicates})) for manifest in (self, other))),
        ]
        lines = [f"{name}: {before} there, {now} now" for name, before, now in facts if before != now]
        if shared := set(self.configs) ^ set(other.configs):
            only = [sum(config in manifest.configs for config in shared) for manifest in (self, other)]
            lines.append(f"configurations: {only[0]} there alone, {only[1]} now alone")
        return [*self.conflicts(other), *lines]

    def joined(self, other: "SweepManifest") -> "SweepManifest":
        """Return the manifest of a folder that holds both: what a later command `other` asks for is added."""
        asked_again = {config.id for config in other.configs}
        return replace(
            other,
            protocol=self.protocol,
            folds={**self.folds, **other.folds},
            replicates=_union(self.replicates, other.replicates),
            configs=_union(self.configs, other.configs),
            not_run={trial: why for trial, why in self.not_run.items() if trial not in asked_again}
            | dict(other.not_run),
            vectors={**self.vectors, **other.vectors},
            finetuned={**self.finetuned, **other.finetuned},
        )


def _union(first: Iterable[Key], second: Iterable[Key]) -> tuple[Key, ...]:
    return tuple(dict.fromkeys([*first, *second]))


def _shared(
    name: str, first: Mapping[Key, Value], second: Mapping[Key, Value], write: Callable[[Value], str]
) -> list[tuple[str, Any, Any, Callable[[Any], str]]]:
    """Return the facts about the keys that are in both mappings."""
    return [(f"{name} {key}", first[key], second[key], write) for key in first if key in second]


def _digits(digest: str) -> str:
    return digest[:12]


def _written(space: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {values}" for name, values in space.items()) or "none"


def _counted(guids: Collection[str]) -> str:
    return f"{len(guids)} ({some(sorted(guids))})" if guids else "0"


def _seeds(replicates: Iterable[Replicate]) -> list[str]:
    return list(dict.fromkeys(str(replicate.seed) for replicate in replicates))
