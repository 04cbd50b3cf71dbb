"""Name → what an encoder is and how to load it. Adding one is one entry in `ENCODERS`."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]
EncodePictures = Callable[[Sequence[Path]], Vectors]
EncodeTexts = Callable[[Sequence[str]], Vectors]


@dataclass(frozen=True)
class Encoder:
    """What a name stands for.

    Attributes:
        widths: length of its vectors by modality; the modalities it has are the keys.
        preprocessing: what happens to a sample before it, for the manifest.
        pictures: encodes picture files, `(n, width)` float32; None where vectors can only be imported.
        texts: the same for texts.
    """

    widths: Mapping[str, int]
    preprocessing: str
    pictures: EncodePictures | None = None
    texts: EncodeTexts | None = None


def encode_pixels(paths: Sequence[Path]) -> Vectors:
    """The picture shrunk to 8 × 8 RGB, in 0..1: `(n, 192)`. For the demo set and tests; needs no weights."""
    from PIL import Image

    vectors = np.empty((len(paths), 192), dtype=np.float32)
    for row, path in enumerate(paths):
        with Image.open(path) as picture:
            small = picture.convert("RGB").resize((8, 8), Image.Resampling.BOX)
        vectors[row] = np.asarray(small, dtype=np.float32).ravel() / 255
    return vectors


def encode_words(texts: Sequence[str]) -> Vectors:
    """Hashed counts of words: `(n, 128)`. For the demo set and tests; needs no weights."""
    from sklearn.feature_extraction.text import HashingVectorizer

    vectorizer = HashingVectorizer(n_features=128, norm=None, dtype=np.float32)
    vectors: Vectors = vectorizer.transform(texts).toarray()
    return vectors


ENCODERS: dict[str, Encoder] = {
    "clip-vit-b-32": Encoder({"image": 512, "text": 512}, "CLIP's own"),
    "clip-vit-l-14": Encoder({"image": 768, "text": 768}, "CLIP's own"),
    "resnet50": Encoder({"image": 1000}, "Resize(256), CenterCrop(224), ImageNet mean and std"),
    "roberta-base": Encoder({"text": 768}, "the documents' normalisation, 128 tokens"),
    "demo-pixels": Encoder({"image": 192}, "8 x 8 RGB in 0..1", pictures=encode_pixels),
    "demo-words": Encoder({"text": 128}, "counts of words, hashed to 128", texts=encode_words),
}
