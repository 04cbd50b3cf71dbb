"""Built-in encoders for the demo set and tests, no weights to fetch: two have no parameters, two can be trained."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mvsa_tune.encoders.towers import PictureTower, TextTower, Tower

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

TOKENS = 1024  # size of the vocabulary that words are hashed to; 0 is the padding


def _shrink(picture: "Image", size: int) -> NDArray[np.float32]:
    """Return a picture as `(size, size, 3)`, 0..255."""
    from PIL import Image

    return np.asarray(picture.resize((size, size), Image.Resampling.BOX), dtype=np.float32)


def load_pixels(modality: str, weights: Path | None, device: Any) -> Tower:
    """Load the encoder whose vectors are the picture shrunk to 8 × 8 RGB: 192 numbers in 0..1."""
    import torch

    def transform(picture: "Image") -> "torch.Tensor":
        return torch.from_numpy(_shrink(picture, 8).ravel() / 255)

    return PictureTower(torch.nn.Identity(), device, "8 x 8 RGB in 0..1", "built in", transform)


class _WordsTower(Tower):
    width = 128
    preprocessing = "counts of words, hashed to 128"
    weights = "built in"

    def prepare(self, item: str) -> str:
        return item

    def encode(self, prepared: Sequence[str]) -> "torch.Tensor":
        import torch
        from sklearn.feature_extraction.text import HashingVectorizer

        vectorizer = HashingVectorizer(n_features=self.width, norm=None, dtype=np.float32)
        return torch.from_numpy(vectorizer.transform(prepared).toarray())


def load_words(modality: str, weights: Path | None, device: Any) -> Tower:
    """Load the encoder that counts words, hashed to 128 numbers."""
    return _WordsTower()


def load_convolutions(modality: str, weights: Path | None, device: Any) -> Tower:
    """Load two convolutions over the picture at 32 × 32, averaged: 32 numbers. Its random weights never change."""
    import torch
    from torch import nn

    def transform(picture: "Image") -> "torch.Tensor":
        return torch.from_numpy(_shrink(picture, 32)).permute(2, 0, 1).contiguous() / 127.5 - 1

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        first = nn.Conv2d(3, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.ReLU()
        second = nn.Conv2d(16, 32, 3, 2, 1), nn.BatchNorm2d(32), nn.ReLU()
        model = nn.Sequential(*first, *second, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return PictureTower(model, device, "32 x 32 RGB in -1..1", "built in", transform)


def load_tokens(modality: str, weights: Path | None, device: Any) -> Tower:
    """Load a layer over the mean of the words' embeddings: 32 numbers. Its random weights never change."""
    from zlib import crc32

    import torch
    from torch import Tensor, nn

    class Bag(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(TOKENS, 32, padding_idx=0)
            self.dropout = nn.Dropout(0.1)
            self.layer = nn.Linear(32, 32)

        def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
            words = self.dropout(self.embedding(ids)) * mask[..., None]
            mean: Tensor = self.layer(words.sum(dim=1) / mask.sum(dim=1, keepdim=True))
            return mean

    def tokenize(text: str) -> list[int]:
        return [1, *(2 + crc32(word.encode()) % (TOKENS - 2) for word in text.split())]

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Bag()
    return TextTower(model, device, f"words hashed to {TOKENS}", "built in", tokenize, limit=64, width=32)
