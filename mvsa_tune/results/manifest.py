"""What a sweep is: two commands that differ in it may not share a results folder."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from mvsa_tune.config import Config, Replicate
from mvsa_tune.errors import some


@dataclass(frozen=True)
class SweepManifest:
    """What a results folder holds the answer to; two commands that differ in it may not share a folder.

    Attributes:
        data: the data folder, as given.
        data_fingerprint: of its content.
        layout: its layout on disk.
        classes: the labels, in order.
        label_counts: samples by label, in that order.
        dropped: guids of the pairs that the layout's rules drop, and why.
        demo: whether this is the built-in demo set.
        split: the split's name.
        split_digest: of the rows in its parts.
        protocol: whose defaults were taken, for the tables' heading.
        replicates: seeds and folds of every trial.
        configs: what was asked for, in order; none in a search.
        space: the search space, each dimension as its flag writes it; none in a grid.
        not_run: why a configuration could not run, by its id.
        skipped: guids of the samples left out, whose pictures could not be read, and why.
        vectors: SHA-256 of the caches used, by `ENCODER MODALITY`.
        finetuned: `weights` and `preprocessing` of encoders that are fine-tuned, by `ENCODER MODALITY`.
        code: version and source of the code that the numbers depend on.
    """

    data: str
    data_fingerprint: str
    layout: str
    classes: tuple[str, ...]
    label_counts: tuple[int, ...]
    dropped: Mapping[str, str]
    demo: bool
    split: str
    split_digest: str
    protocol: str
    replicates: tuple[Replicate, ...]
    configs: tuple[Config, ...]
    space: Mapping[str, str]
    not_run: Mapping[str, str]
    skipped: Mapping[str, str]
    vectors: Mapping[str, str]
    finetuned: Mapping[str, Mapping[str, str]]
    code: str

    def to_json(self) -> str:
        """Write as JSON."""
        return json.dumps(asdict(self), indent=1) + "\n"

    @staticmethod
    def from_json(text: str) -> "SweepManifest":
        """Read what `to_json` wrote."""
        fields = json.loads(text)
        return SweepManifest(
            **{
                **fields,
                "classes": tuple(fields["classes"]),
                "label_counts": tuple(fields["label_counts"]),
                "replicates": tuple(Replicate(**one) for one in fields["replicates"]),
                "configs": tuple(Config(**one) for one in fields["configs"]),
            }
        )

    def facts(self) -> dict[str, str]:
        """What makes this sweep the one it is, for a person, by name: the same facts, the same sweep."""
        seeds = dict.fromkeys(str(one.seed) for one in self.replicates)
        folds = {one.fold for one in self.replicates}
        return {
            "data fingerprint": self.data_fingerprint[:12],
            "labels": ", ".join(self.classes),
            "split": self.split,
            "rows of the split": self.split_digest[:12],
            "replicates": f"seeds {some([*seeds])}, {len(folds)} folds, {len(self.replicates)} in all",
            "configurations": _counted([config.id for config in self.configs]),
            **{f"search space, {name}": values for name, values in self.space.items()},
            "unreadable samples": _counted(sorted(self.skipped)),
            **{f"vectors of {key}": sha256[:12] for key, sha256 in self.vectors.items()},
            **{f"fine-tuned {key}": "; ".join(origin.values()) for key, origin in self.finetuned.items()},
            "code": self.code,
        }

    def differences(self, other: "SweepManifest") -> list[str]:
        """Say in which respects another sweep is not this one (the folder's path and what could not run aside)."""
        mine, theirs = self.facts(), other.facts()
        # A cache that was not there before is no difference; one that was made again with other content is.
        come_later = ("vectors of ", "fine-tuned ")
        names = [name for name in mine | theirs if not name.startswith(come_later) or (name in mine and name in theirs)]
        return [
            f"{name}: {mine.get(name, 'none')} there, {theirs.get(name, 'none')} now"
            for name in names
            if mine.get(name) != theirs.get(name)
        ]


def _counted(names: Sequence[str]) -> str:
    """How many, and which: the digits stand for the names."""
    return f"{len(names)} ({hashlib.sha256(' '.join(names).encode()).hexdigest()[:6]})"
