import json
from pathlib import Path

import numpy as np
import pytest

from conftest import make_set
from mvsa_tune.data.dataset import Dataset, read_dataset
from mvsa_tune.embeddings import draft as drafts
from mvsa_tune.embeddings.cache import Cache, cached_encoders, default_folder, open_cache
from mvsa_tune.embeddings.draft import Block, Draft, Origin, write_cache
from mvsa_tune.errors import InputError


def write(dataset: Dataset, vectors: np.ndarray | None = None, encoder: str = "eye") -> Cache:
    if vectors is None:
        vectors = np.arange(len(dataset.samples) * 3, dtype=np.float32).reshape(-1, 3)
    return write_cache(dataset, default_folder(dataset.folder), encoder, "image", vectors, Origin("none", "a test"))


def reopen(folder: Path) -> Cache | None:
    return open_cache(read_dataset(folder), default_folder(folder), "eye", "image")


@pytest.fixture
def cached(tmp_path: Path) -> Path:
    write(read_dataset(make_set(tmp_path)))
    return tmp_path


@pytest.mark.parametrize(("given", "kept"), [("float32", "float32"), ("float16", "float16"), ("float64", "float32")])
def test_what_is_written_is_what_is_read(tmp_path: Path, given: str, kept: str) -> None:
    dataset = read_dataset(make_set(tmp_path))
    vectors = np.random.default_rng(0).normal(size=(44, 5)).astype(given)
    write(dataset, vectors)
    cache = reopen(tmp_path)
    assert cache is not None
    assert cache.manifest.dtype == kept and (cache.manifest.count, cache.manifest.width) == (44, 5)
    np.testing.assert_array_equal(cache.vectors(), vectors.astype(kept))


