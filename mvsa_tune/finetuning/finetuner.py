"""Fine-tunes a configuration's replicates, one after another, from checkpoint to checkpoint.

One replicate is in memory at a time, whatever their number: each is trained to the epoch at which the trial reports next, and then waits on
the disk. What is there when a trial begins is where it goes on.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mvsa_tune.config import Config, Replicate
from mvsa_tune.data.dataset import Dataset
from mvsa_tune.data.text import NORMALISERS
from mvsa_tune.encoders.registry import find_encoder
from mvsa_tune.encoders.towers import ModelTower
from mvsa_tune.errors import InputError
from mvsa_tune.finetuning.checkpoint import Checkpoints, read_about, read_tensors, write_tensors
from mvsa_tune.finetuning.data import Prepared
from mvsa_tune.finetuning.trainer import ReplicateTrainer, below
from mvsa_tune.training.result import TrialResult, join, lengthened
from mvsa_tune.training.task import Shared

OUTCOME = "outcome."  # what a checkpoint tells of its training without loading it


@dataclass(frozen=True, kw_only=True)
class FinetuneTask(Shared):
    """What every trial of a sweep that fine-tunes shares.

    Attributes:
        sweep: the results folder, in which checkpoints go.
        pictures: `(N,)` of the labelled samples.
        texts: `(N,)` theirs, normalised.
        weights: of encoders, by name, where they are not the hub's.
        recomputed: gradient checkpointing.
        checkpoint_seconds: how long a training may go on before its state is kept again; epochs are never cut.
    """

    sweep: Path
    pictures: tuple[Path, ...]
    texts: tuple[str, ...]
    weights: Mapping[str, Path]
    recomputed: bool = False
    checkpoint_seconds: float = 60.0
    # Samples prepared in this process, by encoders: a worker serves many trials, and texts are tokenised once.
    prepared: dict[tuple[tuple[str, str], ...], Prepared] = field(default_factory=dict, compare=False, repr=False)

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
        """Pictures, weights that come from files, and the results folder, where checkpoints go."""
        return [*self.pictures, *self.weights.values(), self.sweep / "sweep.json"]

    def scores_gone_past(self, configs: Sequence[Config]) -> dict[str, NDArray[np.float64]]:
        """Return the scores of the configurations that have checkpoints, as `Shared.scores_gone_past` says."""
        begun = [config for config in configs if Checkpoints(self.sweep, config).folder.exists()]
        scores = {config.id: self.build(config, self.replicates).scores_gone_past() for config in begun}
        return {config_id: curve for config_id, curve in scores.items() if len(curve)}

    def build(self, config: Config, replicates: Sequence[Replicate]) -> "FineTuner":
        """Return the training of a configuration's replicates, which goes on from their checkpoints."""
        return FineTuner(config, self, replicates)

    def prepare(self, config: Config) -> Prepared:
        """The samples, for the towers of a configuration's encoders."""
        key = tuple(config.encoders.items())
        if key not in self.prepared:
            towers = load_towers(config, self.weights)
            device = torch.device(self.device)
            self.prepared[key] = Prepared(towers, self.pictures, self.texts, self.threads, device)
        return self.prepared[key]


def load_towers(config: Config, weights: Mapping[str, Path]) -> dict[str, ModelTower]:
    """The towers of a configuration's encoders, by modality, on the CPU; each is loaded once a process.

    Raises:
        InputError: an encoder is unknown, has no such side or no weights to train, or those cannot be had.
    """
    return {modality: _load(name, modality, weights.get(name)) for modality, name in config.encoders.items()}


@lru_cache(maxsize=8)
def _load(name: str, modality: str, weights: Path | None) -> ModelTower:
    encoder = find_encoder(name)
    if encoder is None:
        raise InputError(
            f"unknown encoder {name}: `python -m mvsa_tune encoders` lists those there are, and open names"
        )
    if modality not in encoder.widths:
        raise InputError(f"encoder {name} has no {modality} side; write pairs as IMAGE_ENCODER+TEXT_ENCODER")
    tower = encoder.load(modality, weights, torch.device("cpu"))
    if not isinstance(tower, ModelTower) or not list(tower.model.parameters()):
        raise InputError(f"encoder {name} has no weights that could be fine-tuned")
    return tower


