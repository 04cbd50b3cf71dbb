"""Data sets: a folder or a table on disk → samples. Also the flags that name one."""

import hashlib
import shlex
from argparse import Namespace
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from mvsa_tune.config import Parser
from mvsa_tune.data import release, table
from mvsa_tune.data.readers import CHEEMA, LABELS, REFERENCE, Layout, Pair, order_labels
from mvsa_tune.errors import InputError, some
from mvsa_tune.plugins import add_plugin_flag

LAYOUTS: Mapping[str, Layout] = {
    "reference": REFERENCE, "mvsa": release.LAYOUT, "cheema": CHEEMA, "table": table.LAYOUT,
}  # fmt: skip
DEFAULT_DATA = Path("data/mvsa_single")
LAYOUT_HELP = "the layout of --data on disk (default: recognised)"


@dataclass(frozen=True)
class Sample:
    """A tweet with its picture."""

    guid: str  # its name in the lists
    label: int | None  # index into the data set's classes; None where it is not known
    picture: Path
    text: str
    encoding: str  # of the text's file: `utf-8` or `gb18030`


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
    flags: str = ""  # the `--layout` and `--labels` with which it was read

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
        """The guids of the samples whose text is encoded as GB18030."""
        return [sample.guid for sample in self.samples if sample.encoding != "utf-8"]

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
        lines = [f"{self.folder}: {layout}; {labelled:,} labelled samples, {total - labelled:,} unlabelled"]
        if self.classes:
            counts = (f"{name} {count:,}" for name, count in zip(self.classes, self.label_counts, strict=True))
            lines.append(f"classes in {self.class_order}: {', '.join(counts)}")
        if self.layout == "mvsa":
            lines.append(f"{total + dropped:,} pairs read, {total:,} kept, {dropped:,} dropped")
        for reason in dict.fromkeys(self.dropped.values()):
            guids = [guid for guid, why in self.dropped.items() if why == reason]
            lines.append(f"{len(guids):,} dropped: {reason} ({some(guids)})")
        return lines


def read_dataset(
    folder: Path, *, layout: str | None = None, labels: Sequence[str] = (), needs_labels: bool = True
) -> Dataset:
    """Read a data set in any of the layouts.

    Args:
        folder: the data folder, or the file of a table.
        layout: a name in `LAYOUTS`; None to recognise it.
        labels: the classes in their order; empty for the layout's classes, or else the labels of the samples.
        needs_labels: whether data without labelled samples is an error.

    Raises:
        InputError: the data, a picture or a text is missing, the layout is not recognised, or a list or a label is bad.
    """
    name, source = find_layout(folder, layout)
    listing = LAYOUTS[name].read(source)
    names = {pair.line.label for pair in listing.pairs if pair.line.label is not None}
    if not listing.pairs or (needs_labels and not names):
        lacking = "labelled samples" if listing.pairs else "samples"
        raise InputError(f"{source} has no {lacking}: expected {LAYOUTS[name].expected}")
    classes, class_order = order_labels(labels, listing.labels, names)
    samples = sorted((_sample(pair, classes) for pair in listing.pairs), key=lambda sample: sample.label is None)
    requested = {"layout": layout, "labels": ",".join(labels)}
    flags = "".join(f" --{flag} {shlex.quote(value)}" for flag, value in requested.items() if value)
    return Dataset(source, tuple(samples), classes, name, listing.name, class_order, listing.dropped, flags)


def _sample(pair: Pair, classes: Sequence[str]) -> Sample:
    guid, label, position = pair.line
    if label is not None and label not in classes:
        known = ", ".join(classes)
        raise InputError(f"{position}: unknown label {label!r}; known are {known} (--labels A,B,… names others)")
    return Sample(guid, None if label is None else classes.index(label), pair.picture, pair.text, pair.encoding)


def find_layout(data: Path, requested: str | None = None) -> tuple[str, Path]:
    """Return the name of the layout of `--data`, and the folder or file that the data is in.

    Raises:
        InputError: there is no data, it has no known layout, or it has several and none is requested.
    """
    if not data.exists():
        if data.suffix.lower() in table.SUFFIXES:
            raise InputError(f"no file {data}: expected {table.LAYOUT.expected}")
        raise InputError(f"no data folder {data}: put MVSA-Single there ({REFERENCE.expected}), or try --demo")
    if requested or data.is_file():
        name = requested or "table"
        return name, LAYOUTS[name].source(data)
    names = [name for name, layout in LAYOUTS.items() if layout.matches(data)]
    if not names:
        known = "; ".join(f"{name}: {layout.expected}" for name, layout in LAYOUTS.items())
        raise InputError(f"{data} has none of the known layouts. {known}")
    if len(names) > 1:
        choices = " or ".join(f"--layout {name}" for name in names)
        raise InputError(f"{data} has several layouts: choose one with {choices}")
    return names[0], LAYOUTS[names[0]].source(data)


def add_data_flags(parser: Parser, *, caches: bool = True) -> None:
    """Add the flags that name a data set and plug-ins and, if `caches`, the folder of its embeddings."""
    data_help = f"data set: a folder, or a table's file (default {DEFAULT_DATA})"
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA, metavar="DIR", help=data_help)
    parser.add_argument("--layout", choices=list(LAYOUTS), help=LAYOUT_HELP)
    labels_help = "the labels in their order (default: the layout's, or the usual order)"
    parser.add_argument("--labels", metavar="A,B,…", help=labels_help)
    if caches:
        cache_help = "embedding caches (default DATA/embeddings; a table's: FILE.embeddings)"
        parser.add_argument("--cache", type=Path, metavar="DIR", help=cache_help)
    add_plugin_flag(parser)


def read_data(options: Namespace, *, needs_labels: bool = True) -> Dataset:
    """Return the data set that the flags of `add_data_flags` name."""
    labels = [name.strip() for name in options.labels.split(",")] if options.labels is not None else []
    return read_dataset(options.data, layout=options.layout, labels=labels, needs_labels=needs_labels)


def data_source(options: Namespace) -> Path:
    """Return the folder or file that holds the data; `--data` itself where there is none."""
    with suppress(InputError):
        return find_layout(options.data, options.layout)[1]
    return Path(options.data)
