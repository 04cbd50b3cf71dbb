import json
import re
from pathlib import Path

import numpy as np
import pytest

from conftest import make_set
from mvsa_tune.cli import main
from mvsa_tune.data.dataset import read_dataset
from mvsa_tune.embeddings.cache import default_folder, open_cache


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """A set, with vectors.npy in reversed order, ids.txt beside it, and vectors.json in list order."""
    dataset = read_dataset(make_set(tmp_path))
    vectors = np.arange(88, dtype=np.float32).reshape(44, 2)
    np.save(tmp_path / "vectors.npy", vectors[::-1])
    (tmp_path / "ids.txt").write_text("\n".join(dataset.guids[::-1]) + "\n")
    content = {"img_feats": vectors.tolist(), "txt_feats": (-vectors).tolist(), "labels": []}
    (tmp_path / "vectors.json").write_text(json.dumps(content))
    return tmp_path


def bring(folder: Path, *arguments: object, modality: str = "image") -> int:
    return main(["import", "--data", str(folder), "--encoder", "eye", "--modality", modality, *map(str, arguments)])


def stored(folder: Path, modality: str = "image") -> np.ndarray:
    cache = open_cache(read_dataset(folder), default_folder(folder), "eye", modality)
    assert cache is not None
    return np.asarray(cache.vectors())


def test_rows_follow_their_ids(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert bring(made, "--ids", made / "ids.txt", made / "vectors.npy") == 0
    np.testing.assert_array_equal(stored(made), np.arange(88).reshape(44, 2))
    assert "44 vectors of width 2" in capsys.readouterr().out


def test_older_json_files_are_in_list_order(made: Path) -> None:
    assert bring(made, made / "vectors.json") == 0
    assert bring(made, made / "vectors.json", modality="text") == 0
    np.testing.assert_array_equal(stored(made), np.arange(88).reshape(44, 2))
    np.testing.assert_array_equal(stored(made, "text"), -np.arange(88).reshape(44, 2))


def test_one_json_file_a_list_is_joined_in_order(made: Path) -> None:
    rows = json.loads((made / "vectors.json").read_text())["img_feats"]
    (made / "train.json").write_text(json.dumps({"img_feats": rows[:40]}))
    (made / "test.json").write_text(json.dumps({"img_feats": rows[40:]}))
    assert bring(made, made / "train.json", made / "test.json") == 0
    np.testing.assert_array_equal(stored(made), np.arange(88).reshape(44, 2))


def npy(folder: Path, array: object, *, pickled: bool = False) -> list[object]:
    np.save(folder / "bad.npy", np.asarray(array), allow_pickle=pickled)
    return ["--ids", folder / "ids.txt", folder / "bad.npy"]


def ids(folder: Path, *lines: str) -> list[object]:
    (folder / "bad.txt").write_text("\n".join(lines))
    return ["--ids", folder / "bad.txt", folder / "vectors.npy"]


def text(folder: Path, content: str) -> list[object]:
    (folder / "bad.json").write_text(content)
    return [folder / "bad.json"]


def content(folder: Path, written: bytes) -> list[object]:
    (folder / "bad.npy").write_bytes(written)
    return ["--ids", folder / "ids.txt", folder / "bad.npy"]


def utf16(folder: Path) -> Path:
    (folder / "wide.txt").write_text("100\n", encoding="utf-16")
    return folder / "wide.txt"


def nan_row() -> np.ndarray:
    vectors = np.zeros((44, 2))
    vectors[0, 0] = np.nan
    return vectors


GUIDS = [str(number) for number in range(100, 144)]
BAD = {
    "pickled objects": (lambda f: npy(f, np.array([{}] * 44), pickled=True), "pickled objects are never loaded"),
    "not a vector file": (lambda f: ["--ids", f / "ids.txt", f / "train.txt"], "is not a plain .npy array"),
    "no such file": (lambda f: ["--ids", f / "ids.txt", f / "none.npy"], "cannot read"),
    "one dimension": (lambda f: npy(f, np.zeros(44)), "floating-point vectors"),
    "whole numbers": (lambda f: npy(f, np.zeros((44, 2), dtype=int)), "not int64 of shape"),
    "NaN": (lambda f: npy(f, nan_row()), "1 vectors hold NaN or infinite values: those of samples 143"),
    "nothing in it": (lambda f: content(f, b""), "is not a plain .npy array"),
    "half an archive": (lambda f: content(f, b"PK\x03\x04half of it"), "is not a plain .npy array"),
    "a header without end": (lambda f: content(f, b"\x93NUMPY\1\0\x08\0{'shape'"), "is not a plain .npy array"),
    "ids in UTF-16": (lambda f: ["--ids", utf16(f), f / "vectors.npy"], "is not UTF-8"),
    "no ids": (lambda f: [f / "vectors.npy"], "needs --ids"),
    "ids too few": (lambda f: ids(f, *GUIDS[:-1]), "lists 43 ids for 44 vectors"),
    "ids twice": (lambda f: ids(f, *GUIDS[:-1], "100"), "lists 1 ids twice: 100"),
    "ids of another set": (
        lambda f: ids(f, *GUIDS[:-1], "7"), r"1 sample without a vector \(143\), 1 id of no sample \(7\)"
    ),
    "not JSON": (lambda f: text(f, "{"), "is not JSON"),
    "JSON without end": (lambda f: text(f, "[" * 100_000), "is not JSON"),
    "JSON without vectors": (lambda f: text(f, "[]"), 'has no "img_feats"'),
    "JSON with ragged rows": (lambda f: text(f, '{"img_feats": [[1, 2], [3]]}'), "equally long lists"),
    "JSON of another count": (lambda f: text(f, '{"img_feats": [[1, 2]]}'), "1 rows for the 44 samples"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_vectors_that_do_not_fit_are_one_line_and_exit_code_2(
    made: Path, case: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments, told = BAD[case]
    assert bring(made, *arguments(made)) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.count("\n") == 1
    assert re.search(told, printed.err), printed.err
    assert not list(made.glob("embeddings/*/*"))


def test_values_beyond_float32_are_refused(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(made / "big.npy", np.full((44, 2), 1e300))
    assert bring(made, "--ids", made / "ids.txt", made / "big.npy") == 2
    assert "NaN or infinite" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "told"), [("clip-vit-b-32", "not image vectors of width 2"), ("a+b", "cannot be in one")]
)
def test_vectors_are_not_taken_under_a_name_they_cannot_have(
    made: Path, name: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    place = ["--data", str(made), "--ids", str(made / "ids.txt"), str(made / "vectors.npy")]
    assert main(["import", "--encoder", name, "--modality", "image", *place]) == 2
    assert told in capsys.readouterr().err


@pytest.mark.long
def test_the_real_vectors_come_in_unchanged(real: Path, tmp_path: Path) -> None:
    source = real / "embeddings"
    place = ["--data", str(real), "--cache", str(tmp_path), "--ids", str(source / "ids.txt")]
    file = source / "text_minilm.npy"
    assert main(["import", *place, "--encoder", "minilm", "--modality", "text", str(file)]) == 0
    cache = open_cache(read_dataset(real), tmp_path, "minilm", "text")
    assert cache is not None
    np.testing.assert_array_equal(cache.vectors(), np.load(file))
