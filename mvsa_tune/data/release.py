"""The original release of MVSA-Single and MVSA-Multiple, `labelResultAll.txt`, and the usual way to merge its labels.

A line is an ID and, tab-separated, the `text,image` labels of each annotator: one for Single, three for Multiple.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from mvsa_tune.data.readers import LABELS, Layout, Line, Listing, Reading, add_line, find_list, read_list, read_pairs
from mvsa_tune.errors import InputError

LIST = "labelResultAll.txt"
NAMES = {1: "MVSA-Single", 3: "MVSA-Multiple"}  # by the number of annotators
MERGES = {"majority": "labels merged as usual", "agree": "only pairs whose two labels agree"}  # `--merge`
# Why a pair is dropped.
NO_TEXT = "no majority on the text"
NO_IMAGE = "no majority on the picture"
NEITHER = "no majority on the text nor on the picture"
AGAINST = "text and picture contradict each other, one positive and one negative"
DIFFER = "the labels of text and picture differ"


def merge(annotators: Sequence[tuple[str, str]], how: str = "majority") -> tuple[str | None, str]:
    """Merge the annotators' `(text, image)` labels into one; return it and "", or None and why the pair is dropped.

    A modality takes the label of more than half of the annotators. If both modalities have the same label, the pair has
    it. Else, if one is neutral, the pair has the other's, and if one is positive and one negative, it is dropped; with
    `agree` it is dropped anyway.
    """
    text, image = (_majority(labels) for labels in zip(*annotators, strict=True))
    if text is None or image is None:
        return None, NEITHER if text == image else NO_IMAGE if text else NO_TEXT
    if how == "agree" and text != image:
        return None, DIFFER
    if text == image or image == "neutral":
        return text, ""
    if text == "neutral":
        return image, ""
    return None, AGAINST


def _majority(labels: Sequence[str]) -> str | None:
    label, votes = Counter(labels).most_common(1)[0]
    return label if votes > len(labels) / 2 else None


def _read(folder: Path, reading: Reading) -> Listing:
    """Read the release and merge its labels; drop the few pairs with an empty file, too."""
    lines: dict[str, Line] = {}
    dropped: dict[str, str] = {}
    columns = 0
    for position, cells in read_list(folder, LIST, LAYOUT.expected, reading.encoding, "\t"):
        if not cells or (not lines and cells[0].casefold() == "id"):
            continue
        guid, annotators = _parse(cells, position)
        columns = columns or len(annotators)
        if len(annotators) != columns:
            raise InputError(f"{position}: {len(annotators)} columns of labels, but {columns} in the lines before")
        label, reason = merge(annotators, reading.merge)
        add_line(lines, Line(guid, label, position))
        if label is None:
            dropped[guid] = reason
    pairs = read_pairs(folder, [line for line in lines.values() if line.guid not in dropped], reading.encoding)
    for pair in pairs:
        if not pair.text:
            dropped[pair.line.guid] = "its text is an empty file"
        elif pair.picture.stat().st_size == 0:
            dropped[pair.line.guid] = "its picture is an empty file"
    kept = [pair for pair in pairs if pair.line.guid not in dropped]
    name = f"{NAMES[columns]}, {MERGES[reading.merge]}" if columns else ""
    return Listing(kept, LABELS, dropped, name)


def _parse(cells: Sequence[str], position: str) -> tuple[str, list[tuple[str, str]]]:
    guid, *pairs = cells
    annotators = [tuple(label.strip().casefold() for label in pair.split(",")) for pair in pairs]
    if len(annotators) not in NAMES or not all(len(labels) == 2 for labels in annotators):
        text = "\t".join(cells)
        raise InputError(f"{position}: {text!r} is not an ID and one or three columns `text,image`, tab-separated")
    unknown = [label for labels in annotators for label in labels if label not in LABELS]
    if unknown:
        raise InputError(f"{position}: unknown label {unknown[0]!r}; known are {', '.join(LABELS)}")
    return guid, [(text_label, image_label) for text_label, image_label in annotators]


LAYOUT = Layout(
    f"the original release: {LIST} (ID, then `text,image` labels, tab-separated; three such columns for Multiple), and "
    "the pairs ID.jpg and ID.txt in its data/",
    lambda folder: bool(find_list(folder, LIST)),
    _read,
)
