"""What every training is: epoch by epoch, with its curves and every epoch's predictions kept."""

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from mvsa_tune.config import Config
from mvsa_tune.training.result import CURVES, NO_CLASS, NO_ROW, TEST_CURVES, TrialResult
from mvsa_tune.training.schedules import Plateau, factor


@dataclass(frozen=True)
class Part:
    """The samples that R replicates are scored on.

    Attributes:
        rows: `(R, N)` row numbers on the device, `NO_ROW` behind those of a replicate that has fewer than N.
        sizes: how many each has.
    """

    rows: Tensor
    sizes: tuple[int, ...]

    @cached_property
    def present(self) -> Tensor:
        """`(R, N)` where there is a row."""
        return self.rows != NO_ROW


class Trainer(ABC):
    """Trains R replicates of a configuration side by side. How an epoch is trained and scored is the subclass's."""

    def __init__(
        self,
        config: Config,
        labels: Tensor,
        classes: int,
        val_rows: Sequence[Tensor],
        test_rows: Sequence[Tensor] = (),
    ) -> None:
        """Begin with no epoch trained.

        Args:
            config: what to train.
            labels: `(N,)` int64 of all labelled samples, on the device to train on.
            classes: number of classes.
            val_rows: row numbers of each of the R replicates' validation samples.
            test_rows: the same for the test samples, if the split has any.
        """
        self.config = config
        self.labels = labels
        self.classes = classes
        self.device = labels.device
        self.validation = self._part(val_rows)
        self.test = self._part(test_rows) if any(map(len, test_rows)) else None
        self.curves: dict[str, list[Tensor]] = {name: [] for name in (*CURVES, *(TEST_CURVES if self.test else ()))}
        self.plateaus = [Plateau(config.lr) for _ in val_rows]
        self.seconds = 0.0

    def _part(self, rows: Sequence[Tensor]) -> Part:
        together = pad_sequence(list(rows), batch_first=True, padding_value=NO_ROW)
        return Part(together.to(self.device), tuple(map(len, rows)))

    @abstractmethod
    def train_epoch(self) -> Tensor:
        """Pass once over the training samples, each replicate in its own order; return the mean losses `(R,)`."""

    @abstractmethod
    def evaluate(self, part: Part) -> tuple[Tensor, Tensor]:
        """Score samples; return mean losses `(R,)` and predicted classes `(R, N)`, those behind a replicate's own 0."""

    def rate(self, r: int, step: int, steps: int) -> float:
        """Replicate r's learning rate in step `step` (from 0) of the `steps` of its epoch."""
        done, every = self.epoch * steps + step, self.config.epochs * steps
        return self.plateaus[r].lr * factor(self.config.schedule, self.config.warmup, done, every)

    def _observe(self, loss: Tensor) -> None:
        """Lower the learning rates of the replicates whose validation loss stalls, where the schedule says so."""
        if self.config.schedule == "plateau":
            for plateau, own in zip(self.plateaus, loss.tolist(), strict=True):  # waits for the device
                plateau.observe(own)

    def confusion(self, part: Part, predicted: Tensor) -> Tensor:
        """Count a part's samples by true and predicted class: `(R, N)` → `(R, C, C)`."""
        cells = self.labels[part.rows.clamp(min=0)] * self.classes + predicted
        counts = torch.zeros(len(cells), self.classes**2, dtype=torch.int64, device=self.device)
        return counts.scatter_add_(1, cells, part.present.long()).view(-1, self.classes, self.classes)

    @property
    def epoch(self) -> int:
        """Epochs trained so far."""
        return len(self.curves["confusion"])

    @property
    def progress(self) -> float:
        """Share of the whole training that is done."""
        return self.epoch / self.config.epochs

    def fit(self) -> TrialResult:
        """Train to the last epoch."""
        return self.advance(self.config.epochs)

    def advance(self, until: int) -> TrialResult:
        """Train up to epoch `until`, evaluating after each. But for a plateau nothing waits for the device before the end.

        However a training is cut into calls, its numbers are the same.
        """
        started = time.perf_counter()
        while self.epoch < until:
            found = {"train_loss": self.train_epoch()}
            found["val_loss"], predicted = self.evaluate(self.validation)
            found |= {"confusion": self.confusion(self.validation, predicted), "predicted": predicted.byte()}
            if self.test:
                _, predicted = self.evaluate(self.test)
                found |= {"test_confusion": self.confusion(self.test, predicted), "test_predicted": predicted.byte()}
            for name, one in found.items():
                self.curves[name].append(one)
            self._observe(found["val_loss"])
        arrays = self._arrays()  # waits for the device
        self.seconds += time.perf_counter() - started
        return TrialResult(**arrays, seconds=self.seconds, device=device_name(self.device), select=self.config.select)

    def _arrays(self) -> dict[str, np.ndarray]:
        """The arrays of an `TrialResult`."""
        arrays = {name: torch.stack(curve).cpu().numpy() for name, curve in self.curves.items()}
        for prefix, part in {"": self.validation, "test_": self.test}.items():
            if part:
                absent = ~part.present.cpu().numpy()
                arrays[f"{prefix}confusion"] = arrays[f"{prefix}confusion"].astype(np.int32)
                arrays[f"{prefix}predicted"][:, absent] = NO_CLASS
                arrays[f"{prefix}rows"] = part.rows.cpu().numpy().astype(np.int32)
                labels = self.labels[part.rows.clamp(min=0)].byte().cpu().numpy()
                arrays[f"{prefix}labels"] = np.where(absent, np.uint8(NO_CLASS), labels)
        return arrays

    def records(self) -> dict[str, Tensor]:
        """What has been found so far, for `restore`."""
        found = {name: torch.stack(curve) for name, curve in self.curves.items()}
        return {**found, "seconds": torch.tensor(self.seconds, dtype=torch.float64)}

    def restore(self, records: Mapping[str, Tensor]) -> None:
        """Go on from what `records` gave."""
        self.curves = {name: list(records[name].to(self.device).unbind()) for name in self.curves}
        self.seconds = float(records["seconds"])
        for loss in self.curves["val_loss"]:
            self._observe(loss)


def device_name(device: torch.device) -> str:
    """Name a device for a person: `cpu`, or the GPU's own name."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
