"""Trains a stack of replicates of one configuration. Pure torch: nothing here knows of Ray or of files.

Replicate r's numbers are a function of its configuration, seed and fold alone: initial weights, minibatch order and
dropout come from its own generators, and nothing is reduced across replicates.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from mvsa_tune import metrics
from mvsa_tune.config import Config, Replicate
from mvsa_tune.heads import build_head, initialise

# Samples scored at once: bounds the memory of an evaluation whatever the size of the split.
EVALUATION_BLOCK = 4096


def normalised(vectors: Tensor, how: str) -> Tensor:
    """Raw vectors `(N, width)` as a head takes them: as they are (`none`), or each scaled to length 1 (`l2`)."""
    return F.normalize(vectors) if how == "l2" else vectors


@dataclass(frozen=True)
class Samples:
    """The labelled samples on the device.

    Attributes:
        vectors: by modality, `(N, width)`; training runs in their number format.
        labels: `(N,)` int64.
        classes: number of classes.
    """

    vectors: Mapping[str, Tensor]
    labels: Tensor
    classes: int


@dataclass(frozen=True)
class Outcome:
    """What a trial has found by its E-th epoch. R replicates, N validation samples, C classes.

    Attributes:
        train_loss: `(E, R)` mean cross-entropy over the epoch's minibatches, dropout on.
        val_loss: `(E, R)` mean cross-entropy on the validation samples.
        confusion: `(E, R, C, C)` validation counts, true class down, predicted across.
        rows: `(R, N)` row numbers of the validation samples.
        best: `(R, N)` classes predicted at each replicate's best epoch.
        last: `(R, N)` classes predicted after epoch E.
        seconds: time of the whole stack, in seconds.
        device: where it was trained.
    """

    train_loss: NDArray[np.float32]
    val_loss: NDArray[np.float32]
    confusion: NDArray[np.int32]
    rows: NDArray[np.int32]
    best: NDArray[np.uint8]
    last: NDArray[np.uint8]
    seconds: float
    device: str

    @property
    def epochs(self) -> int:
        """E."""
        return len(self.confusion)

    @property
    def accuracy(self) -> NDArray[np.float64]:
        """`(E, R)` validation accuracy."""
        return metrics.accuracy(self.confusion)

    @property
    def scores(self) -> NDArray[np.float64]:
        """`(E,)` what a sweep maximises: the best validation accuracy so far, averaged over replicates."""
        return np.maximum.accumulate(self.accuracy, axis=0).mean(axis=1)

    @property
    def best_epoch(self) -> NDArray[np.int64]:
        """`(R,)` the epoch, from 1, of the best validation accuracy; of equals the first."""
        return self.accuracy.argmax(axis=0) + 1

    @property
    def diverged(self) -> NDArray[np.int64]:
        """`(R,)` the first epoch, from 1, at which a loss was not finite; 0 where all were."""
        bad = ~(np.isfinite(self.train_loss) & np.isfinite(self.val_loss))
        return np.where(bad.any(axis=0), bad.argmax(axis=0) + 1, 0)


def generators(replicate: Replicate, device: torch.device) -> tuple[torch.Generator, torch.Generator, torch.Generator]:
    """Return a replicate's own generators: for weights and order (on the CPU, so equal on every device), and dropout."""
    seeds = np.random.SeedSequence([replicate.seed, replicate.fold]).generate_state(3)
    devices = (torch.device("cpu"), torch.device("cpu"), device)
    weights, order, dropout = (
        torch.Generator(device=place).manual_seed(int(seed)) for place, seed in zip(devices, seeds, strict=True)
    )
    return weights, order, dropout


def minibatches(count: int, batch_size: int) -> Iterator[slice]:
    """Cut `count` samples into minibatches.

    The last one holds what is left. A single sample left over joins the minibatch before it (BatchNorm cannot normalise
    one sample), so every sample is trained on once an epoch and no minibatch holds one sample.
    """
    start = 0
    while start < count:
        stop = min(start + batch_size, count)
        if count - stop == 1:
            stop = count
        yield slice(start, stop)
        start = stop


