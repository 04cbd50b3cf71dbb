"""Fine-tunes the replicates of a configuration one after another, encoders and head together.

trainer = task.build(config, replicates)  # continues from the checkpoints that there are
while (result := trainer.advance(config.epochs)) is None: ...  # each call trains one epoch of one replicate, or more

A replicate's numbers are a function of configuration, seed and fold alone, as in a stack. The head's weights, the order
of the samples and the head's dropout come from the same generators: with encoders that do not move the head trains as
on frozen ones. Only one replicate is in memory at a time, the others wait on the disk.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from mvsa_tune.config import Config, Replicate
from mvsa_tune.data.dataset import Dataset
from mvsa_tune.data.text import NORMALISERS
from mvsa_tune.finetuning import model
from mvsa_tune.finetuning.checkpoint import Checkpoints, read_tensors, write_tensors
from mvsa_tune.models.layers import initialise
from mvsa_tune.training.result import Curves, TrialResult, join, lengthened
from mvsa_tune.training.task import Shared
from mvsa_tune.training.trainer import Part, Trainer, generators, minibatches

# Prefixes of the tensors in a replicate's last state.
NETWORK, OPTIMIZER, GENERATOR, RECORDS, RESULT = "network.", "optimizer.", "generator.", "records.", "outcome."


@dataclass(frozen=True, kw_only=True)
class FinetuneTask(Shared):
    """What the trials of a sweep that fine-tunes share.

    Attributes:
        sweep: the results folder, where checkpoints go.
        pictures: `(N,)` pictures of the labelled samples.
        texts: `(N,)` their texts, normalised.
        weights: files or folders of encoders' weights, by name; other encoders are loaded from the hub.
        recomputed: use gradient checkpointing: less memory, more time, the same numbers.
        checkpoint_seconds: save a replicate's state at the first epoch that ends after this many seconds.
        prepared: the samples prepared in this process for later trials, by encoders.
    """

    sweep: Path
    pictures: tuple[Path, ...]
    texts: tuple[str, ...]
    weights: Mapping[str, Path]
    recomputed: bool = False
    checkpoint_seconds: float = 60.0
    prepared: dict[tuple[tuple[str, str], ...], model.PreparedSamples] = field(
        default_factory=dict, compare=False, repr=False
    )

    @classmethod
    def on(cls, dataset: Dataset, text: str, sweep: Path, weights: Mapping[str, Path], **fields: Any) -> "FinetuneTask":
        """Return the task on a data set's labelled samples, whose tweets go through the normalisation called `text`."""
        labelled = dataset.samples[: len(dataset.labels)]
        return cls(
            labels=np.array(dataset.labels, dtype=np.int64),
            classes=len(dataset.classes),
            sweep=sweep.absolute(),
            pictures=tuple(sample.picture.absolute() for sample in labelled),
            texts=tuple(NORMALISERS[text](sample.text) for sample in labelled),
            weights={name: path.absolute() for name, path in weights.items()},
            **fields,
        )

    @property
    def files(self) -> list[Path]:
        """Plug-ins, pictures, weights that come from files, and the results folder, where checkpoints go."""
        return [*super().files, *self.pictures, *self.weights.values(), self.sweep / "sweep.json"]

    def scores_gone_past(self, configs: Sequence[Config]) -> dict[str, NDArray[np.float64]]:
        """Return the scores of the configurations that have checkpoints (see `Shared.scores_gone_past`)."""
        begun = [config for config in configs if Checkpoints(self.sweep, config).folder.exists()]
        scores = {config.id: self.build(config, self.replicates).scores_gone_past() for config in begun}
        return {config_id: curve for config_id, curve in scores.items() if len(curve)}

    def build(self, config: Config, replicates: Sequence[Replicate]) -> "FineTuner":
        """Return the training of a configuration's replicates, which continues from their checkpoints."""
        return FineTuner(config, self, replicates)

    def samples(self, config: Config) -> model.PreparedSamples:
        """Return the samples, prepared for a configuration's encoders."""
        key = tuple(config.encoders.items())
        if key not in self.prepared:
            towers, device = model.load_towers(config, self.weights), torch.device(self.device)
            self.prepared[key] = model.PreparedSamples(towers, self.pictures, self.texts, self.threads, device)
        return self.prepared[key]


