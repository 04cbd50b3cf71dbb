"""What every training is: epoch by epoch, with curves, and each replicate's best and last predictions kept."""

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from mvsa_tune.config import Config
from mvsa_tune.outcome import Outcome


class Trainer(ABC):
    """Trains R replicates of a configuration side by side. How an epoch is trained and scored is the subclass's."""

    def __init__(self, config: Config, labels: Tensor, classes: int, val_rows: Tensor) -> None:
        """Begin with no epoch trained.

        Args:
            config: what to train.
            labels: `(N,)` int64 of all labelled samples, on the device to train on.
            classes: number of classes.
            val_rows: `(R, N)` row numbers of each replicate's validation samples.
        """
        self.config = config
        self.labels = labels
        self.classes = classes
        self.device = labels.device
        self.val_rows = val_rows.to(self.device)
        self.curves: dict[str, list[Tensor]] = {"train_loss": [], "val_loss": [], "confusion": []}
        self.best = self.last = torch.zeros_like(self.val_rows)
        self.best_right = torch.full((len(self.best), 1), -1, device=self.device)
        self.seconds = 0.0

    @abstractmethod
    def train_epoch(self) -> Tensor:
        """Pass once over the training samples, each replicate in its own order; return the mean losses `(R,)`."""

    @abstractmethod
    def evaluate(self) -> tuple[Tensor, Tensor]:
        """Score the validation samples; return mean losses `(R,)` and predicted classes `(R, N)`."""

    def confusion(self, predicted: Tensor) -> Tensor:
        """Count validation samples by true and predicted class: `(R, N)` → `(R, C, C)`."""
        cells = self.labels[self.val_rows] * self.classes + predicted
        counts = torch.zeros(len(cells), self.classes**2, dtype=torch.int64, device=self.device)
        return counts.scatter_add_(1, cells, torch.ones_like(cells)).view(-1, self.classes, self.classes)

    @property
    def epoch(self) -> int:
        """Epochs trained so far."""
        return len(self.curves["confusion"])

    @property
    def progress(self) -> float:
        """Share of the whole training that is done."""
        return self.epoch / self.config.epochs

    def fit(self) -> Outcome:
        """Train to the last epoch."""
        return self.advance(self.config.epochs)

    def advance(self, until: int) -> Outcome:
        """Train up to epoch `until`, evaluating after each. Nothing waits for the device before the end.

        However a training is cut into calls, its numbers are the same.
        """
        started = time.perf_counter()
        while self.epoch < until:
            self.curves["train_loss"].append(self.train_epoch())
            loss, self.last = self.evaluate()
            self.curves["val_loss"].append(loss)
            confusion = self.confusion(self.last)
            right = confusion.diagonal(dim1=1, dim2=2).sum(dim=1, keepdim=True)
            self.best = torch.where(right > self.best_right, self.last, self.best)
            self.best_right = torch.maximum(right, self.best_right)
            self.curves["confusion"].append(confusion)
        records = {name: tensor.cpu() for name, tensor in self.records().items()}
        self.seconds += time.perf_counter() - started
        return outcome_of(
            {**records, "seconds": torch.tensor(self.seconds, dtype=torch.float64)}, self.val_rows, self.device
        )

    def records(self) -> dict[str, Tensor]:
        """What has been found so far: what `outcome_of` and `restore` take."""
        curves = {name: torch.stack(curve) for name, curve in self.curves.items()}
        seconds = torch.tensor(self.seconds, dtype=torch.float64)
        return {**curves, "best": self.best, "last": self.last, "best_right": self.best_right, "seconds": seconds}

    def restore(self, records: Mapping[str, Tensor]) -> None:
        """Go on from what `records` gave."""
        self.curves = {name: list(records[name].to(self.device).unbind()) for name in self.curves}
        self.best, self.last, self.best_right = (
            records[name].to(self.device) for name in ("best", "last", "best_right")
        )
        self.seconds = float(records["seconds"])


def outcome_of(records: Mapping[str, Tensor], val_rows: Tensor, device: torch.device) -> Outcome:
    """The outcome of a training's `records`."""
    found = {name: tensor.cpu().numpy() for name, tensor in records.items()}
    return Outcome(
        train_loss=found["train_loss"],
        val_loss=found["val_loss"],
        confusion=found["confusion"].astype(np.int32),
        rows=val_rows.cpu().numpy().astype(np.int32),
        best=found["best"].astype(np.uint8),
        last=found["last"].astype(np.uint8),
        seconds=float(found["seconds"]),
        device=device_name(device),
    )


def device_name(device: torch.device) -> str:
    """Name a device for a person: `cpu`, or the GPU's own name."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