class FineTuner:
    """The replicates of one configuration, trained one after another: what a trial of Ray Tune advances."""

    def __init__(self, config: Config, task: FinetuneTask, replicates: Sequence[Replicate]) -> None:
        self.config = config
        self.task = task
        self.replicates = replicates
        self.device = torch.device(task.device)
        self.checkpoints = Checkpoints(task.sweep, config)
        self.found = [self._recorded(replicate) for replicate in replicates]
        self.current: tuple[int, ReplicateTrainer] | None = None  # the one in memory, and its place
        self.saved = time.monotonic()

    @property
    def epoch(self) -> int:
        """Epochs that the furthest replicate has been trained for: none goes past a report that others have not come to."""
        return max(epochs_of(found) for found in self.found)

    @property
    def progress(self) -> float:
        """Share of the whole trial that is done."""
        return sum(map(epochs_of, self.found)) / (len(self.found) * self.config.epochs)

    def scores_gone_past(self) -> NDArray[np.float64]:
        """`TrialResult.scores` up to the last milestone that the scheduler has let the trial go past, for its rungs."""
        past = max((end for end in self.task.milestones if end < self.epoch), default=0)
        found = [one for one in self.found if one is not None]
        return np.mean([one.scores[:past] for one in found], axis=0) if past else np.empty(0)

    def advance(self, until: int) -> TrialResult | None:
        """Train one more epoch of the first replicate that has not come to epoch `until`; the outcome once all have, else None.

        Raises:
            InputError: a checkpoint is damaged, or a picture cannot be read.
            OSError: a checkpoint cannot be written.
        """
        behind = [place for place, found in enumerate(self.found) if epochs_of(found) < until]
        if behind:
            self._epoch(behind[0], until)
        whole = [found for found in self.found if found is not None and found.epochs >= until]
        return join(whole) if len(whole) == len(self.found) else None

    def _epoch(self, place: int, until: int) -> None:
        trainer = self._trainer(place)
        found = trainer.advance(trainer.epoch + 1)
        if found.diverged.any():
            # It is trained no further, and its checkpoint stays the one from before.
            self.found[place] = lengthened(found, until)
            self.current = None
            return
        self.found[place] = found
        replicate = self.replicates[place]
        if found.best_epoch[0] == found.epochs:
            about = {"seed": replicate.seed, "fold": replicate.fold, "epoch": found.epochs}
            write_tensors(self.checkpoints.best(replicate), trainer.network.state_dict(), about)
        if found.epochs == until or time.monotonic() - self.saved >= self.task.checkpoint_seconds:
            arrays = {name: one for name, one in vars(found).items() if isinstance(one, np.ndarray) and one.size}
            outcome = {f"{OUTCOME}{name}": torch.from_numpy(one) for name, one in arrays.items()}
            told = {"seconds": found.seconds, "device": found.device, "select": found.select}
            write_tensors(self.checkpoints.last(replicate), {**trainer.state(), **outcome}, told)
            self.saved = time.monotonic()

    def _trainer(self, place: int) -> ReplicateTrainer:
        if self.current is None or self.current[0] != place:
            self.current = None  # before the next one needs the memory
            replicate = self.replicates[place]
            trainer = ReplicateTrainer(
                self.config,
                replicate,
                self.task.prepare(self.config),
                torch.from_numpy(self.task.labels).to(self.device),
                self.task.classes,
                self.task.split.train[replicate.fold],
                self.task.split.validation[replicate.fold],
                self.task.split.test[replicate.fold],
                recomputed=self.task.recomputed,
            )
            if self.found[place] is not None:
                trainer.load_state(read_tensors(self.checkpoints.last(replicate)))
            self.current = place, trainer
            self.saved = time.monotonic()
        return self.current[1]

    def _recorded(self, replicate: Replicate) -> TrialResult | None:
        """What a replicate had found when its state was kept."""
        path = self.checkpoints.last(replicate)
        if not path.exists():
            return None
        arrays: dict[str, Any] = {
            name: one.numpy() for name, one in below(OUTCOME, read_tensors(path, [OUTCOME])).items()
        }
        return TrialResult(**arrays, **read_about(path))


def epochs_of(found: TrialResult | None) -> int:
    """Epochs of an outcome; 0 of none."""
    return found.epochs if found else 0
