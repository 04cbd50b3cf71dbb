"""Samples as encoders take them: texts are tokenised once; threads read and prepare pictures ahead of the training.

samples = PreparedSamples(towers, pictures, texts, threads=2, device=torch.device("cpu"))
for inputs in samples.batches([np.arange(32)]): ...  # by modality, what the encoder takes
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mvsa_tune.data.images import UnreadablePictureError, open_picture
from mvsa_tune.embeddings.pipeline import prefetch, preparing_threads
from mvsa_tune.encoders.towers import ModelTower
from mvsa_tune.errors import InputError

AHEAD = 4  # batches whose pictures are prepared before they are requested


class PreparedSamples:
    """The samples of a data set, for the towers of one configuration."""

    def __init__(
        self,
        towers: Mapping[str, ModelTower],
        pictures: Sequence[Path],
        texts: Sequence[str],
        threads: int,
        device: torch.device,
    ) -> None:
        """Tokenise the texts.

        Args:
            towers: by modality.
            pictures: `(N,)` the samples' pictures.
            texts: `(N,)` their texts, normalised.
            threads: number of threads that prepare pictures.
            device: where the batches go.
        """
        self.towers, self.pictures, self.threads, self.device = towers, pictures, threads, device
        self.tokens = [towers["text"].prepare(text) for text in texts] if "text" in towers else []

    def batches(self, rows: Sequence[NDArray[np.int64]]) -> Iterator[dict[str, tuple[Tensor, ...]]]:
        """Yield, for the row numbers of each batch, the encoders' inputs by modality, on the device.

        Raises:
            InputError: a picture cannot be read.
        """
        with preparing_threads(self.threads) as pool:
            ahead = AHEAD * max(map(len, rows), default=0)
            ready = prefetch(pool, self._prepare, (int(row) for batch in rows for row in batch), ahead)
            for batch in rows:
                items = [next(ready) for _ in batch]
                yield {
                    modality: tuple(map(self._move, tower.collate([item[modality] for item in items])))
                    for modality, tower in self.towers.items()
                }

    def _prepare(self, row: int) -> dict[str, Any]:
        item: dict[str, Any] = {"text": self.tokens[row]} if self.tokens else {}
        if "image" in self.towers:
            try:
                item["image"] = self.towers["image"].prepare(open_picture(self.pictures[row]))
            except UnreadablePictureError as error:
                raise InputError(f"{self.pictures[row]} cannot be read: {error}") from None
        return item

    def _move(self, tensor: Tensor) -> Tensor:
        if self.device.type != "cuda":
            return tensor
        return tensor.pin_memory().to(self.device, non_blocking=True)