class StackTrainer:
    """A configuration's head for R replicates, trained as one batched program."""

    def __init__(
        self,
        config: Config,
        replicates: Sequence[Replicate],
        samples: Samples,
        train_rows: Tensor,
        val_rows: Tensor,
    ) -> None:
        """Build the stack.

        Args:
            config: what to train.
            replicates: the R seeds and folds.
            samples: vectors and labels, already on the device to train on.
            train_rows: `(R, n)` row numbers of each replicate's training samples.
            val_rows: `(R, N)` the same for validation.
        """
        self.config = config
        self.samples = samples
        self.device = samples.labels.device
        self.train_rows = train_rows.cpu()
        self.val_rows = val_rows.to(self.device)
        weights, self.order, dropout = zip(*(generators(one, self.device) for one in replicates), strict=True)
        widths = {modality: samples.vectors[modality].shape[1] for modality in config.modalities}
        self.head = build_head(config.head, len(replicates), widths, config.D, samples.classes, config.dropout)
        initialise(self.head, weights, dropout)
        self.head.to(self.device, next(iter(samples.vectors.values())).dtype)
        # Adam sees each replicate's slices as parameters of their own, so that its rounding, too, is what the replicate
        # gets alone: over a whole stack an element's place in the tensor decides how the kernel rounds it.
        self.stacks = list(self.head.parameters())
        self.slices = [stack.detach().unbind() for stack in self.stacks]
        groups = [{"params": list(own)} for own in zip(*self.slices, strict=True)]
        # Without weight decay this is Adam.
        self.optimizer = torch.optim.AdamW(groups, lr=config.lr, weight_decay=config.weight_decay, fused=True)
        self.curves: dict[str, list[Tensor]] = {"train_loss": [], "val_loss": [], "confusion": []}
        self.best = self.last = torch.zeros_like(self.val_rows)
        self.best_right = torch.full((len(self.best), 1), -1, device=self.device)
        self.seconds = 0.0

    def train_epoch(self) -> Tensor:
        """Pass once over the training samples, each replicate in its own order; return the mean losses `(R,)`."""
        self.head.train()
        # (R, n): the minibatch order of the whole epoch
        rows = torch.stack(
            [own[torch.randperm(len(own), generator=g)] for own, g in zip(self.train_rows, self.order, strict=True)]
        ).to(self.device)
        total = torch.zeros(len(rows), device=self.device)
        for batch in minibatches(rows.shape[1], self.config.batch_size):
            losses = self.losses(rows[:, batch], self.config.label_smoothing)[0].mean(dim=1)  # (R,)
            # A sum over replicates: each one's gradient is that of its own loss.
            losses.sum().backward()
            self.step()
            total += losses.detach() * (batch.stop - batch.start)
        return total / rows.shape[1]

    def step(self) -> None:
        """Take one step of AdamW along the gradients, and forget them."""
        for stack, slices in zip(self.stacks, self.slices, strict=True):
            assert stack.grad is not None
            for own, gradient in zip(slices, stack.grad.unbind(), strict=True):
                own.grad = gradient
            stack.grad = None
        self.optimizer.step()

    def losses(self, rows: Tensor, smoothing: float = 0.0) -> tuple[Tensor, Tensor]:
        """Run the head on samples: rows `(R, B)` → cross-entropies `(R, B)` and logits `(R, C, B)`."""
        inputs = {
            modality: vectors.index_select(0, rows.reshape(-1)).view(*rows.shape, -1).transpose(1, 2)
            for modality, vectors in self.samples.vectors.items()
            if modality in self.config.modalities
        }
        mixed = self.config.precision == "bf16"
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=mixed):
            logits = self.head(inputs)
        logits = logits.float() if mixed else logits
        labels = self.samples.labels[rows]
        return F.cross_entropy(logits, labels, reduction="none", label_smoothing=smoothing), logits

    @torch.no_grad()
    def evaluate(self) -> tuple[Tensor, Tensor]:
        """Score the validation samples; return mean losses `(R,)` and predicted classes `(R, N)`."""
        self.head.eval()
        losses, classes = [], []
        for rows in self.val_rows.split(EVALUATION_BLOCK, dim=1):
            loss, logits = self.losses(rows)
            losses.append(loss)
            classes.append(logits.argmax(dim=1))
        return torch.cat(losses, dim=1).mean(dim=1), torch.cat(classes, dim=1)

    def confusion(self, predicted: Tensor) -> Tensor:
        """Count validation samples by true and predicted class: `(R, N)` → `(R, C, C)`."""
        classes = self.samples.classes
        cells = self.samples.labels[self.val_rows] * classes + predicted
        counts = torch.zeros(len(cells), classes * classes, dtype=torch.int64, device=self.device)
        return counts.scatter_add_(1, cells, torch.ones_like(cells)).view(-1, classes, classes)

    @property
    def epoch(self) -> int:
        """Epochs trained so far."""
        return len(self.curves["confusion"])

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
        curves = {name: torch.stack(curve).cpu().numpy() for name, curve in self.curves.items()}
        self.seconds += time.perf_counter() - started
        return Outcome(
            train_loss=curves["train_loss"],
            val_loss=curves["val_loss"],
            confusion=curves["confusion"].astype(np.int32),
            rows=self.val_rows.cpu().numpy().astype(np.int32),
            best=self.best.cpu().numpy().astype(np.uint8),
            last=self.last.cpu().numpy().astype(np.uint8),
            seconds=self.seconds,
            device=device_name(self.device),
        )


def device_name(device: torch.device) -> str:
    """Name a device for a person: `cpu`, or the GPU's own name."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