class ReplicateTrainer(Trainer):
    """One replicate of a configuration: encoders and head, trained end to end."""

    def __init__(self, config: Config, replicate: Replicate, task: FinetuneTask) -> None:
        """Begin with copies of the pretrained encoders and a new head."""
        labels = torch.from_numpy(task.labels).to(task.device)
        self.train_rows, validation, test = (
            rows[replicate.fold] for rows in (task.split.train, task.split.validation, task.split.test)
        )
        super().__init__(config, labels, task.classes, [torch.from_numpy(validation)], [torch.from_numpy(test)])
        self.samples = task.samples(config)
        self.batches = minibatches(len(self.train_rows), config.batch_size)
        weights, self.order, self.dropout = generators(replicate, self.device)
        seed = int(np.random.SeedSequence([replicate.seed, replicate.fold]).generate_state(4)[3])
        self.random_states = model.random_states(seed, self.device)  # `generators` uses the first three numbers
        self.network = model.build_network(config, self.samples.towers, task.classes)
        initialise(self.network.head, [weights], [self.dropout])
        self.network.to(self.device)
        encoders = list(self.network.encoders.values())
        for encoder in encoders:
            model.freeze(encoder, config.frozen)
            if task.recomputed:
                model.recompute(encoder)
        groups = [
            {"params": model.trainable_parameters(encoders), "lr": config.encoder_lr},
            {"params": model.trainable_parameters([self.network.head]), "lr": config.lr},
        ]
        self.optimizer = torch.optim.AdamW(groups, weight_decay=config.weight_decay, fused=True)

    def train_epoch(self) -> Tensor:
        """Pass once over the training samples in the replicate's order; return the mean loss `(1,)`."""
        model.train_mode(self.network, self.config.batchnorm)
        rows = self.train_rows[torch.randperm(len(self.train_rows), generator=self.order).numpy()]
        batches = [parts(rows[batch], self.config.accumulation) for batch in self.batches]
        inputs = self.samples.batches([part for batch in batches for part in batch])
        total = torch.zeros(1, device=self.device)
        with model.drawing_from(self.random_states, self.device):
            for step, batch in enumerate(batches):
                count = sum(map(len, batch))
                for part in batch:
                    labels = self.labels[torch.from_numpy(part).to(self.device)]
                    logits, smoothing = self.logits(next(inputs)), self.config.label_smoothing
                    loss = F.cross_entropy(logits, labels, reduction="sum", label_smoothing=smoothing) / count
                    loss.backward()
                    total += loss.detach() * count
                for group, rate in zip(self.optimizer.param_groups, self.rates(step), strict=True):
                    group["lr"] = rate
                self.optimizer.step()
                self.optimizer.zero_grad(set_to_none=True)
        return total / len(rows)

    def logits(self, inputs: model.Inputs) -> Tensor:
        """Return the logits `(B, C)` of B samples, float32."""
        mixed = self.config.precision == "bf16"
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=mixed):
            return self.network(inputs).float()

    def rates(self, step: int) -> tuple[float, float]:
        """Return the learning rates of encoders and head in a step of the epoch; they keep their ratio."""
        rate = self.rate(0, step, len(self.batches))
        return rate * self.config.encoder_lr / self.config.lr, rate

    @torch.no_grad()
    def evaluate(self, part: Part) -> tuple[Tensor, Tensor]:
        """Score samples; return the mean loss `(1,)` and the predicted classes `(1, N)`."""
        self.network.eval()
        rows = part.rows[0]
        blocks = rows.cpu().split(max(1, self.config.batch_size // self.config.accumulation))
        logits = torch.cat([self.logits(inputs) for inputs in self.samples.batches([rows.numpy() for rows in blocks])])
        return F.cross_entropy(logits, self.labels[rows])[None], logits.argmax(dim=1)[None]

    def state(self) -> dict[str, Tensor]:
        """Return all that the next epoch depends on, and the curves so far."""
        moments = self.optimizer.state_dict()["state"]
        generator_states = {"order": self.order.get_state(), "dropout": self.dropout.get_state()}
        groups = {
            NETWORK: self.network.state_dict(),
            OPTIMIZER: {f"{key}.{name}": tensor for key, kept in moments.items() for name, tensor in kept.items()},
            GENERATOR: generator_states | {f"noise{i}": state for i, state in enumerate(self.random_states)},
            RECORDS: self.records(),
        }
        return {f"{prefix}{name}": tensor for prefix, group in groups.items() for name, tensor in group.items()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Continue from what `state` returned, as if there had been no interruption."""

        def group(prefix: str) -> dict[str, Tensor]:
            return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}

        self.network.load_state_dict(group(NETWORK))
        moments: dict[int, dict[str, Tensor]] = {}
        for name, tensor in group(OPTIMIZER).items():
            key, _, kind = name.partition(".")
            moments.setdefault(int(key), {})[kind] = tensor
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": moments})
        states = {name: tensor.cpu() for name, tensor in group(GENERATOR).items()}
        self.order.set_state(states["order"])
        self.dropout.set_state(states["dropout"])
        self.random_states = [states[f"noise{i}"] for i in range(len(self.random_states))]
        self.restore(group(RECORDS))


def parts(rows: NDArray[np.int64], count: int) -> Sequence[NDArray[np.int64]]:
    """Cut a minibatch into `count` nearly equal parts, fewer if one would hold one sample (BatchNorm needs two)."""
    return np.array_split(rows, max(1, min(count, len(rows) // 2)))


class FineTuner:
    """The replicates of one configuration, trained one after another: what a trial of Ray Tune advances."""

    def __init__(self, config: Config, task: FinetuneTask, replicates: Sequence[Replicate]) -> None:
        """Read how far the checkpoints are; InputError if one is damaged."""
        self.config, self.task, self.replicates = config, task, replicates
        self.checkpoints = Checkpoints(task.sweep, config)
        # Each replicate's result so far; None before its first epoch.
        self.results = [read_result(self.checkpoints.last(replicate)) for replicate in replicates]
        self.current: tuple[int, ReplicateTrainer] | None = None  # index and trainer of the replicate in memory
        self.saved = time.monotonic()

    @property
    def epochs(self) -> list[int]:
        """Number of epochs that each replicate is trained for."""
        return [result.epochs if result else 0 for result in self.results]

    @property
    def epoch(self) -> int:
        """Number of epochs of the furthest replicate: all reach a milestone before one is trained beyond it."""
        return max(self.epochs)

    @property
    def progress(self) -> float:
        """Trained share of the whole trial."""
        return sum(self.epochs) / (len(self.results) * self.config.epochs)

    def scores_gone_past(self) -> NDArray[np.float64]:
        """Return `TrialResult.scores` up to the last milestone that the trial was continued after."""
        past = max((milestone for milestone in self.task.milestones if milestone < self.epoch), default=0)
        scores = [result.scores[:past] for result in self.results if result is not None]
        return np.mean(scores, axis=0) if past else np.empty(0)

    @property
    def so_far(self) -> Curves:
        """The curves up to now; there must be an epoch."""
        return Curves.of(*filter(None, self.results))

    def advance(self, until: int, at_most: float = 0.0) -> TrialResult | None:
        """Train an epoch of the first replicate below epoch `until`, and more of them until `at_most` seconds are past.

        Return the trial's result once no replicate is below, else None.

        Raises:
            InputError: a checkpoint is damaged, or a picture cannot be read.
            OSError: a checkpoint cannot be written.
        """
        started = time.monotonic()
        while behind := [index for index, epochs in enumerate(self.epochs) if epochs < until]:
            self._train_epoch(behind[0], until)
            if time.monotonic() - started >= at_most:
                break
        results = [result for result in self.results if result is not None and result.epochs >= until]
        return join(results) if len(results) == len(self.results) else None

    def _train_epoch(self, index: int, until: int) -> None:
        trainer, replicate = self._trainer(index), self.replicates[index]
        trainer.train(trainer.epoch + 1)
        result = trainer.result()
        if result.diverged.any():  # train it no further; its last checkpoint stays
            self.results[index], self.current = lengthened(result, until), None
            return
        self.results[index] = result
        if result.best_epoch[0] == result.epochs:
            about = {"seed": replicate.seed, "fold": replicate.fold, "epoch": result.epochs}
            write_tensors(self.checkpoints.best(replicate), trainer.network.state_dict(), about)
        if result.epochs == until or time.monotonic() - self.saved >= self.task.checkpoint_seconds:
            arrays = {f"{RESULT}{name}": torch.from_numpy(array) for name, array in result.arrays.items()}
            about = {name: getattr(result, name) for name in ("seconds", "device", "select")}
            write_tensors(self.checkpoints.last(replicate), trainer.state() | arrays, about)
            self.saved = time.monotonic()

    def _trainer(self, index: int) -> ReplicateTrainer:
        if self.current is None or self.current[0] != index:
            self.current = None  # frees the memory first
            trainer = ReplicateTrainer(self.config, self.replicates[index], self.task)
            if self.results[index] is not None:
                trainer.load_state(read_tensors(self.checkpoints.last(self.replicates[index]))[0])
            self.current, self.saved = (index, trainer), time.monotonic()
        return self.current[1]


def read_result(path: Path) -> TrialResult | None:
    """Return the result in a replicate's last state without loading the rest; None if there is no such file."""
    if not path.exists():
        return None
    tensors, about = read_tensors(path, RESULT)
    arrays: dict[str, Any] = {name: tensor.numpy() for name, tensor in tensors.items()}
    return TrialResult(**arrays, **about)
