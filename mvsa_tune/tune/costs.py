"""What a plan over frozen encoders will cost: seconds and bytes, from small measurements."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from mvsa_tune.config import Config
from mvsa_tune.data.splits import largest_fold
from mvsa_tune.models.heads import build_head, count_parameters
from mvsa_tune.models.layers import initialise
from mvsa_tune.training.trainer import EVALUATION_BLOCK, Samples, StackTrainer, minibatches
from mvsa_tune.tune.saved import saved_bytes

if TYPE_CHECKING:
    from mvsa_tune.tune.plan import Plan


def step_seconds(plan: "Plan", configs: Sequence[Config]) -> dict[str, float]:
    """Measure one minibatch step of each configuration, in seconds, on vectors made up for the purpose.

    Configurations of the same shapes are measured once; about half a second for the reference's grid on a CPU.
    """
    # A cluster's GPUs are elsewhere: what is measured here then says which trials take longer, not how long.
    device = torch.device(plan.placement.device if torch.cuda.is_available() else "cpu")
    threads = torch.get_num_threads()
    torch.set_num_threads(plan.placement.cpus)
    measured: dict[tuple[object, ...], float] = {}
    seconds = {}
    for config in configs:
        widths = plan.widths(config)
        shape = (*widths.items(), config.head, config.D, config.batch_size, config.precision)
        if shape not in measured:
            measured[shape] = _time_step(config, widths, plan, device)
        seconds[config.id] = measured[shape]
    torch.set_num_threads(threads)
    return seconds


def _time_step(config: Config, widths: Mapping[str, int], plan: "Plan", device: torch.device) -> float:
    size = min(config.batch_size, largest_fold(plan.split.train))
    vectors = {modality: torch.randn(size, width, device=device) for modality, width in widths.items()}
    classes = len(plan.dataset.classes)
    labels = torch.arange(size, device=device) % classes
    rows = [torch.arange(size)] * len(plan.replicates)
    one_step = replace(config, batch_size=size)
    trainer = StackTrainer(one_step, plan.replicates, Samples(vectors, labels, classes), rows, rows)
    times = []
    for _ in range(4):
        started = time.perf_counter()
        trainer.train_epoch().cpu()
        times.append(time.perf_counter() - started)
    return float(np.median(times[1:]))


def trial_seconds(plan: "Plan", configs: Sequence[Config]) -> dict[str, float]:
    """Estimate the seconds that each configuration's trial takes, by id, from `step_seconds`."""
    estimates = {}
    train, scored = largest_fold(plan.split.train), largest_fold(plan.split.validation) + largest_fold(plan.split.test)
    for config, step in zip(configs, step_seconds(plan, configs).values(), strict=True):
        sizes = [batch.stop - batch.start for batch in minibatches(train, config.batch_size)]
        # A short last minibatch costs its share; scoring a sample costs a third of training on it.
        steps = sum(sizes) / sizes[0] + scored / 3 / sizes[0]
        estimates[config.id] = config.epochs * steps * step
    return estimates


def trial_work(plan: "Plan", configs: Sequence[Config]) -> dict[str, float]:
    """What each configuration's trial takes against the others', by id, in no unit: enough to order trials by.

    A step's own cost (the optimizer's, Python's) is about that of training on another fifty samples (bench/LOG.md).
    """
    train = largest_fold(plan.split.train)
    return {
        config.id: config.epochs * plan.parameters(config) * (train + 50 * train / config.batch_size)
        for config in configs
    }


def memory_bytes(plan: "Plan") -> int:
    """Estimate the memory of one worker beside torch itself: all vectors once, and the largest stack's training.

    That is weights, gradients and Adam's two moments, and twice what a minibatch's forward keeps: again so much for its gradients and
    for what the allocator holds. What was measured is from half (`linear`, which is small) to 1.4 of it (bench/LOG.md). A sample that
    is only scored takes half of one that is trained on. Configurations whose vectors' lengths are not known are left out.
    """
    count = len(plan.dataset.labels)
    train = largest_fold(plan.split.train)
    scored = min(max(largest_fold(plan.split.validation), largest_fold(plan.split.test)), EVALUATION_BLOCK)
    vectors: dict[tuple[str, str], int] = {}
    kept: dict[tuple[object, ...], tuple[float, float]] = {}
    classes = len(plan.dataset.classes)
    stacks = [0.0]
    for config in plan.sized:
        widths = plan.widths(config)
        vectors |= {(config.encoders[modality], modality): 4 * count * width for modality, width in widths.items()}
        shape = (*widths.items(), config.head, config.D, config.precision)
        if shape not in kept:
            kept[shape] = _kept_bytes(config, widths, classes)
        once, each = kept[shape]
        weights = 4 * 4 * count_parameters(config.head, widths, config.D, classes)
        samples = max(min(config.batch_size, train), scored / 2)
        stacks.append(len(plan.replicates) * (weights + once + 2 * samples * each))
    return round(sum(vectors.values()) + max(stacks))


def _kept_bytes(config: Config, widths: Mapping[str, int], classes: int) -> tuple[float, float]:
    """What one replicate's forward keeps in training, weights aside: bytes once (weights cast to bf16), and bytes a sample.

    Measured: two small minibatches give the line. A sample's vectors are counted beside their copies in another format or order.
    """
    generator = [torch.Generator()]
    head = build_head(config.head, 1, widths, config.D, classes, dropout=0.5)
    initialise(head, generator, generator)
    sizes, totals = (8, 16), []
    for size in sizes:
        inputs = {modality: torch.zeros(1, size, width).transpose(1, 2) for modality, width in widths.items()}
        mixed = torch.autocast("cpu", dtype=torch.bfloat16, enabled=config.precision == "bf16")
        with saved_bytes(head) as kept, mixed:
            head(inputs)
            totals.append(kept() + 4 * size * sum(widths.values()))
    each = (totals[1] - totals[0]) / (sizes[1] - sizes[0])
    return totals[0] - sizes[0] * each, each
