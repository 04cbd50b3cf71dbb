"""What the benchmarks share that needs torch: stacks of replicates on random vectors, and a clock."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from mvsa_tune.config import Config, Replicate
from mvsa_tune.training.trainer import Samples, StackTrainer
from workload import WIDTHS

CPU = torch.device("cpu")


def random_vectors(count: int) -> dict[str, Tensor]:
    """Return random vectors of the widths of MobileNetV2 and MiniLM, `(count, width)` by modality."""
    return {modality: torch.randn(count, width) for modality, (_, width) in WIDTHS.items()}


def make_stack(
    vectors: Mapping[str, Tensor],
    replicates: int,
    config: Config,
    *,
    labels: Tensor | None = None,
    rows: Tensor | None = None,
    validation: int | None = None,
) -> StackTrainer:
    """Build a stack whose replicates, of seeds 42, 43, …, all train and validate on the same samples.

    Args:
        vectors: `(N, width)` by modality, on the device to train on.
        replicates: their number.
        config: their configuration.
        labels: `(N,)` classes; by default 0, 1, 2, 0, ….
        rows: row numbers of the samples to use, those to validate on last; by default all of them, shuffled.
        validation: how many samples validate; by default a tenth.
    """
    first = next(iter(vectors.values()))
    if labels is None:
        labels = torch.arange(len(first), device=first.device) % 3
    if rows is None:
        rows = torch.randperm(len(first), generator=torch.Generator().manual_seed(0)).to(first.device)
    cut = len(rows) * 9 // 10 if validation is None else len(rows) - validation
    seeds = [Replicate(42 + number) for number in range(replicates)]
    samples = Samples(dict(vectors), labels, 3)
    return StackTrainer(config, seeds, samples, [rows[:cut]] * replicates, [rows[cut:]] * replicates)


def seconds(work: Callable[[], object], device: torch.device = CPU) -> float:
    """Return the seconds that a call takes, the device's work included."""
    started = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def epoch_seconds(trainer: StackTrainer) -> float:
    """Train the next epoch; return its seconds."""
    return seconds(lambda: trainer.advance(trainer.epoch + 1))


def spread(ratios: Sequence[float]) -> str:
    """Return the median, the least and the greatest of some ratios, as text."""
    return f"{statistics.median(ratios):.2f}   ({min(ratios):.2f} to {max(ratios):.2f})"
