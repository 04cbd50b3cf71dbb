"""Trains replicates of one configuration, epoch by epoch. Pure torch: nothing here knows of Ray or of files.

Replicate r's numbers are a function of its configuration, seed and fold alone: initial weights, minibatch order and
dropout come from its own generators, and nothing is reduced across replicates.
"""

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from mvsa_tune.config import Config, Replicate
from mvsa_tune.models.heads import build_head
from mvsa_tune.models.layers import ConcatHead, initialise, run_some
from mvsa_tune.models.matmul import library
from mvsa_tune.training.optimizer import StackedAdamW, lr_factor, plateau
from mvsa_tune.training.result import CURVES, NO_CLASS, NO_ROW, TEST_CURVES, Curves, TrialResult

if TYPE_CHECKING:
    from mvsa_tune.training.compiled import CompiledHead

Members = slice | list[int]  # replicates of a stack: all of them, or those listed
ALL = slice(None)
Key = TypeVar("Key", bound=Hashable)
IN_MEMORY = 2**30  # bytes of vectors that are converted at once; larger ones are converted by minibatch
EVALUATION_BLOCK = 4096  # samples scored at once: bounds the memory of an evaluation


@dataclass(frozen=True)
class Part:
    """The samples that R replicates are scored on."""

    rows: Tensor  # (R, N) row numbers on the device, padded with `NO_ROW`
    sizes: tuple[int, ...]  # each replicate's number of samples

    @classmethod
    def of(cls, rows: Sequence[Tensor], device: torch.device) -> "Part":
        """Put each replicate's row numbers on the device."""
        padded = pad_sequence(list(rows), batch_first=True, padding_value=NO_ROW)
        return cls(padded.to(device), tuple(map(len, rows)))


