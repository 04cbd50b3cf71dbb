"""Trains a stack of replicates of one configuration. Pure torch: nothing here knows of Ray or of files.

Replicate r's numbers are a function of its configuration, seed and fold alone: initial weights, minibatch order and
dropout come from its own generators, and nothing is reduced across replicates.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from mvsa_tune.config import Config, Replicate
from mvsa_tune.heads import build_head, initialise
from mvsa_tune.trainer import Trainer

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


class StackTrainer(Trainer):
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
        super().__init__(config, samples.labels, samples.classes, val_rows)
        self.samples = samples
        self.train_rows = train_rows.cpu()
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
