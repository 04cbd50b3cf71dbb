"""Folders on disk → samples."""

import hashlib
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from mvsa_tune.data.labels import LABELS, order_labels
from mvsa_tune.data.listing import Entry
from mvsa_tune.data.readers import LAYOUTS, find_layout
from mvsa_tune.errors import InputError, some


@dataclass(frozen=True)
class Sample:
    """One tweet with its picture.

    Attributes:
        guid: its name in the lists.
        label: index into the data set's classes, or None where the set does not tell.
        picture: path of the picture.
        text: the tweet, decoded.
        encoding: what it was decoded from: `utf-8` or `gb18030`.
    """

    guid: str
    label: int | None
    picture: Path
    text: str
    encoding: str


@dataclass(frozen=True)
class Dataset:
    """The samples of a set: the labelled ones in the order of their list, then the unlabelled ones.

    Attributes:
        folder: where it is: a folder, or the file of a table.
        samples: all of them.
        classes: the names of the labels, in order; none where nothing is labelled.
        layout: the form it has on disk, a name in `LAYOUTS`.
        called: what that form calls it; empty for nothing.
        order: how the order of the classes came about.
        dropped: the pairs that the form's own rules drop, and why, by guid.
        flags: what reads it again beside `--data`: the `--layout` and `--labels` that were given.
    """

    folder: Path
    samples: tuple[Sample, ...]
    classes: tuple[str, ...] = LABELS
    layout: str = "reference"
    called: str = ""
    order: str = ""
    dropped: Mapping[str, str] = field(default_factory=dict)
    flags: str = ""

    @cached_property
    def guids(self) -> list[str]:
        """The samples' names, in order."""
        return [sample.guid for sample in self.samples]

    @cached_property
    def labels(self) -> list[int]:
        """Labels of the labelled samples, which come first."""
        return [sample.label for sample in self.samples if sample.label is not None]

    @cached_property
    def label_counts(self) -> tuple[int, ...]:
        """Labelled samples of each class."""
        return tuple(self.labels.count(label) for label in range(len(self.classes)))

    @cached_property
    def not_utf8(self) -> list[str]:
        """Guids of the samples whose text had to be decoded as GB18030."""
        return [sample.guid for sample in self.samples if sample.encoding != "utf-8"]

    @cached_property
    def content_fingerprint(self) -> str:
        """SHA-256 over guids, texts and picture sizes in order: what an encoder sees, whatever the labels say."""
        return self._digest(labels=False)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over the same, the labels and, unless they are the reference's, the classes: what a result depends on."""
        return self._digest(labels=True)

    def _digest(self, *, labels: bool) -> str:
        digest = hashlib.sha256()
        if labels and self.classes != LABELS:
            digest.update(f"{','.join(self.classes)}\0\0".encode())
        for sample in self.samples:
            label = sample.label if labels else ""
            size = sample.picture.stat().st_size
            digest.update(f"{sample.guid}\0{label}\0{size}\0{sample.text}\0\0".encode())
        return digest.hexdigest()

    def told(self) -> list[str]:
        """What was read, for a person: the form, the classes with their counts, and what was dropped and why."""
        form = f"{self.called}, the form {self.layout}" if self.called else f"the form {self.layout}"
        counts = ", ".join(f"{name} {count:,}" for name, count in zip(self.classes, self.label_counts, strict=True))
        unlabelled = len(self.samples) - len(self.labels)
        lines = [
            f"{self.folder}: {form}; {len(self.labels):,} labelled samples, {unlabelled:,} unlabelled",
            *([f"classes, {self.order}: {counts}"] if self.classes else []),
        ]
        if self.layout == "mvsa":
            lines.append(
                f"{len(self.samples) + len(self.dropped):,} pairs read, {len(self.samples):,} kept, {len(self.dropped):,} dropped"
            )
        for why, count in Counter(self.dropped.values()).items():
            lines.append(
                f"{count:,} dropped: {why} ({some([guid for guid, one in self.dropped.items() if one == why])})"
            )
        return lines


def read_dataset(
    folder: Path, *, layout: str | None = None, labels: Sequence[str] = (), needs_labels: bool = True
) -> Dataset:
    """Read a data set in any of the known forms.

    Args:
        folder: where it is: a folder, or the file of a table.
        layout: its form; None for the one that it is found to have.
        labels: the classes in their order; empty for the form's own, or those found, in their usual order.
        needs_labels: whether unlabelled samples alone will not do.

    Raises:
        InputError: there is no data, none of the forms or several, a list that is missing or malformed, a sample listed twice, an
            unknown label, a path that leaves the folder, a missing picture or text, a text in no known encoding.
    """
    name, source = find_layout(folder, layout)
    listing = LAYOUTS[name].read(source, needs_labels)
    tags = {entry.tag for entry in listing.entries if entry.tag is not None}
    classes, order = order_labels(labels, listing.labels, tags, needed=needs_labels)
    samples = [_sample(entry, classes) for entry in listing.entries]
    samples.sort(key=lambda sample: sample.label is None)
    asked = {"layout": layout, "labels": ",".join(labels)}
    flags = "".join(f" --{flag} {shlex.quote(value)}" for flag, value in asked.items() if value)
    return Dataset(source, tuple(samples), classes, name, listing.called, order, listing.dropped, flags)


def _sample(entry: Entry, classes: Sequence[str]) -> Sample:
    if entry.tag is not None and entry.tag not in classes:
        raise InputError(
            f"{entry.where}: unknown label {entry.tag!r}; known are {', '.join(classes)} (--labels A,B,… names others)"
        )
    label = None if entry.tag is None else classes.index(entry.tag)
    return Sample(entry.guid, label, entry.picture, entry.text, entry.encoding)
