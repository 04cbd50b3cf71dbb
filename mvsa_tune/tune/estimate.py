"""What a plan's trials will take: a step of each configuration is trained, and scaled to the whole trial."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

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
    """What one replicate takes for a sample, measured."""

    weights: int  # parameters of the model
    trained: int  # those of them that are trained
    kept_bytes: float  # that the forward pass keeps for the backward pass
    train_seconds: float
    score_seconds: float


def estimate(plan: Plan) -> dict[str, Cost]:
    """Return what the trials of a plan take, by configuration id; those that cannot be measured are left out.

    It takes half a second for the reference's grid on a CPU. Times are this machine's: on a cluster with other machines
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
        key = (*inputs.items(), size, config.head, config.D, config.frozen, config.precision)
        if key not in measured:
            step = _replicate_step(config, task, size) if task else _stack_step(config, plan, widths, size, device)
            measured[key] = step
        costs[config.id] = _scale(config, plan, measured[key])
    torch.set_num_threads(threads)
    return costs


def _scale(config: Config, plan: Plan, step: Step) -> Cost:
    """Return a trial's cost.

    Memory is weights, gradients and Adam's two moments, and what a minibatch's forward pass keeps. A stack takes as
    much again for the gradients of what it keeps and for what the allocator holds: measured memory is 0.5 to 1.4 of
    that (bench/LOG.md). A sample that is only scored takes half. Fine-tuning, one replicate is in memory, and its
    encoders' weights as they were loaded.
    """
    split, folds = plan.split, [replicate.fold for replicate in plan.replicates]
    samples = min(config.batch_size, largest_fold(split.train)) / config.accumulation
    if plan.finetuning:
        memory = 4 * (2 * step.weights + 3 * step.trained) + samples * step.kept_bytes
    else:
        scored = min(max(largest_fold(split.validation), largest_fold(split.test)), EVALUATION_BLOCK)
        samples = max(samples, scored / 2)
        memory = plan.largest_stack * (4 * (step.weights + 3 * step.trained) + 2 * samples * step.kept_bytes)
    train = sum(len(split.train[fold]) for fold in folds)
    score = sum(len(split.validation[fold]) + len(split.test[fold]) for fold in folds)
    seconds = config.epochs * (train * step.train_seconds + score * step.score_seconds)
    return Cost(step.trained, round(memory), seconds)


def _stack_step(config: Config, plan: Plan, widths: Mapping[str, int], size: int, device: str) -> Step:
    """Measure a step of a stack, on `size` random vectors."""
    replicates = plan.replicates[: max(1, STACK_SAMPLES // size)]
    classes = len(plan.dataset.classes)
    vectors = {modality: torch.randn(size, width, device=device) for modality, width in widths.items()}
    samples = Samples(vectors, torch.arange(size, device=device) % classes, classes)
    rows = [torch.arange(size)] * len(replicates)
    trainer = StackTrainer(replace(config, batch_size=size), replicates, samples, rows, rows)
    trainer.train_epoch()  # compiles, where loops are compiled

    def forward() -> Tensor:
        """Run what keeps tensors for autograd; compiled loops keep less, but scoring needs as much."""
        return trainer.losses(torch.stack(rows).to(device))[0]

    step = _measure(trainer, trainer.head, len(replicates), size, forward)
    return replace(step, kept_bytes=step.kept_bytes + 4 * sum(widths.values()))  # with the minibatch's vectors


def _replicate_step(config: Config, task: FinetuneTask, size: int) -> Step:
    """Measure a step of one replicate, on `size` samples of the data set, pictures read and prepared."""
    replicate = task.replicates[0]
    rows = task.split.train[replicate.fold][:size]
    few = Split("few", {replicate.fold: rows}, {replicate.fold: rows}, {replicate.fold: rows[:0]})
    step = replace(config, batch_size=max(2, len(rows)), accumulation=1, epochs=2)
    trainer = ReplicateTrainer(step, replicate, replace(task, split=few))
    return _measure(trainer, trainer.network, 1, len(rows), trainer.train_epoch)


def _measure(trainer: Trainer, model: nn.Module, replicates: int, size: int, forward: Callable[[], Tensor]) -> Step:
    """Train and score an epoch of one minibatch of `size` samples; `forward` and the first scoring are not timed."""
    with saved_bytes(model) as count:
        forward().cpu()
        kept = count()
    trainer.evaluate(trainer.validation)
    train, score = _seconds(trainer.train_epoch), _seconds(lambda: trainer.evaluate(trainer.validation)[0])
    weights = sum(parameter.numel() for parameter in model.parameters()) // replicates
    trained = sum(parameter.numel() for parameter in trainable_parameters([model])) // replicates
    samples = replicates * size
    return Step(weights, trained, kept / samples, train / samples, score / samples)


def _seconds(work: Callable[[], Tensor]) -> float:
    """Return the least time of three runs, which other processes disturb least; of one, if that is long."""
    times: list[float] = []
    while len(times) < 3 and sum(times) < 0.5:
        started = time.perf_counter()
        work().cpu()  # waits for the device
        times.append(time.perf_counter() - started)
    return min(times)


@contextmanager
def saved_bytes(model: nn.Module) -> Iterator[Callable[[], int]]:
    """Yield a function that returns the bytes kept for backward passes so far, the model's weights not counted."""
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        # While `kept` refers to it, no other tensor gets its address.
        kept.setdefault(tensor.untyped_storage().data_ptr(), tensor)
        return tensor  # itself, not the first of its storage: views differ

    def count() -> int:
        return sum(tensor.untyped_storage().nbytes() for address, tensor in kept.items() if address not in weights)

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        yield count


def trial_seconds(plan: Plan, configs: Sequence[Config]) -> dict[str, float]:
    """Return about what each configuration's trial takes, by id, in seconds: one is measured, the others follow.

    Where nothing is measured, as that would take a GPU's memory, the unit is unknown: see `relative_work`.
    """
    work = relative_work(plan, configs)
    if plan.costs or plan.placement.device != "cpu" or not configs:
        return work
    heaviest = max(configs, key=lambda config: work[config.id])
    (cost,) = estimate(replace(plan, configs=(heaviest,))).values()
    return {trial: cost.seconds * share / work[heaviest.id] for trial, share in work.items()}


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
