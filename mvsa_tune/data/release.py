"""The original release of MVSA-Single and MVSA-Multiple: `labelResultAll.txt`, and the usual merge of its labels.

A line is an ID and, tab-separated, each annotator's `text,image` labels: one annotator for Single, three for Multiple.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from mvsa_tune.data.labels import LABELS
from mvsa_tune.data.listing import Line, Listing, check_guid, find_pairs, numbered_lines, read_pairs
from mvsa_tune.errors import InputError

LIST = "labelResultAll.txt"
EXPECTED = (
    f"the original release: {LIST} (ID, then `text,image` labels, tab-separated; three such columns for Multiple), and the "
    "pairs ID.jpg and ID.txt in its data/"
)
CALLED = {1: "MVSA-Single", 3: "MVSA-Multiple"}
# Why a pair is dropped.
NO_TEXT, NO_IMAGE, NEITHER = (
    "no majority on the text", "no majority on the picture", "no majority on the text nor on the picture",
)  # fmt: skip
AGAINST = "text and picture contradict each other, one positive and one negative"
EMPTY = {".jpg": "its picture is an empty file", ".txt": "its text is an empty file"}


def merge(annotators: Sequence[tuple[str, str]]) -> tuple[str | None, str]:
    """Merge the annotators' `(text, image)` labels into one; return it, or None and why the pair is dropped.

    Per modality the majority of the annotators counts. Then two labels that agree are the pair's, of a neutral and a polar one
    the polar one is, and positive against negative is dropped.
    """
    text, image = (_majority(labels) for labels in zip(*annotators, strict=True))
    if text is None or image is None:
        return None, NEITHER if text == image else NO_IMAGE if text else NO_TEXT
    if text == image or image == "neutral":
        return text, ""
    if text == "neutral":
        return image, ""
    return None, AGAINST


def _majority(labels: Sequence[str]) -> str | None:
    label, votes = Counter(labels).most_common(1)[0]
    return label if votes > len(labels) / 2 else None


def matches(folder: Path) -> bool:
    """Whether a folder holds the release."""
    return (folder / LIST).is_file()


def read(folder: Path, needs_labels: bool = True) -> Listing:
    """Read the release and merge its labels. What the merge drops is told; so are pairs of which a file is empty.

    Raises:
        InputError: the list is missing, empty or malformed, an ID is listed twice or unsafe as a file name, a label is unknown,
            or a file of a pair that the merge keeps is missing.
    """
    seen: dict[str, str] = {}
    kept, dropped, columns = [], {}, set()
    for where, line in numbered_lines(folder / LIST, EXPECTED):
        if not line.strip() or (not seen and line.split("\t")[0].strip().casefold() == "id"):
            continue
        guid, annotators = _parse(line, where)
        check_guid(guid, where, seen)
        seen[guid] = where
        columns.add(len(annotators))
        if len(columns) > 1:
            raise InputError(
                f"{where}: {len(annotators)} columns of labels, where the lines before have another number"
            )
        tag, why = merge(annotators)
        if tag is None:
            dropped[guid] = why
        else:
            kept.append(Line(guid, tag, where))
    if not seen:
        raise InputError(f"{folder / LIST} lists no samples: expected {EXPECTED}")
    damaged = _empty(folder, [line.guid for line in kept])
    entries = read_pairs(folder, [line for line in kept if line.guid not in damaged])
    return Listing(entries, LABELS, dropped | damaged, CALLED[columns.pop()])


def _parse(line: str, where: str) -> tuple[str, list[tuple[str, str]]]:
    guid, *cells = (cell.strip() for cell in line.split("\t"))
    pairs = [tuple(label.strip().casefold() for label in cell.split(",")) for cell in cells]
    if len(pairs) not in CALLED or not all(len(pair) == 2 for pair in pairs):
        raise InputError(f"{where}: {line!r} is not an ID and one or three columns `text,image`, tab-separated")
    unknown = [label for pair in pairs for label in pair if label not in LABELS]
    if unknown:
        raise InputError(f"{where}: unknown label {unknown[0]!r}; known are {', '.join(LABELS)}")
    return guid, [(text, image) for text, image in pairs]


def _empty(folder: Path, guids: Sequence[str]) -> dict[str, str]:
    """The pairs of which a file is empty, as a few of the release are, and which."""
    pictures, texts = find_pairs(folder, guids)
    return {
        guid: why
        for guid in guids
        for (suffix, why), place in zip(EMPTY.items(), (pictures, texts), strict=True)
        if (place / f"{guid}{suffix}").stat().st_size == 0
    }
