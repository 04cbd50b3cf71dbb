"""What a plan's trials will take: a step of each configuration is trained, and scaled to the whole trial."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from mvsa_tune.config import Config
from mvsa_tune.data.splits import Split, largest_fold
from mvsa_tune.finetuning.model import trainable_parameters
from mvsa_tune.finetuning.trainer import FinetuneTask, ReplicateTrainer
from mvsa_tune.models.heads import count_parameters
from mvsa_tune.training.trainer import EVALUATION_BLOCK, Samples, StackTrainer, Trainer
from mvsa_tune.tune.plan import Cost, Plan

STACK_SAMPLES = 2**14  # of all replicates in the step that is measured: more take no less time each
FINETUNED_SAMPLES = {"cpu": 8, "cuda": 64}


@dataclass(frozen=True)
class Step:
    """What one replicate takes, measured in a step.

    Attributes:
        parameters: number of parameters that it trains.
        fixed_bytes: memory for its weights, gradients and the optimizer's state.
        sample_bytes: memory for each sample of a minibatch.
        train_seconds: time to train on a sample.
        score_seconds: time to score a sample.
    """

    parameters: int
    fixed_bytes: float
    sample_bytes: float
    train_seconds: float
    score_seconds: float


def estimate(plan: Plan) -> dict[str, Cost]:
    """Return what the trials of a plan take, by configuration id; those that cannot be measured are left out.

    Half a second for the reference's grid on a CPU. On a cluster, whose GPUs are elsewhere, times are those of this machine:
    they tell which trials take longer, not how long.
    """
    device = plan.placement.device if torch.cuda.is_available() else "cpu"
    shared = plan.task(Path())
    task = replace(shared, device=device) if isinstance(shared, FinetuneTask) else None
    costs: dict[str, Cost] = {}
    measured: dict[tuple[object, ...], Step] = {}
    threads = torch.get_num_threads()
    torch.set_num_threads(plan.placement.cpus)
    for config in plan.runnable if task else plan.configs:
        widths = {modality: plan.widths.get((name, modality), 0) for modality, name in config.encoders.items()}
        if task is None and not all(widths.values()):
            continue
        size = FINETUNED_SAMPLES[device] if task else min(config.batch_size, largest_fold(plan.split.train))
        inputs = config.encoders if task else widths
        shape = (*inputs.items(), size, config.head, config.D, config.frozen, config.precision)
        if shape not in measured:
            measured[shape] = _finetuned(config, task, size) if task else _stacked(config, plan, widths, size, device)
        costs[config.id] = _scale(config, plan, measured[shape])
    torch.set_num_threads(threads)
    return costs


def _scale(config: Config, plan: Plan, step: Step) -> Cost:
    folds = [replicate.fold for replicate in plan.replicates]
    split = plan.split
    trained = sum(len(split.train[fold]) for fold in folds)
    scored = sum(len(split.validation[fold]) + len(split.test[fold]) for fold in folds)
    at_once = min(config.batch_size, largest_fold(split.train)) / config.accumulation
    if not plan.finetuning:  # scoring takes half the memory of training, but more samples at once
        at_once = max(at_once, min(max(largest_fold(split.validation), largest_fold(split.test)), EVALUATION_BLOCK) / 2)
    in_memory = 1 if plan.finetuning else len(folds)
    return Cost(
        parameters=step.parameters,
        memory=round(in_memory * (step.fixed_bytes + at_once * step.sample_bytes)),
        seconds=config.epochs * (trained * step.train_seconds + scored * step.score_seconds),
    )


def _stacked(config: Config, plan: Plan, widths: Mapping[str, int], size: int, device: str) -> Step:
    """Measure a step of a stack on random vectors.

    Memory is four times the weights (gradients and Adam's two moments), and twice what a minibatch keeps for its backward
    pass and a copy of its vectors: as much again for gradients and for what the allocator holds. Measured memory is 0.5 to
    1.4 of that (bench/LOG.md).
    """
    replicates = plan.replicates[: max(1, STACK_SAMPLES // size)]
    classes = len(plan.dataset.classes)
    vectors = {modality: torch.randn(size, width, device=device) for modality, width in widths.items()}
    samples = Samples(vectors, torch.arange(size, device=device) % classes, classes)
    rows = [torch.arange(size)] * len(replicates)
    trainer = StackTrainer(replace(config, batch_size=size), replicates, samples, rows, rows)
    kept, train, score = _measure(trainer, trainer.head)
    parameters = count_parameters(config.head, widths, config.D, classes)
    count = size * len(replicates)
    sample_bytes = 2 * (kept / count + 4 * sum(widths.values()))
    return Step(parameters, 4 * 4 * parameters, sample_bytes, train / count, score / count)


def _finetuned(config: Config, task: FinetuneTask, size: int) -> Step:
    """Measure a step of one replicate on samples of the data set, pictures read and prepared.

    Memory is the weights twice (one copy stays as it was loaded), gradients and two moments of those that are trained, and
    what a part of a minibatch keeps for its backward pass.
    """
    replicate = task.replicates[0]
    rows = task.split.train[replicate.fold][:size]
    step = replace(config, batch_size=max(2, len(rows)), accumulation=1, epochs=2)
    few = Split("few", {replicate.fold: rows}, {replicate.fold: rows}, {replicate.fold: rows[:0]})
    trainer = ReplicateTrainer(step, replicate, replace(task, split=few))
    kept, train, score = _measure(trainer, trainer.network)
    weights = sum(parameter.numel() for parameter in trainer.network.parameters())
    trained = sum(parameter.numel() for parameter in trainable_parameters([trainer.network]))
    count = len(rows)
    return Step(trained, 4 * (2 * weights + 3 * trained), kept / count, train / count, score / count)


def _measure(trainer: Trainer, model: nn.Module) -> tuple[int, float, float]:
    """Return the bytes that a forward pass keeps for its backward pass, and the seconds to train and to score an epoch."""
    with saved_bytes(model) as count:
        trainer.train_epoch().cpu()
        kept = count()
    train = _seconds(trainer.train_epoch)
    trainer.evaluate(trainer.validation)
    return kept, train, _seconds(lambda: trainer.evaluate(trainer.validation)[0])


def _seconds(work: Callable[[], Tensor]) -> float:
    """Return the median time of three runs; of one, if that is long."""
    times: list[float] = []
    while len(times) < 3 and sum(times) < 0.5:
        started = time.perf_counter()
        work().cpu()  # waits for the device
        times.append(time.perf_counter() - started)
    return float(np.median(times))


@contextmanager
def saved_bytes(model: nn.Module) -> Iterator[Callable[[], int]]:
    """Yield a function that counts the bytes kept for backward passes so far, each storage once, without the model's weights."""
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        # The reference in `kept` prevents that another tensor gets the same address before all are counted.
        kept.setdefault(tensor.untyped_storage().data_ptr(), tensor)
        return tensor  # itself, not the first of its storage: views differ

    def count() -> int:
        return sum(tensor.untyped_storage().nbytes() for address, tensor in kept.items() if address not in weights)

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        yield count


def relative_work(plan: Plan, configs: Sequence[Config]) -> dict[str, float]:
    """Return the work of each configuration's trial relative to the others', by id, without measuring if possible.

    A step takes as long as training on fifty more samples, for the optimizer and Python (bench/LOG.md).
    """
    if plan.costs:
        return {config.id: plan.costs[config.id].seconds for config in configs}
    train, classes = largest_fold(plan.split.train), len(plan.dataset.classes)
    work = {}
    for config in configs:
        widths = {modality: plan.widths[name, modality] for modality, name in config.encoders.items()}
        parameters = count_parameters(config.head, widths, config.D, classes)
        work[config.id] = config.epochs * parameters * (train + 50 * train / config.batch_size)
    return work
