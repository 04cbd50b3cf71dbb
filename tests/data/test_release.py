"""The original release: every rule of the merge by hand, and all of them at once against arithmetic."""

import itertools
import re
from pathlib import Path
from statistics import multimode

import pytest

from conftest import make_set
from mvsa_tune.cli import main
from mvsa_tune.data.dataset import read_dataset
from mvsa_tune.data.readers import LABELS
from mvsa_tune.data.release import AGAINST, DIFFER, NEITHER, NO_IMAGE, NO_TEXT, merge
from mvsa_tune.errors import InputError
from mvsa_tune.sweeps import GRID
from test_layouts import edit, write_pairs

NEG, NEU, POS = LABELS
# (text, image) of one annotator → the pair's label; None: dropped.
SINGLE = {
    (NEG, NEG): NEG, (NEG, NEU): NEG, (NEG, POS): None,
    (NEU, NEG): NEG, (NEU, NEU): NEU, (NEU, POS): POS,
    (POS, NEG): None, (POS, NEU): POS, (POS, POS): POS,
}  # fmt: skip
# (text, image) of three annotators → the pair's label, or why it is dropped.
MULTIPLE = {
    ((POS, POS), (POS, POS), (POS, POS)): POS,
    ((POS, NEU), (POS, NEU), (NEG, NEG)): POS,  # text positive by two, image neutral by two
    ((NEU, NEG), (POS, NEG), (NEU, POS)): NEG,
    ((NEU, NEU), (NEU, NEU), (POS, NEG)): NEU,
    ((POS, NEG), (POS, NEG), (NEU, NEU)): AGAINST,
    ((NEG, POS), (NEG, NEU), (POS, POS)): AGAINST,
    ((POS, NEU), (NEG, NEU), (NEU, NEU)): NO_TEXT,
    ((POS, NEU), (POS, NEG), (NEU, POS)): NO_IMAGE,
    ((POS, NEU), (NEG, NEG), (NEU, POS)): NEITHER,
    ((POS, POS), (NEG, NEG), (POS, NEG)): AGAINST,  # each annotator agrees with itself; the majorities do not
}


def make_release(folder: Path, lines: list[tuple[tuple[str, str], ...]], name: str = "7{:03}") -> Path:
    """Write the release with a line for each pair, its ids not in the order of names."""
    guids = [name.format(len(lines) - number) for number in range(len(lines))]
    write_pairs(folder, guids)
    rows = ["\t".join([guid, *(",".join(labels) for labels in line)]) for guid, line in zip(guids, lines, strict=True)]
    heading = "\t".join(["ID", *["text,image"] * len(lines[0])])
    (folder / "labelResultAll.txt").write_text("\n".join([heading, *rows]) + "\n", encoding="utf-8")
    return folder


def test_single_merged_by_hand(tmp_path: Path) -> None:
    assert len(SINGLE) == 9
    for pair, label in SINGLE.items():
        assert merge([pair]) == ((label, "") if label else (None, AGAINST)), pair
    dataset = read_dataset(make_release(tmp_path, [(pair,) for pair in SINGLE]))
    assert dataset.layout == "mvsa" and dataset.name == "MVSA-Single, labels merged as usual"
    assert [LABELS[label] for label in dataset.labels] == [label for label in SINGLE.values() if label]
    assert dataset.guids == ["7009", "7008", "7006", "7005", "7004", "7002", "7001"]
    assert dataset.dropped == {"7007": AGAINST, "7003": AGAINST}
    assert "9 pairs read, 7 kept, 2 dropped" in dataset.description()
    assert f"2 dropped: {AGAINST} (7007, 7003)" in dataset.description()
    assert len(dataset.labels) == len(dataset.samples)


