"""Folders on disk → samples."""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from mvsa_tune.errors import InputError, some

# The label order of the documents: a class is its index here, everywhere.
LABELS = ("negative", "neutral", "positive")
TRAIN_LIST = "train.txt"
UNLABELLED_LIST = "test_without_label.txt"
# Where copies of the set keep the pairs, below the folder that holds the lists.
PAIR_FOLDERS = ("data", "data/pics_texts_pair", ".")
EXPECTED = (
    f"a folder with {TRAIN_LIST} (lines `guid,tag`; tag one of {', '.join(LABELS)}), optionally {UNLABELLED_LIST} "
    "(`guid,null`), and the pairs GUID.jpg and GUID.txt in its data/"
)


@dataclass(frozen=True)
class Sample:
    """One tweet with its picture.

    Attributes:
        guid: its name in the lists and on disk.
        label: index into `LABELS`, or None where the set does not tell.
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
    """The samples of a folder: the labelled ones in list order, then the unlabelled ones."""

    folder: Path
    samples: tuple[Sample, ...]

    @cached_property
    def guids(self) -> list[str]:
        """The samples' names, in order."""
        return [sample.guid for sample in self.samples]

    @cached_property
    def labels(self) -> list[int]:
        """Labels of the labelled samples, which come first."""
        return [sample.label for sample in self.samples if sample.label is not None]

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
        """SHA-256 over the same and the labels: what a result depends on."""
        return self._digest(labels=True)

    def _digest(self, *, labels: bool) -> str:
        digest = hashlib.sha256()
        for sample in self.samples:
            label = sample.label if labels else ""
            size = sample.picture.stat().st_size
            digest.update(f"{sample.guid}\0{label}\0{size}\0{sample.text}\0\0".encode())
        return digest.hexdigest()


def read_dataset(folder: Path, *, needs_labels: bool = True) -> Dataset:
    """Read the documents' layout.

    Texts are decoded as UTF-8, else as GB18030, never with bytes dropped. Unless it `needs_labels`, the unlabelled list
    alone will do.

    Raises:
        InputError: no such folder, a list that is missing, empty or malformed, a guid listed twice or unsafe as a
            file name, an unknown label, a missing picture or text, a text in neither encoding.
    """
    if not folder.is_dir():
        raise InputError(f"no data folder {folder}: put MVSA-Single there ({EXPECTED}), or try --demo")
    unlabelled = (folder / UNLABELLED_LIST).exists()
    alone = not needs_labels and unlabelled and not (folder / TRAIN_LIST).exists()
    listed = {} if alone else _read_list(folder / TRAIN_LIST, labelled=True)
    if unlabelled:
        listed |= _read_list(folder / UNLABELLED_LIST, labelled=False, already=listed)
    pairs = _find_pairs(folder, list(listed))
    samples = []
    for guid, label in listed.items():
        text, encoding = decode((pairs / f"{guid}.txt").read_bytes(), pairs / f"{guid}.txt")
        samples.append(Sample(guid, label, pairs / f"{guid}.jpg", text, encoding))
    return Dataset(folder, tuple(samples))


def decode(raw: bytes, path: Path) -> tuple[str, str]:
    """Decode a text as UTF-8, else GB18030 (the release holds both); InputError names the file if it is neither."""
    for encoding in ("utf-8", "gb18030"):
        try:
            return raw.decode(encoding), encoding
        except UnicodeDecodeError:
            continue
    raise InputError(f"{path} is neither UTF-8 nor GB18030: convert it to UTF-8")


def _read_list(path: Path, *, labelled: bool, already: dict[str, int | None] | None = None) -> dict[str, int | None]:
    if not path.is_file():
        raise InputError(f"no {path.name} in {path.parent}: expected {EXPECTED}")
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise InputError(f"{path} is not UTF-8: convert it") from None
    entries: dict[str, int | None] = {}
    for number, line in enumerate(lines, start=1):
        where = f"{path}:{number}"
        if not line.strip() or (number == 1 and line.replace(" ", "") == "guid,tag"):
            continue
        guid, comma, tag = (part.strip() for part in line.partition(","))
        if not comma:
            raise InputError(f"{where}: {line!r} is not `guid,tag`")
        if not is_file_name(guid):
            raise InputError(f"{where}: guid {guid!r} is not a plain file name; it may not leave the data folder")
        if guid in entries or guid in (already or {}):
            raise InputError(f"{where}: guid {guid} is listed twice; keep one line of it")
        entries[guid] = _label(tag, where, labelled=labelled)
    if not entries and labelled:
        raise InputError(f"{path} lists no samples: expected lines `guid,tag`")
    return entries


def is_file_name(name: str) -> bool:
    """Whether a name from data can stand in a path without leaving its folder."""
    return bool(name) and name not in {".", ".."} and not set(name) & set("/\\\0") and name.isprintable()


def _label(tag: str, where: str, *, labelled: bool) -> int | None:
    if labelled:
        if tag not in LABELS:
            raise InputError(f"{where}: unknown label {tag!r}; known are {', '.join(LABELS)}")
        return LABELS.index(tag)
    if tag not in {"null", ""}:
        raise InputError(f"{where}: label {tag!r} in the unlabelled list; labelled samples belong in {TRAIN_LIST}")
    return None


def _find_pairs(folder: Path, guids: list[str]) -> Path:
    """Return the folder that holds the pairs, every one of them."""
    candidates = [folder / name for name in PAIR_FOLDERS]
    present = {candidate: _names(candidate) for candidate in candidates}
    pairs = max(candidates, key=lambda candidate: sum(f"{guid}.jpg" in present[candidate] for guid in guids))
    for kind, suffix in (("picture", ".jpg"), ("text", ".txt")):
        missing = [guid + suffix for guid in guids if guid + suffix not in present[pairs]]
        if missing:
            raise InputError(
                f"{len(missing):,} of {len(guids):,} samples have no {kind} in {pairs}: {some(missing)}; "
                "add the files or take the guids off the list"
            )
    return pairs


def _names(folder: Path) -> set[str]:
    return {entry.name for entry in folder.iterdir() if entry.is_file()} if folder.is_dir() else set()
