"""Data sets: a folder or a table on disk → samples. Also the flags that name one."""

import argparse
import difflib
import hashlib
import re
import shlex
from argparse import Namespace
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from mvsa_tune.data import release, table
from mvsa_tune.data.lists import UNDECODABLE, levels
from mvsa_tune.data.readers import CHEEMA, LABELS, REFERENCE, Layout, Pair, Reading, order_labels
from mvsa_tune.errors import InputError, counted, some
from mvsa_tune.plugins import add_plugin_flag

LAYOUTS: Mapping[str, Layout] = {
    "reference": REFERENCE, "mvsa": release.LAYOUT, "cheema": CHEEMA, "table": table.LAYOUT,
}  # fmt: skip
DEFAULT_DATA = Path("data/mvsa_single")
LAYOUT_HELP = "the layout of --data on disk (default: recognised)"
ENCODING_HELP = "of lists and texts that are not UTF-8 (default: gb18030 or cp1252, chosen for each)"


@dataclass(frozen=True)
class Sample:
    """A tweet with its picture."""

    guid: str  # its name in the lists
    label: int | None  # index into the data set's classes; None where it is not known
    picture: Path
    text: str
    encoding: str  # of the text's file, as `lists.decode` returns it; `UNDECODABLE` where signs are replaced