class Trainer(ABC):
    """Trains R replicates of a configuration side by side; a subclass says how an epoch is trained and scored."""

    def __init__(
        self, config: Config, labels: Tensor, classes: int, val_rows: Sequence[Tensor], test_rows: Sequence[Tensor] = ()
    ) -> None:
        """Prepare to train on the device of `labels`, all labelled samples' `(N,)` int64; rows are by replicate."""
        self.config, self.labels, self.classes, self.device = config, labels, classes, labels.device
        self.validation = Part.of(val_rows, self.device)
        self.parts = {"": self.validation}  # by the prefix of their arrays in a `TrialResult`
        if any(map(len, test_rows)):
            self.parts["test_"] = Part.of(test_rows, self.device)
        names = CURVES + TEST_CURVES if "test_" in self.parts else CURVES
        self.curves: dict[str, list[Tensor]] = {name: [] for name in names}
        self.plateaus = [plateau(config.lr) for _ in val_rows] if config.schedule == "plateau" else []
        self.trained_at: list[float] = []  # when each epoch was, in seconds since 1970
        self.seconds = 0.0

    @abstractmethod
    def train_epoch(self) -> Tensor:
        """Pass once over the training samples, each replicate in its own order; return the mean losses `(R,)`."""

    @abstractmethod
    def evaluate(self, part: Part) -> tuple[Tensor, Tensor]:
        """Score samples; return mean losses `(R,)` and predicted classes `(R, N)`, 0 in the padding."""

    def rate(self, r: int, step: int, steps: int) -> float:
        """Return replicate r's learning rate in step `step` (from 0) of the `steps` of its epoch."""
        lr = float(self.plateaus[r].get_last_lr()[0]) if self.plateaus else self.config.lr
        total = self.config.epochs * steps
        return lr * lr_factor(self.config.schedule, self.config.warmup, self.epoch * steps + step, total)

    def _observe(self, losses: Tensor) -> None:
        """Pass the validation losses `(R,)` to the schedule `plateau`."""
        if self.plateaus:
            for scheduler, loss in zip(self.plateaus, losses.tolist(), strict=True):
                scheduler.step(loss)

    def confusion(self, part: Part, predicted: Tensor) -> Tensor:
        """Count a part's samples by true and predicted class: `(R, N)` → `(R, C, C)`."""
        cells = self.labels[part.rows.clamp(min=0)] * self.classes + predicted
        counts = torch.zeros(len(cells), self.classes**2, dtype=torch.int64, device=self.device)
        return counts.scatter_add_(1, cells, (part.rows != NO_ROW).long()).view(-1, self.classes, self.classes)

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
        self.train(self.config.epochs)
        return self.result()

    def advance(self, until: int, at_most: float = math.inf) -> TrialResult | None:
        """Train up to epoch `until` and return the result, or None where `at_most` seconds have passed before."""
        self.train(until, at_most)
        return self.result() if self.epoch >= until else None

    def train(self, until: int, at_most: float = math.inf) -> None:
        """Train up to epoch `until`, scoring after each epoch, or until `at_most` seconds have passed.

        The numbers do not depend on how many calls it takes.
        """
        started = time.perf_counter()
        while self.epoch < until:
            values = {"train_loss": self.train_epoch()}
            for prefix, part in self.parts.items():
                loss, predicted = self.evaluate(part)
                values[f"{prefix}confusion"] = self.confusion(part, predicted)
                values[f"{prefix}predicted"] = predicted.byte()
                if part is self.validation:
                    values["val_loss"] = loss
            for name, value in values.items():
                self.curves[name].append(value)
            self._observe(values["val_loss"])
            self.trained_at.append(time.time())
            if time.perf_counter() - started >= at_most:
                break
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.seconds += time.perf_counter() - started

    def result(self) -> TrialResult:
        """Return the result up to now."""
        arrays = self._arrays()
        device = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "cpu"
        matmul, select = library(self.device), self.config.select
        return TrialResult(**arrays, seconds=self.seconds, device=device, matmul=matmul, select=select)

    @property
    def so_far(self) -> Curves:
        """The curves up to now."""
        return Curves.of(self.result())

    def _arrays(self) -> dict[str, np.ndarray]:
        """Return the arrays of a `TrialResult`."""
        arrays = {name: torch.stack(curve).cpu().numpy() for name, curve in self.curves.items()}
        for prefix, part in self.parts.items():
            rows, labels = part.rows.cpu().numpy(), self.labels[part.rows.clamp(min=0)].byte().cpu().numpy()
            arrays[f"{prefix}confusion"] = arrays[f"{prefix}confusion"].astype(np.int32)
            arrays[f"{prefix}predicted"][:, rows == NO_ROW] = NO_CLASS
            arrays[f"{prefix}rows"] = rows.astype(np.int32)
            arrays[f"{prefix}labels"] = np.where(rows == NO_ROW, np.uint8(NO_CLASS), labels)
        arrays["trained_at"] = np.repeat([self.trained_at], len(self.validation.sizes), axis=0).T
        return arrays

    def records(self) -> dict[str, Tensor]:
        """Return the curves and the seconds so far, for `restore`."""
        curves = {name: torch.stack(curve) for name, curve in self.curves.items()}
        times = {"seconds": self.seconds, "trained_at": self.trained_at}
        return {**curves, **{name: torch.tensor(value, dtype=torch.float64) for name, value in times.items()}}

    def restore(self, records: Mapping[str, Tensor]) -> None:
        """Continue from what `records` returned."""
        self.curves = {name: list(records[name].to(self.device).unbind()) for name in self.curves}
        self.seconds = float(records["seconds"])
        unknown = torch.full((self.epoch,), math.nan)  # in a checkpoint of an earlier version
        self.trained_at = records.get("trained_at", unknown).tolist()
        for losses in self.curves["val_loss"]:
            self._observe(losses)


def normalised(vectors: Tensor, how: str) -> Tensor:
    """Return vectors `(N, width)` as a head takes them: as they are (`none`), or each scaled to length 1 (`l2`)."""
    return F.normalize(vectors) if how == "l2" else vectors