def test_multiple_merged_by_hand(tmp_path: Path) -> None:
    for annotators, expected in MULTIPLE.items():
        assert merge(annotators) == ((expected, "") if expected in LABELS else (None, expected)), annotators
    dataset = read_dataset(make_release(tmp_path, list(MULTIPLE)))
    assert dataset.name == "MVSA-Multiple, labels merged as usual"
    assert [LABELS[label] for label in dataset.labels] == [POS, POS, NEG, NEU]
    assert dataset.description()[2:] == [
        "10 pairs read, 4 kept, 6 dropped",
        f"3 dropped: {AGAINST} (7006, 7005, 7001)",
        f"1 dropped: {NO_TEXT} (7004)",
        f"1 dropped: {NO_IMAGE} (7003)",
        f"1 dropped: {NEITHER} (7002)",
    ]


def by_arithmetic(annotators: tuple[tuple[str, str], ...]) -> str | None:
    """The merge, with negative −1, neutral 0, positive 1: the sign of the sum of the modes, if that is not 1 − 1."""
    texts, images = ([LABELS.index(label) - 1 for label in labels] for labels in zip(*annotators, strict=True))
    if len(multimode(texts)) > 1 or len(multimode(images)) > 1:
        return None
    total = multimode(texts)[0] + multimode(images)[0]
    if total == 0 and multimode(texts)[0]:
        return None
    return LABELS[(total > 0) - (total < 0) + 1]


def test_all_729_ways_to_label_a_pair_thrice(tmp_path: Path) -> None:
    pairs = list(itertools.product(LABELS, LABELS))
    ways = list(itertools.product(pairs, repeat=3))
    dataset = read_dataset(make_release(tmp_path, ways))
    expected = [label for label in map(by_arithmetic, ways) if label]
    assert [LABELS[label] for label in dataset.labels] == expected
    # of the 27 ways to label a modality 6 have no majority and each label has 7
    counts = {reason: [*dataset.dropped.values()].count(reason) for reason in (NEITHER, NO_TEXT, NO_IMAGE, AGAINST)}
    assert counts == {NEITHER: 6 * 6, NO_TEXT: 6 * 21, NO_IMAGE: 21 * 6, AGAINST: 2 * 7 * 7}
    assert len(dataset.samples) == 729 - sum(counts.values()) == 343


def test_only_pairs_whose_two_labels_agree_are_kept_if_that_is_requested(tmp_path: Path) -> None:
    for pair in SINGLE:
        assert merge([pair], "agree") == ((pair[0], "") if pair[0] == pair[1] else (None, DIFFER))
    dataset = read_dataset(make_release(tmp_path / "single", [(pair,) for pair in SINGLE]), merge="agree")
    assert dataset.guids == ["7009", "7005", "7001"] and set(dataset.dropped.values()) == {DIFFER}
    heading = "layout mvsa (MVSA-Single, only pairs whose two labels agree); 3 labelled samples, 0 unlabelled"
    assert dataset.description()[0].endswith(heading)
    assert dataset.flags == " --merge agree" and dataset.reading == {"merge": "agree"}
    multiple = read_dataset(make_release(tmp_path / "multiple", list(MULTIPLE)), merge="agree")
    assert [LABELS[label] for label in multiple.labels] == [POS, NEU]
    assert [*multiple.dropped.values()].count(DIFFER) == 3 + 2  # the three AGAINST, and those with one neutral label
    with pytest.raises(InputError, match=r"--merge agree: only the original release"):
        read_dataset(make_set(tmp_path / "reference"), merge="agree")


def test_the_usual_merge_is_that_of_no_flag(tmp_path: Path) -> None:
    folder = make_release(tmp_path, [(pair,) for pair in SINGLE])
    named, plain = read_dataset(folder, merge="majority"), read_dataset(folder)
    assert named.fingerprint == plain.fingerprint and named.reading == plain.reading == {"merge": "majority"}


def test_the_order_of_the_annotators_does_not_matter() -> None:
    for annotators in itertools.islice(itertools.product(SINGLE, repeat=3), 0, None, 7):
        assert len({merge(mixed) for mixed in itertools.permutations(annotators)}) == 1


