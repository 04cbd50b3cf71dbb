"""Built-in encoders for the demo set and for tests: two that only count, and two small ones to fine-tune. No weights to fetch."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mvsa_tune.encoders.towers import PictureTower, TextTower, Tower

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image


def load_pixels(modality: str, weights: Path | None, device: Any) -> Tower:
    """The picture shrunk to 8 × 8 RGB, in 0..1: 192 numbers. For the demo set and tests; needs no weights."""
    import numpy as np
    import torch
    from PIL import Image as Pillow

    def transform(picture: "Image") -> "torch.Tensor":
        small = picture.resize((8, 8), Pillow.Resampling.BOX)
        return torch.from_numpy(np.asarray(small, dtype=np.float32).ravel() / 255)

    return PictureTower(torch.nn.Identity(), transform, "8 x 8 RGB in 0..1", "built in", device)


class WordsTower(Tower):
    """Counts of words, hashed to 128 numbers. For the demo set and tests; needs no weights."""

    width = 128
    preprocessing = "counts of words, hashed to 128"
    weights = "built in"

    def prepare(self, item: str) -> str:
        """A text as it is."""
        return item

    def encode(self, prepared: Sequence[str]) -> "torch.Tensor":
        """Count and hash."""
        import numpy as np
        import torch
        from sklearn.feature_extraction.text import HashingVectorizer

        vectorizer = HashingVectorizer(n_features=self.width, norm=None, dtype=np.float32)
        return torch.from_numpy(vectorizer.transform(prepared).toarray())


def load_words(modality: str, weights: Path | None, device: Any) -> Tower:
    """Return the `WordsTower`."""
    return WordsTower()


TOKENS = 1024  # that words are hashed to; 0 is the padding


def load_convolutions(modality: str, weights: Path | None, device: Any) -> Tower:
    """Two convolutions over the picture at 32 × 32, averaged: 32 numbers. Its weights are drawn at random, the same every time."""
    import numpy as np
    import torch
    from PIL import Image as Pillow
    from torch import nn

    def transform(picture: "Image") -> "torch.Tensor":
        small = np.asarray(picture.resize((32, 32), Pillow.Resampling.BOX), dtype=np.float32)
        return torch.from_numpy(small).permute(2, 0, 1).contiguous() / 127.5 - 1

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers = [
            nn.Conv2d(3, 16, 3, 2, 1),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, 2, 1),
            nn.BatchNorm2d(32),
        ]
        model = nn.Sequential(*layers, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return PictureTower(model, transform, "32 x 32 RGB in -1..1", "built in", device)


def load_tokens(modality: str, weights: Path | None, device: Any) -> Tower:
    """The mean of the words' embeddings, through a layer: 32 numbers. Its weights are drawn at random, the same every time."""
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

    def tokens(text: str) -> list[int]:
        return [1, *(2 + crc32(word.encode()) % (TOKENS - 2) for word in text.split())]

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Bag().eval().to(device)
    return TextTower(model, tokens, 64, 32, (f"words hashed to {TOKENS}", "built in"), device)
