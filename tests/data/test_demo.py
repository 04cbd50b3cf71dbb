from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score

from conftest import encode_pixels, encode_words
from mvsa_tune.data.dataset import Dataset, read_dataset
from mvsa_tune.data.demo import make_demo_set
from mvsa_tune.embeddings.cache import default_folder, open_cache
from mvsa_tune.encoders.registry import ENCODERS


@pytest.mark.long
def test_the_demo_set_is_the_same_every_time(demo: Dataset, tmp_path: Path) -> None:
    make_demo_set(tmp_path)
    again = read_dataset(tmp_path)
    assert again.fingerprint == demo.fingerprint
    assert all(
        first.picture.read_bytes() == second.picture.read_bytes()
        for first, second in zip(again.samples[:20], demo.samples[:20], strict=True)
    )


@pytest.mark.long
def test_a_set_whose_writing_was_interrupted_is_written_again(pairs: Dataset) -> None:
    (pairs.folder / "train.txt").unlink()
    next((pairs.folder / "data").glob("*.jpg")).unlink()
    make_demo_set(pairs.folder)
    assert read_dataset(pairs.folder).fingerprint == pairs.fingerprint


def test_the_demo_set_is_a_few_hundred_pairs_of_three_classes(demo: Dataset) -> None:
    assert len(demo.labels) == 600 and len(demo.samples) == 660
    assert np.bincount(demo.labels).min() > 50


@pytest.mark.parametrize(("encoder", "modality"), [("demo-pixels", "image"), ("demo-words", "text")])
def test_each_modality_shows_some_of_the_label_and_not_all(demo: Dataset, encoder: str, modality: str) -> None:
    cache = open_cache(demo, default_folder(demo.folder), encoder, modality)
    assert cache is not None and cache.manifest.width == ENCODERS[encoder].widths[modality]
    vectors = np.asarray(cache.vectors())[:600]
    accuracy = cross_val_score(LogisticRegression(max_iter=2000), vectors, demo.labels, cv=5).mean()
    assert np.bincount(demo.labels).max() / 600 + 0.03 < accuracy < 0.9


def test_pictures_become_their_pixels(tmp_path: Path) -> None:
    Image.new("RGB", (80, 40), (255, 0, 51)).save(tmp_path / "red.png")
    vector = encode_pixels([tmp_path / "red.png"])[0].reshape(8, 8, 3)
    np.testing.assert_allclose(vector, np.broadcast_to([1, 0, 0.2], (8, 8, 3)), atol=1e-6)


def test_words_are_counted_in_any_order_and_nothing_is_zero() -> None:
    vectors = encode_words(["so happy happy today", "today happy so happy", ""])
    np.testing.assert_array_equal(vectors[0], vectors[1])
    assert not vectors[2].any() and np.abs(vectors[0]).max() == 2