def test_pairs_with_an_empty_file_are_dropped_and_counted(tmp_path: Path) -> None:
    folder = make_release(tmp_path, [((POS, POS),)] * 5)
    (folder / "data" / "7004.jpg").write_bytes(b"")
    (folder / "data" / "7002.txt").write_bytes(b"")
    dataset = read_dataset(folder)
    assert dataset.guids == ["7005", "7003", "7001"]
    assert dataset.dropped == {"7004": "its picture is an empty file", "7002": "its text is an empty file"}
    assert "5 pairs read, 3 kept, 2 dropped" in dataset.description()


def test_what_was_dropped_is_printed_by_the_plan_and_by_embed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_release(tmp_path, [(pair,) for pair in SINGLE] * 4)
    description = read_dataset(folder).description()
    assert description[2] == "36 pairs read, 28 kept, 8 dropped"
    assert main(["embed", "--data", str(folder), "--encoder", "demo-words"]) == 0
    assert "\n".join(description) in capsys.readouterr().out
    flags = ["--data", str(folder), "--pairs", "demo-words+demo-words", "--ablation", "1", "--results", str(tmp_path)]
    assert GRID.main([*flags, "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert all(f"data      {line}\n" in printed for line in description)


def test_a_pair_that_the_merge_drops_needs_no_files(tmp_path: Path) -> None:
    folder = make_release(tmp_path, [((POS, POS),), ((POS, NEG),)])
    (folder / "data" / "7001.jpg").unlink()
    assert read_dataset(folder).guids == ["7002"]


LIST = "labelResultAll.txt"
BAD = {
    "unknown label": (edit(LIST, "7002\tpositive", "7002\thappy"), r"All\.txt:3: unknown label 'happy'"),
    "no tab": (edit(LIST, "7002\t", "7002 "), r"All\.txt:3: '7002 positive,positive' is not an ID"),
    "one label": (edit(LIST, "7002\tpositive,positive", "7002\tpositive"), r"All\.txt:3"),
    "two annotators": (edit(LIST, "7002\t", "7002\tpositive,positive\t"), r"All\.txt:3: .* one or three columns"),
    "columns that change": (edit(LIST, "7002\t", "7002\tneutral,neutral\tneutral,neutral\t"), r"All\.txt:3: 3 columns"),
    "listed twice": (
        edit(LIST, "7002\t", "7003\t"),
        r"All\.txt:3: guid 7003 is listed twice \(.*All\.txt:2 has it too",
    ),
    "id that climbs": (edit(LIST, "7002\t", "../7002\t"), r"All\.txt:3: .* may not leave the data folder"),
    "empty": (lambda folder: (folder / LIST).write_text("ID\ttext,image\n"), "has no samples"),
    "no picture": (
        lambda folder: (folder / "data" / "7002.jpg").unlink(),
        r"1 of 3 samples has no picture.*7002\.jpg",
    ),
    "no text": (lambda folder: (folder / "data" / "7002.txt").unlink(), r"1 of 3 samples has no text.*7002\.txt"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_release_is_reported_in_one_line(tmp_path: Path, case: str) -> None:
    folder = make_release(tmp_path, [((POS, POS),)] * 3)
    spoil, message = BAD[case]
    spoil(folder)
    with pytest.raises(InputError, match=message) as caught:
        read_dataset(folder)
    assert "\n" not in str(caught.value)


def test_marks_windows_line_ends_and_capitals_change_nothing(tmp_path: Path) -> None:
    folder = make_release(tmp_path, [(pair,) for pair in SINGLE])
    plain = read_dataset(folder).fingerprint
    text = (folder / LIST).read_text()
    changed = re.sub(r"\bpositive\b", "Positive", text).replace("\n", " \r\n")
    (folder / LIST).write_bytes(b"\xef\xbb\xbf" + changed.encode() + b"\r\n")
    assert read_dataset(folder).fingerprint == plain