@dataclass(frozen=True)
class Dataset:
    """The samples of a data set: the labelled ones in the order of their list, then the unlabelled ones."""

    folder: Path  # the data folder, or the file of a table
    samples: tuple[Sample, ...]
    classes: tuple[str, ...] = LABELS  # the labels' names, in order; empty where nothing is labelled
    layout: str = "reference"  # on disk, a name in `LAYOUTS`
    name: str = ""  # of the data set; empty where the layout does not tell
    class_order: str = ""  # what the order of the classes is called
    dropped: Mapping[str, str] = field(default_factory=dict)  # by guid: why the layout's rules drop a pair
    flags: str = ""  # the `--layout` and others with which it was read
    reading: Mapping[str, str] = field(default_factory=dict)  # `merge` of the release, and `encoding` where given
    notes: Sequence[str] = ()  # what was not taken as it stands, a line each

    @cached_property
    def guids(self) -> list[str]:
        """The guids of all samples."""
        return [sample.guid for sample in self.samples]

    @cached_property
    def labels(self) -> list[int]:
        """The labels of the labelled samples, which come first."""
        return [sample.label for sample in self.samples if sample.label is not None]

    @cached_property
    def label_counts(self) -> tuple[int, ...]:
        """The number of labelled samples of each class."""
        return tuple(self.labels.count(label) for label in range(len(self.classes)))

    @cached_property
    def not_utf8(self) -> list[str]:
        """The guids of the samples whose text is not UTF-8."""
        return [sample.guid for sample in self.samples if sample.encoding != "utf-8"]

    @cached_property
    def undecodable(self) -> dict[str, str]:
        """The guids of the samples whose text cannot be decoded, and why."""
        reason = "the text is in no known encoding"
        return {sample.guid: reason for sample in self.samples if sample.encoding == UNDECODABLE}

    @cached_property
    def content_fingerprint(self) -> str:
        """SHA-256 over guids, texts and picture sizes in order: what an encoder sees, whatever the labels are."""
        return self._digest(labels=False)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over the same, the labels and the classes (unless they are `LABELS`): what results depend on."""
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

    def description(self) -> list[str]:
        """Return lines on what was read: the layout, the classes with their counts, and what was dropped and why."""
        total, labelled, dropped = len(self.samples), len(self.labels), len(self.dropped)
        layout = f"layout {self.layout} ({self.name})" if self.name else f"layout {self.layout}"
        lines = [f"{self.folder}: {layout}; {counted(labelled, 'labelled sample')}, {total - labelled:,} unlabelled"]
        if self.classes:
            counts = (f"{name} {count:,}" for name, count in zip(self.classes, self.label_counts, strict=True))
            lines.append(f"classes in {self.class_order}: {', '.join(counts)}")
        if self.layout == "mvsa":
            lines.append(f"{counted(total + dropped, 'pair')} read, {total:,} kept, {dropped:,} dropped")
        for reason in dict.fromkeys(self.dropped.values()):
            guids = [guid for guid, why in self.dropped.items() if why == reason]
            lines.append(f"{len(guids):,} dropped: {reason} ({some(guids)})")
        if self.not_utf8:
            encodings = Counter(sample.encoding for sample in self.samples).most_common()
            lines.append("texts by encoding: " + ", ".join(f"{name} {count:,}" for name, count in encodings))
        return [*lines, *self.notes]


def read_dataset(
    folder: Path,
    *,
    layout: str | None = None,
    labels: Sequence[str] = (),
    merge: str = "",
    encoding: str = "",
    needs_labels: bool = True,
) -> Dataset:
    """Read a data set in any of the layouts.

    Args:
        folder: the data folder, one above it, or the file of a table.
        layout: a name in `LAYOUTS`; None to recognise it.
        labels: the classes in their order; empty for the layout's classes, or else the labels of the samples.
        merge: how the original release's labels are merged, a name in `release.MERGES`; empty for the usual way.
        encoding: of lists and texts that are not UTF-8; empty to choose it for each.
        needs_labels: whether data without labelled samples is an error.

    Raises:
        InputError: the data, a picture or a text is missing, the layout is not recognised, or a list or a label is bad.
    """
    name, source = find_layout(folder, layout)
    if merge and name != "mvsa":
        raise InputError(f"--merge {merge}: only the original release has labels to merge, and {source} is not that")
    listing = LAYOUTS[name].read(source, Reading(_codec(encoding), merge or "majority", tuple(labels)))
    counts = Counter(pair.line.label for pair in listing.pairs if pair.line.label is not None)
    if not listing.pairs or (needs_labels and not counts):
        if listing.pairs and name == "table":
            table.check_label_column(source, encoding)
        lacking = "labelled samples" if listing.pairs else "samples"
        raise InputError(f"{source} has no {lacking}: expected {LAYOUTS[name].expected}")
    classes, class_order = order_labels(labels, listing.labels, counts)
    samples = sorted((_sample(pair, classes) for pair in listing.pairs), key=lambda sample: sample.label is None)
    requested = {"layout": layout, "labels": ",".join(labels), "merge": merge, "encoding": encoding}
    flags = "".join(f" --{flag} {shlex.quote(value)}" for flag, value in requested.items() if value)
    reading = {"encoding": encoding} if encoding else {}
    notes = [*listing.notes, *([] if labels or listing.labels else typo_notes(counts))]
    if name == "mvsa":
        reading["merge"] = merge or "majority"
    return Dataset(
        source, tuple(samples), classes, name, listing.name, class_order, listing.dropped, flags, reading, notes
    )


def typo_notes(counts: Mapping[str, int]) -> list[str]:
    """Return a line on each label that fewer than 1 in 50 samples have and that is nearly a more frequent one.

    Labels that differ in digits alone are taken as they are: `class 1` and `class 2` are no typos of each other.
    """
    total, notes = sum(counts.values()), []
    frequent = [label for label in counts if counts[label] * 50 >= total]
    for label in sorted(counts.keys() - set(frequent)):
        near = [name for name in difflib.get_close_matches(label, frequent, cutoff=0.85) if not _alike(label, name)]
        if near:
            count = counted(counts[label], "sample")
            notes.append(f"label {label!r} ({count}) is nearly {near[0]!r} ({counts[near[0]]:,}): a typo?")
    return notes


def _alike(label: str, other: str) -> bool:
    """Return whether labels differ in digits alone."""
    return re.sub(r"\d", "", label) == re.sub(r"\d", "", other)


def _codec(encoding: str) -> str:
    """Return the name of an encoding; InputError if Python has none of that name."""
    try:
        with suppress(UnicodeError):  # a single byte is no text in UTF-16
            b"a".decode(encoding or "utf-8")
    except LookupError:
        raise InputError(f"--encoding {encoding}: no such encoding; known are gb18030, cp1252, big5, cp932 …") from None
    return encoding


def _sample(pair: Pair, classes: Sequence[str]) -> Sample:
    guid, label, position = pair.line
    index = None
    if label is not None:
        alike = [name for name in classes if name.casefold() == label.casefold()]
        if not alike:
            known = ", ".join(classes)
            raise InputError(f"{position}: unknown label {label!r}; known are {known} (--labels A,B,… names others)")
        index = classes.index(alike[0])
    return Sample(guid, index, pair.picture, pair.text, pair.encoding)


def find_layout(data: Path, requested: str | None = None) -> tuple[str, Path]:
    """Return the name of the layout of `--data`, and the folder or file that the data is in.

    Raises:
        InputError: there is no data, it has no known layout, or it has several and none is requested.
    """
    if not data.exists():
        if data.suffix.lower() in table.SUFFIXES:
            raise InputError(f"no file {data}: expected {table.LAYOUT.expected}")
        raise InputError(f"no data folder {data}: put MVSA-Single there ({REFERENCE.expected}), or try --demo")
    if data.is_file():
        name = requested or "table"
        return name, LAYOUTS[name].source(data)
    looked: list[Path] = []
    for level in levels(data):
        looked += level
        layouts = {folder: names for folder in level if (names := _layouts(folder, requested))}
        if layouts:
            break
    if not layouts:
        known = "; ".join(f"{name}: {layout.expected}" for name, layout in LAYOUTS.items())
        if requested:
            known = LAYOUTS[requested].expected
        what = f"has not the layout {requested}: expected" if requested else "has none of the known layouts."
        raise InputError(f"{data} {what} {known}. Looked in {some(list(map(str, looked)), 12)}")
    if len(layouts) > 1:
        raise InputError(f"{data} holds several data sets: name one with --data ({some(list(map(str, layouts)))})")
    (folder, names), *_ = layouts.items()
    if len(names) > 1:
        choices = " or ".join(f"--layout {name}" for name in names)
        raise InputError(f"{folder} has several layouts: choose one with {choices}")
    return names[0], LAYOUTS[names[0]].source(folder)


def _layouts(folder: Path, requested: str | None) -> list[str]:
    """Return the layouts that a folder has, of all or of the requested one."""
    return [name for name, layout in LAYOUTS.items() if requested in (None, name) and layout.matches(folder)]


def add_data_flags(parser: argparse._ActionsContainer, *, caches: bool = True) -> None:
    """Add the flags that name a data set and plug-ins and, if `caches`, the folder of its embeddings."""
    data_help = f"data set: a folder, or a table's file (default {DEFAULT_DATA})"
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA, metavar="DIR", help=data_help)
    parser.add_argument("--layout", choices=list(LAYOUTS), help=LAYOUT_HELP)
    labels_help = "the labels in their order (default: the layout's, or the usual order)"
    parser.add_argument("--labels", metavar="A,B,…", help=labels_help)
    merge_help = "the original release: `agree` keeps only pairs whose two labels agree (default: majority)"
    parser.add_argument("--merge", choices=list(release.MERGES), default="", help=merge_help)
    parser.add_argument("--encoding", metavar="NAME", default="", help=ENCODING_HELP)
    if caches:
        cache_help = "embedding caches (default DATA/embeddings; a table's: FILE.embeddings)"
        parser.add_argument("--cache", type=Path, metavar="DIR", help=cache_help)
    add_plugin_flag(parser)


def read_data(options: Namespace, *, needs_labels: bool = True) -> Dataset:
    """Return the data set that the flags of `add_data_flags` name."""
    labels = [name.strip() for name in options.labels.split(",")] if options.labels is not None else []
    how = {"layout": options.layout, "merge": options.merge, "encoding": options.encoding}
    return read_dataset(options.data, labels=labels, needs_labels=needs_labels, **how)


def data_source(options: Namespace) -> Path:
    """Return the folder or file that holds the data; `--data` itself where there is none."""
    with suppress(InputError):
        return find_layout(options.data, options.layout)[1]
    return Path(options.data)