@dataclass(frozen=True)
class Samples:
    """The labelled samples on the device; training runs in the vectors' number format, at least float32."""

    vectors: Mapping[str, Tensor]  # by modality, (N, width)
    labels: Tensor  # (N,) int64
    classes: int


def generators(replicate: Replicate, device: torch.device) -> tuple[torch.Generator, torch.Generator, torch.Generator]:
    """Return a replicate's generators of weights, sample order and dropout; the first two are on the CPU."""
    seeds = map(int, np.random.SeedSequence([replicate.seed, replicate.fold]).generate_state(3))
    weights, order, dropout = torch.Generator(), torch.Generator(), torch.Generator(device)
    for generator, seed in zip((weights, order, dropout), seeds, strict=True):
        generator.manual_seed(seed)
    return weights, order, dropout


def minibatches(count: int, batch_size: int) -> list[slice]:
    """Cut `count` samples into minibatches; the last one holds the rest.

    A single sample left over joins the minibatch before it: BatchNorm cannot normalise one sample.
    """
    ends = [end for end in range(batch_size, count, batch_size) if end != count - 1] + [count]
    return [slice(start, end) for start, end in zip([0, *ends], ends, strict=False)]


def grouped(keys: Sequence[Key | None]) -> dict[Key, Members]:
    """Return which of R replicates have each key, None left out; `ALL` if all have the same."""
    groups: dict[Key, list[int]] = {}
    for r, key in enumerate(keys):
        if key is not None:
            groups.setdefault(key, []).append(r)
    return {key: ALL if len(which) == len(keys) else which for key, which in groups.items()}


def epoch_steps(counts: Sequence[int], batch_size: int) -> list[list[tuple[slice, Members]]]:
    """Return the steps of an epoch of R replicates with `counts` training samples.

    A step is a list of minibatches, each with the replicates that it is for: those whose minibatch has the same length.
    Where counts differ, these are all of them except in the last steps. So no minibatch is padded, and each is the one
    that the replicate gets when it is trained alone.
    """
    ends = [[(batch.start, batch.stop) for batch in minibatches(count, batch_size)] for count in counts]
    return [[(slice(*batch), which) for batch, which in grouped(step).items()] for step in zip_longest(*ends)]