def test_vectors_are_a_read_only_memory_map(cached: Path) -> None:
    cache = reopen(cached)
    assert cache is not None
    vectors = cache.vectors()
    assert isinstance(vectors, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        vectors[0, 0] = 1


def test_the_manifest_says_what_made_it(cached: Path) -> None:
    manifest = json.loads((cached / "embeddings" / "eye" / "image.json").read_text())
    assert manifest["encoder"] == "eye" and manifest["source"] == "a test"
    assert (cached / "embeddings" / "eye" / "image.ids.txt").read_text().split() == read_dataset(cached).guids


def test_no_manifest_is_no_cache(cached: Path) -> None:
    (cached / "embeddings" / "eye" / "image.json").unlink()
    assert reopen(cached) is None


def flip_last_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def reorder(folder: Path) -> None:
    lines = (folder / "train.txt").read_text().splitlines()
    lines[1], lines[2] = lines[2], lines[1]
    (folder / "train.txt").write_text("\n".join(lines) + "\n")


def shorten(folder: Path) -> None:
    lines = (folder / "train.txt").read_text().splitlines()
    (folder / "train.txt").write_text("\n".join(lines[:-1]) + "\n")


def rename(folder: Path) -> None:
    (folder / "train.txt").write_text((folder / "train.txt").read_text().replace("100,", "999,"))
    for suffix in ("jpg", "txt"):
        (folder / "data" / f"100.{suffix}").rename(folder / "data" / f"999.{suffix}")


MISMATCHES = {
    "other text": (lambda f: (f / "data" / "100.txt").write_text("changed"), "other texts or pictures"),
    "other picture": (lambda f: (f / "data" / "100.jpg").write_bytes(b"another"), "other texts or pictures"),
    "other count": (shorten, "holds 44 vectors, .* has 43 samples"),
    "other order": (reorder, "the same samples in another order: row 0 is 100, .* has 101 there"),
    "other samples": (rename, "other samples: row 0 is 100, .* has 999 there"),
    "damaged vectors": (
        lambda f: flip_last_byte(f / "embeddings/eye/image.npy"),
        "damaged: its SHA-256 is .* manifest says",
    ),
    "vectors cut off": (lambda f: (f / "embeddings/eye/image.npy").write_bytes(b"\x93NUMPY"), "is damaged"),
    "vectors gone": (lambda f: (f / "embeddings/eye/image.npy").unlink(), "is missing"),
    "damaged manifest": (lambda f: (f / "embeddings/eye/image.json").write_text("{"), "damaged manifest"),
}


@pytest.mark.parametrize("case", MISMATCHES)
def test_a_cache_that_does_not_fit_is_an_error_that_tells_how_to_mend_it(cached: Path, case: str) -> None:
    spoil, told = MISMATCHES[case]
    spoil(cached)
    with pytest.raises(InputError, match=told) as caught:
        reopen(cached)
    assert f"mvsa-tune import --data {cached} --encoder eye --modality image" in str(caught.value)


def test_labels_may_change_without_making_vectors_again(cached: Path) -> None:
    text = (cached / "train.txt").read_text()
    (cached / "train.txt").write_text(text.replace("100,negative", "100,positive"))
    assert reopen(cached) is not None


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_vectors_that_are_not_finite_are_refused_by_name(tmp_path: Path, bad: float) -> None:
    dataset = read_dataset(make_set(tmp_path))
    vectors = np.zeros((44, 3), dtype=np.float32)
    vectors[[3, 5], 1] = bad
    with pytest.raises(InputError, match="2 vectors hold NaN or infinite values: those of samples 103, 105"):
        write(dataset, vectors)
    assert reopen(tmp_path) is None


def test_other_shapes_and_unsafe_names_are_refused(tmp_path: Path) -> None:
    dataset = read_dataset(make_set(tmp_path))
    with pytest.raises(InputError, match="43 vectors for the 44 samples"):
        write(dataset, np.zeros((43, 3), dtype=np.float32))
    with pytest.raises(InputError, match="floating point"):
        write(dataset, np.zeros((44, 3), dtype=np.int64))
    with pytest.raises(InputError, match="width not 0"):
        write(dataset, np.zeros((44, 0), dtype=np.float32))
    with pytest.raises(InputError, match="folder's"):
        write(dataset, encoder="../elsewhere")


def test_a_write_that_fails_midway_leaves_the_cache_as_it_was(cached: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = reopen(cached)

    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    for step in ("append_synced", "sha256_of"):  # after a block; after all of them
        with monkeypatch.context() as patch:
            patch.setattr(drafts, step, full)
            with pytest.raises(InputError, match="No space left on device"):
                write(read_dataset(cached), np.zeros((44, 3), dtype=np.float32))
        assert reopen(cached) == before
        assert sorted(path.name for path in (cached / "embeddings" / "eye").iterdir()) == [
            "image.ids.txt",
            "image.json",
            "image.npy",
        ]


def test_a_write_killed_between_its_files_leaves_no_cache(cached: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_text = drafts.write_text_whole

    def killed(path: Path, text: str) -> None:
        if path.suffix == ".json":
            raise KeyboardInterrupt
        write_text(path, text)

    monkeypatch.setattr(drafts, "write_text_whole", killed)
    with pytest.raises(KeyboardInterrupt):
        write(read_dataset(cached))
    assert reopen(cached) is None


def blocks_of(vectors: np.ndarray, size: int) -> list[Block]:
    return [Block(row, vectors[row : row + size], truncated=1) for row in range(0, len(vectors), size)]


@pytest.mark.parametrize("order", [(0, 1, 2, 3, 4), (3, 1, 4, 0, 2)])
def test_a_draft_goes_on_from_its_finished_blocks_to_the_same_bytes(tmp_path: Path, order: tuple[int, ...]) -> None:
    dataset = read_dataset(make_set(tmp_path))
    vectors = np.random.default_rng(0).normal(size=(44, 3)).astype(np.float32)
    write(dataset, vectors)
    path, again = default_folder(tmp_path) / "eye" / "image.npy", tmp_path / "again" / "image.npy"
    blocks = [blocks_of(vectors, 10)[index] for index in order]
    Draft(dataset, again, "same").write(blocks[0])
    Draft(dataset, again, "same").write(blocks[1])
    with Draft(dataset, again, "same").blocks.open("a") as file:  # a block whose line was cut off
        file.write("[40, ")
    draft = Draft(dataset, again, "same")
    assert list(draft.finished) == [block.row for block in blocks[:2]]
    for block in blocks[2:]:
        draft.write(block)
    draft.finish("eye", "image", Origin("none", "a test", truncated=sum(draft.finished.values())))
    assert again.read_bytes() == path.read_bytes()
    assert sorted(file.name for file in again.parent.iterdir()) == ["image.ids.txt", "image.json", "image.npy"]


def test_a_draft_that_was_killed_while_its_file_was_made_begins_anew(tmp_path: Path) -> None:
    dataset = read_dataset(make_set(tmp_path))
    draft = Draft(dataset, tmp_path / "draft" / "image.npy", "same")
    draft.vectors.write_bytes(b"\x93NUM")
    draft = Draft(dataset, draft.path, "same")
    draft.write(Block(0, np.ones((44, 3), dtype=np.float32)))
    assert (draft.finish("eye", "image", Origin("none", "a test")).vectors() == 1).all()


def test_a_draft_of_other_settings_begins_anew(tmp_path: Path) -> None:
    dataset = read_dataset(make_set(tmp_path))
    path = tmp_path / "draft" / "image.npy"
    Draft(dataset, path, "one").write(Block(0, np.ones((10, 3), dtype=np.float16)))
    assert not Draft(dataset, path, "another").finished
    other = Draft(dataset, path, "another")
    other.write(Block(0, np.full((44, 5), 2, dtype=np.float32)))
    assert other.finish("eye", "image", Origin("none", "a test")).manifest.width == 5


def test_killed_before_the_manifest_is_written_a_draft_has_only_that_left_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = read_dataset(make_set(tmp_path))
    path = tmp_path / "draft" / "image.npy"
    draft = Draft(dataset, path, "same")
    for block in blocks_of(np.ones((44, 3), dtype=np.float32), 10):
        draft.write(block)

    def killed(*arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(drafts, "write_text_whole", killed)
        with pytest.raises(KeyboardInterrupt):
            draft.finish("eye", "image", Origin("none", "a test"))
    assert path.exists()
    draft = Draft(dataset, path, "same")
    assert list(draft.finished) == [0, 10, 20, 30, 40]
    assert (draft.finish("eye", "image", Origin("none", "a test")).vectors() == 1).all()


def test_a_cache_of_version_0_1_has_the_new_name_of_the_references_texts(tmp_path: Path) -> None:
    dataset = read_dataset(make_set(tmp_path))
    vectors = np.zeros((44, 3), dtype=np.float32)
    write_cache(dataset, default_folder(tmp_path), "ear", "text", vectors, Origin("text documents; tokens", "a test"))
    opened = open_cache(dataset, default_folder(tmp_path), "ear", "text")
    assert opened is not None and opened.manifest.preprocessing == "text reference; tokens"
    assert cached_encoders(default_folder(tmp_path))["ear"][0].preprocessing == "text reference; tokens"


def test_a_name_longer_than_a_files_has_a_cache_of_its_own(tmp_path: Path) -> None:
    dataset = read_dataset(make_set(tmp_path / "set"))
    names = [f"hf:/models/{'x' * 250}/{last}" for last in ("a", "b")]
    for name in names:
        vectors = np.zeros((len(dataset.samples), 2), dtype=np.float32)
        write_cache(dataset, tmp_path / "caches", name, "text", vectors, Origin("none", "a test"))
        assert open_cache(dataset, tmp_path / "caches", name, "text")
    assert set(cached_encoders(tmp_path / "caches")) == set(names)
