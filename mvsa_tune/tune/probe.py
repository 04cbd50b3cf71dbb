"""Measures what fine-tuning costs, on a few samples of the data set."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from mvsa_tune.config import Config
from mvsa_tune.data.splits import Split
from mvsa_tune.finetuning.model import trainable_parameters
from mvsa_tune.finetuning.trainer import FinetuneTask, ReplicateTrainer
from mvsa_tune.tune.saved import saved_bytes

# Samples in the step that is measured.
SAMPLES = {"cpu": 8, "cuda": 64}


@dataclass(frozen=True)
class Probe:
    """What a configuration's replicate costs.

    Attributes:
        weights: parameters of encoders and head.
        trained: those of them that are not frozen.
        train_seconds: time of training on a sample, reading its picture included.
        score_seconds: the same for scoring it.
        sample_bytes: memory that a sample's forward pass keeps for its backward pass.
    """

    weights: int
    trained: int
    train_seconds: float
    score_seconds: float
    sample_bytes: float


def probe(config: Config, task: FinetuneTask) -> Probe:
    """Train a replicate for a step, and score; the first of each is not counted."""
    first = task.replicates[0]
    rows = task.split.train[first.fold][: SAMPLES[task.device]]
    step = replace(config, batch_size=max(2, len(rows)), accumulation=1, epochs=2)
    threads = torch.get_num_threads()
    torch.set_num_threads(task.threads)
    few = Split("few", {first.fold: rows}, {first.fold: rows}, {first.fold: rows[:0]})
    trainer = ReplicateTrainer(step, first, replace(task, split=few))
    with saved_bytes(trainer.network) as kept:
        trainer.train_epoch().cpu()
        memory = kept()
    train = _time(lambda: trainer.train_epoch())
    trainer.evaluate(trainer.validation)
    score = _time(lambda: trainer.evaluate(trainer.validation)[0])
    torch.set_num_threads(threads)
    network = trainer.network
    return Probe(
        weights=sum(parameter.numel() for parameter in network.parameters()),
        trained=sum(parameter.numel() for parameter in trainable_parameters([network])),
        train_seconds=train / len(rows),
        score_seconds=score / len(rows),
        sample_bytes=memory / len(rows),
    )


def _time(work: Callable[[], torch.Tensor]) -> float:
    started = time.perf_counter()
    work().cpu()  # waits for the device
    return time.perf_counter() - started