class StackTrainer(Trainer):
    """Trains a configuration's head for R replicates: as one batched program, or in compiled loops (`compiled`)."""

    def __init__(
        self,
        config: Config,
        replicates: Sequence[Replicate],
        samples: Samples,
        train_rows: Sequence[Tensor],
        val_rows: Sequence[Tensor],
        test_rows: Sequence[Tensor] = (),
    ) -> None:
        """Build the stack; rows are row numbers of each replicate's samples, `samples` on the device to train on."""
        super().__init__(config, samples.labels, samples.classes, val_rows, test_rows)
        self.samples = samples
        self.train_rows = [rows.cpu() for rows in train_rows]
        counts = [len(rows) for rows in self.train_rows]
        self.counts = torch.tensor(counts, device=self.device)
        self.steps = epoch_steps(counts, config.batch_size)
        self.step_counts = [len(minibatches(count, config.batch_size)) for count in counts]
        weights, self.order, dropout = zip(*(generators(r, self.device) for r in replicates), strict=True)
        vectors = {modality: samples.vectors[modality] for modality in config.modalities}
        widths = {modality: tensor.shape[1] for modality, tensor in vectors.items()}
        self.head = build_head(config.head, len(replicates), widths, config.D, samples.classes, config.dropout)
        initialise(self.head, weights, dropout)
        self.dtype = torch.promote_types(next(iter(samples.vectors.values())).dtype, torch.float32)
        # Mixed precision rounds the vectors in every step: doing it once gives the same and gathers half the bytes.
        self.input_dtype = torch.bfloat16 if config.precision == "bf16" else self.dtype
        self.vectors = {m: v if 4 * v.numel() > IN_MEMORY else v.to(self.input_dtype) for m, v in vectors.items()}
        self.head.to(self.device, self.dtype)
        self.optimizer = StackedAdamW(self.head.parameters(), config.weight_decay)
        self.compiled = self._compiled()

    def _compiled(self) -> "CompiledHead | None":
        """Return what trains the reference's head on a CPU in float32; other trainings are left to autograd."""
        if not isinstance(self.head, ConcatHead) or self.device.type != "cpu" or self.input_dtype != torch.float32:
            return None
        from mvsa_tune.training.compiled import CompiledHead  # Numba takes a while to import

        return CompiledHead(self.head, self.optimizer, list(self.vectors.values()), self.labels, self.config)

    def train_epoch(self) -> Tensor:
        """Pass once over the training samples, each replicate in its own order; return the mean losses `(R,)`."""
        self.head.train()
        # The minibatch order of the whole epoch
        orders = [r[torch.randperm(len(r), generator=g)] for r, g in zip(self.train_rows, self.order, strict=True)]
        if self.compiled:
            return self._train_compiled(self.compiled, orders) / self.counts
        rows = pad_sequence(orders, batch_first=True).to(self.device)
        total = torch.zeros(len(rows), device=self.device)
        for number, step in enumerate(self.steps):
            for batch, which in step:
                losses = self.losses(rows[which, batch], which, self.config.label_smoothing)[0]  # (R, B)
                # The minibatch means summed over replicates: each gets the gradient of its own loss.
                losses.backward(torch.full_like(losses, 1 / losses.shape[1]))
                total[which] += losses.detach().sum(dim=1)
            # None for a replicate whose epoch is over
            counts = enumerate(self.step_counts)
            self.optimizer.step([self.rate(r, number, count) if number < count else None for r, count in counts])
        return total / self.counts

    def _train_compiled(self, compiled: "CompiledHead", orders: Sequence[Tensor]) -> Tensor:
        """Pass once over the training samples, replicate after replicate; return the sums of their losses `(R,)`."""
        sums = []
        for r, order in enumerate(orders):
            batches = [order[batch] for batch in minibatches(len(order), self.config.batch_size)]
            rates = [self.rate(r, number, len(batches)) for number in range(len(batches))]
            sums.append(compiled.train(r, batches, rates))
        return torch.tensor(sums)

    def losses(self, rows: Tensor, which: Members = ALL, smoothing: float = 0.0) -> tuple[Tensor, Tensor]:
        """Run the heads of `which` on rows `(R, B)`; return cross-entropies `(R, B)` and logits `(R, C, B)`."""
        inputs = {
            modality: vectors.index_select(0, rows.reshape(-1)).to(self.input_dtype).view(*rows.shape, -1).mT
            for modality, vectors in self.vectors.items()
        }
        mixed = self.config.precision == "bf16"
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=mixed):
            logits = self.head(inputs) if isinstance(which, slice) else run_some(self.head, which, inputs)
        logits = logits.float() if mixed else logits
        labels = self.labels[rows]
        return F.cross_entropy(logits, labels, reduction="none", label_smoothing=smoothing), logits

    @torch.no_grad()
    def evaluate(self, part: Part) -> tuple[Tensor, Tensor]:
        """Score samples; return mean losses `(R,)` and predicted classes `(R, N)`, 0 in the padding."""
        self.head.eval()
        means = torch.zeros(len(part.sizes), dtype=self.dtype, device=self.device)
        classes = torch.zeros_like(part.rows)
        for size, which in grouped(part.sizes).items():
            blocks = [self.losses(rows, which) for rows in part.rows[which, :size].split(EVALUATION_BLOCK, dim=1)]
            means[which] = torch.cat([losses for losses, _ in blocks], dim=1).mean(dim=1)
            classes[which, :size] = torch.cat([logits.argmax(dim=1) for _, logits in blocks], dim=1)
        return means, classes
