"""Samples as their towers take them: texts tokenised once, pictures read and prepared in threads, ahead of the training."""

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

AHEAD = 4  # batches of pictures that are begun before they are asked for


class Prepared:
    """The samples of a data set, for the towers of one configuration."""

    def __init__(
        self,
        towers: Mapping[str, ModelTower],
        pictures: Sequence[Path],
        texts: Sequence[str],
        threads: int,
        device: torch.device,
    ) -> None:
        """Tokenise.

        Args:
            towers: by modality.
            pictures: `(N,)` the samples' pictures.
            texts: `(N,)` their texts, normalised.
            threads: that read and prepare pictures.
            device: where batches go.
        """
        self.towers, self.pictures, self.threads, self.device = towers, pictures, threads, device
        self.tokens = [towers["text"].prepare(text) for text in texts] if "text" in towers else []

    def batches(self, rows: Sequence[NDArray[np.int64]]) -> Iterator[dict[str, tuple[Tensor, ...]]]:
        """Row numbers of each batch → by modality, what its model takes, on the device.

        Raises:
            InputError: a picture cannot be read.
        """
        with preparing_threads(self.threads) as pool:
            ahead = AHEAD * max(map(len, rows), default=0)
            order = (int(row) for batch in rows for row in batch)
            ready = prefetch(pool, self._prepare, order, ahead)
            for batch in rows:
                items = [next(ready) for _ in batch]
                yield {
                    modality: tuple(self._move(one) for one in tower.collate([item[modality] for item in items]))
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
