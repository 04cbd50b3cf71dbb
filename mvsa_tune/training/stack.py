"""Trains a stack of replicates of one configuration. Pure torch: nothing here knows of Ray or of files.

Replicate r's numbers are a function of its configuration, seed and fold alone: initial weights, minibatch order and
dropout come from its own generators, and nothing is reduced across replicates.
"""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from mvsa_tune.config import Config, Replicate
from mvsa_tune.models.heads import build_head
from mvsa_tune.models.layers import initialise, run_some
from mvsa_tune.training.optimizer import StackedAdamW
from mvsa_tune.training.trainer import Part, Trainer

# Which replicates of a stack: all of them, or those listed.
Members = slice | list[int]
ALL = slice(None)
Key = TypeVar("Key", bound=Hashable)
# Bytes of vectors that are converted as a whole; larger ones, a minibatch at a time.
IN_MEMORY = 2**30
# Samples scored at once: bounds the memory of an evaluation whatever the size of the split.
EVALUATION_BLOCK = 4096


def normalised(vectors: Tensor, how: str) -> Tensor:
    """Raw vectors `(N, width)` as a head takes them: as they are (`none`), or each scaled to length 1 (`l2`)."""
    return F.normalize(vectors) if how == "l2" else vectors


@dataclass(frozen=True)
class Samples:
    """The labelled samples on the device.

    Attributes:
        vectors: by modality, `(N, width)`; training runs in their number format, in float32 where that is float16.
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


def alike(keys: Sequence[Key | None]) -> dict[Key, Members]:
    """Group R replicates by their keys, leaving out those without one: key → which; `ALL` where every key is the same."""
    groups: dict[Key, list[int]] = {}
    for r, key in enumerate(keys):
        if key is not None:
            groups.setdefault(key, []).append(r)
    return {key: ALL if len(which) == len(keys) else which for key, which in groups.items()}


def epoch_steps(counts: Sequence[int], batch_size: int) -> list[list[tuple[slice, Members]]]:
    """The steps of an epoch of R replicates with so many training samples each: which minibatch is whose.

    Replicates whose minibatches of a step are of one length go together. Where counts differ that is all of them in every step
    but the last ones, so a minibatch is never padded: to the replicate it is the one that it gets alone.
    """
    return [
        [(slice(*ends), which) for ends, which in alike(step).items()]
        for step in zip_longest(*([(b.start, b.stop) for b in minibatches(count, batch_size)] for count in counts))
    ]


class StackTrainer(Trainer):
    """A configuration's head for R replicates, trained as one batched program."""

    def __init__(
        self,
        config: Config,
        replicates: Sequence[Replicate],
        samples: Samples,
        train_rows: Sequence[Tensor],
        val_rows: Sequence[Tensor],
        test_rows: Sequence[Tensor] = (),
    ) -> None:
        """Build the stack.

        Args:
            config: what to train.
            replicates: the R seeds and folds.
            samples: vectors and labels, already on the device to train on.
            train_rows: row numbers of each replicate's training samples.
            val_rows: the same for validation.
            test_rows: the same for testing, if the split has such a part.
        """
        super().__init__(config, samples.labels, samples.classes, val_rows, test_rows)
        self.samples = samples
        self.train_rows = [rows.cpu() for rows in train_rows]
        counts = [len(rows) for rows in self.train_rows]
        self.counts = torch.tensor(counts, device=self.device)
        self.steps = epoch_steps(counts, config.batch_size)
        self.own_steps = [sum(1 for _ in minibatches(count, config.batch_size)) for count in counts]
        weights, self.order, dropout = zip(*(generators(one, self.device) for one in replicates), strict=True)
        widths = {modality: samples.vectors[modality].shape[1] for modality in config.modalities}
        self.head = build_head(config.head, len(replicates), widths, config.D, samples.classes, config.dropout)
        initialise(self.head, weights, dropout)
        self.dtype = torch.promote_types(next(iter(samples.vectors.values())).dtype, torch.float32)
        # Mixed precision rounds the vectors in every step: the same once, and half to gather.
        self.narrow = torch.bfloat16 if config.precision == "bf16" else self.dtype
        used = {modality: samples.vectors[modality] for modality in config.modalities}
        self.vectors = {name: own if 4 * own.numel() > IN_MEMORY else own.to(self.narrow) for name, own in used.items()}
        self.head.to(self.device, self.dtype)
        self.optimizer = StackedAdamW(self.head.parameters(), config.weight_decay)

    def train_epoch(self) -> Tensor:
        """Pass once over the training samples, each replicate in its own order; return the mean losses `(R,)`."""
        self.head.train()
        # (R, n): the minibatch order of the whole epoch
        orders = [
            own[torch.randperm(len(own), generator=g)] for own, g in zip(self.train_rows, self.order, strict=True)
        ]
        rows = pad_sequence(orders, batch_first=True).to(self.device)
        total = torch.zeros(len(rows), device=self.device)
        for number, step in enumerate(self.steps):
            for batch, which in step:
                losses = self.losses(rows[which, batch], which, self.config.label_smoothing)[0]  # (R, B)
                # Of the mean over the minibatch, summed over replicates: each one's gradient is that of its own loss.
                losses.backward(torch.full_like(losses, 1 / losses.shape[1]))
                total[which] += losses.detach().sum(dim=1)
            # Whose epoch is over takes no step.
            self.optimizer.step(
                [self.rate(r, number, own) if number < own else None for r, own in enumerate(self.own_steps)]
            )
        return total / self.counts

    def losses(self, rows: Tensor, which: Members = ALL, smoothing: float = 0.0) -> tuple[Tensor, Tensor]:
        """Run the head of some replicates on samples: rows `(R, B)` → cross-entropies `(R, B)` and logits `(R, C, B)`."""
        inputs = {
            modality: vectors.index_select(0, rows.reshape(-1)).to(self.narrow).view(*rows.shape, -1).transpose(1, 2)
            for modality, vectors in self.vectors.items()
        }
        mixed = self.config.precision == "bf16"
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=mixed):
            logits = self.head(inputs) if isinstance(which, slice) else run_some(self.head, which, inputs)
        logits = logits.float() if mixed else logits
        labels = self.samples.labels[rows]
        return F.cross_entropy(logits, labels, reduction="none", label_smoothing=smoothing), logits

    @torch.no_grad()
    def evaluate(self, part: Part) -> tuple[Tensor, Tensor]:
        """Score samples; return mean losses `(R,)` and predicted classes `(R, N)`, those behind a replicate's own 0."""
        self.head.eval()
        means = torch.zeros(len(part.sizes), dtype=self.dtype, device=self.device)
        classes = torch.zeros_like(part.rows)
        for size, which in alike(part.sizes).items():
            blocks = [self.losses(rows, which) for rows in part.rows[which, :size].split(EVALUATION_BLOCK, dim=1)]
            means[which] = torch.cat([losses for losses, _ in blocks], dim=1).mean(dim=1)
            classes[which, :size] = torch.cat([logits.argmax(dim=1) for _, logits in blocks], dim=1)
        return means, classes
