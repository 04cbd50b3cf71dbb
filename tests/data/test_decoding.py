"""In which encoding a text is read, and what happens to one that has none."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from conftest import make_set
from mvsa_tune.data.dataset import read_dataset
from mvsa_tune.data.lists import decode
from mvsa_tune.embeddings.cache import default_folder, open_cache
from mvsa_tune.embeddings.embed import embed
from mvsa_tune.embeddings.pipeline import Settings
from mvsa_tune.errors import InputError

DECODED = {
    b"it\x92s a caf\xe9": ("it’s a café", "cp1252"),
    "“Élan” … señor – naïve".encode("cp1252"): ("“Élan” … señor – naïve", "cp1252"),
    "£50 © 2014".encode("cp1252"): ("£50 © 2014", "cp1252"),
    "天气很好…".encode("gb18030"): ("天气很好…", "gb18030"),
    "last winter – what".encode("gb18030"): ("last winter – what", "gb18030"),
    "wait… é".encode("gb18030"): ("wait… é", "gb18030"),
    "無断使用禁止 #RT".encode("gb18030"): ("無断使用禁止 #RT", "gb18030"),
    "naïve 😀".encode(): ("naïve 😀", "utf-8"),
    b"\xef\xbb\xbfplain": ("plain", "utf-8"),
    "plain é".encode("utf-16"): ("plain é", "utf-16"),
    b"": ("", "utf-8"),
}


@pytest.mark.parametrize("content", DECODED)
def test_the_encoding_is_chosen_by_what_comes_out(content: bytes) -> None:
    assert decode(content) == DECODED[content]


def test_texts_are_counted_by_encoding_and_a_mark_is_no_character(tmp_path: Path) -> None:
    plain = read_dataset(make_set(tmp_path))
    assert not any("encoding" in line for line in plain.description())
    (tmp_path / "data" / "100.txt").write_bytes(b"\xef\xbb\xbftweet 100")
    assert read_dataset(tmp_path).fingerprint == plain.fingerprint
    (tmp_path / "data" / "101.txt").write_bytes(b"it\x92s")
    (tmp_path / "data" / "102.txt").write_bytes("天气".encode("gb18030"))
    dataset = read_dataset(tmp_path)
    assert dataset.samples[1].text == "it’s" and dataset.not_utf8 == ["101", "102"]
    assert dataset.description()[-1] == "texts by encoding: utf-8 42, cp1252 1, gb18030 1"


def test_a_requested_encoding_is_that_of_what_is_not_utf8(tmp_path: Path) -> None:
    make_set(tmp_path)
    (tmp_path / "data" / "100.txt").write_text("naïve", encoding="utf-8")
    (tmp_path / "data" / "101.txt").write_bytes("天氣".encode("big5"))
    dataset = read_dataset(tmp_path, encoding="BIG5")
    assert [sample.text for sample in dataset.samples[:2]] == ["naïve", "天氣"]
    assert dataset.flags == " --encoding BIG5" and dataset.reading == {"encoding": "BIG5"}
    for name in ("klingon", "hex"):
        with pytest.raises(InputError, match=f"--encoding {name}: no such encoding"):
            read_dataset(tmp_path, encoding=name)


def test_a_text_that_cannot_be_decoded_stops_no_set_if_it_is_skipped(tmp_path: Path) -> None:
    folder = make_set(tmp_path)
    (folder / "data" / "101.txt").write_bytes(b"\xff\xff\xff")
    dataset = read_dataset(folder)
    assert len(dataset.samples) == 44 and list(dataset.undecodable) == ["101"]
    caches = default_folder(folder)
    with pytest.raises(InputError, match=r"1 texts cannot be decoded: 101\. .*--encoding, or .*--skip-bad"):
        embed(dataset, caches, "demo-words", Settings(quiet=True))
    embed(dataset, caches, "demo-words", Settings(quiet=True, skip_bad=True))
    cache = open_cache(dataset, caches, "demo-words", "text")
    assert cache is not None and list(cache.manifest.skipped) == ["101"]
    zero = np.flatnonzero(~cache.vectors().any(axis=1))
    assert 1 in zero and 0 not in zero


def test_a_text_that_cannot_be_decoded_is_nothing_to_an_encoder_of_pictures(tmp_path: Path) -> None:
    folder = make_set(tmp_path)
    (folder / "data" / "101.txt").write_bytes(b"\xff\xff\xff")
    for path in (folder / "data").glob("*.jpg"):
        Image.new("RGB", (8, 8)).save(path)
    (cache,) = embed(read_dataset(folder), default_folder(folder), "demo-pixels", Settings(quiet=True))
    assert not cache.manifest.skipped
