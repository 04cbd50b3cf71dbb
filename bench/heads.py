"""Time the same trainings four ways, in turn.

    python bench/heads.py [--batch-size 512] [--precision float32] [--scheduler none] [--rounds 3]      about 10 minutes

ours      python sweeps/grid.py, from a cold start to written tables
tune      Ray Tune as its examples write it: a trial and a process for each seed, with a careful float32 torch loop
script    a script for each training, as the reference did: vectors from JSON, a DataLoader, all cores; the first of
          each D is measured, and counted for every learning rate and seed. `batched`: its data set hands out
          minibatches, not samples
products  the matrix products alone of the same shapes (float32 or bf16), with torch's `bmm` and with oneDNN's linear
          layer, against our training loop in the same process, in turn, in CPU time of one thread

The vectors are the real set's of MobileNetV2 and MiniLM if MVSA_REAL_DATA names its folder, else random ones of the
same shapes. --skip leaves out what need not be measured again.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from mvsa_tune.config import Config
from mvsa_tune.machine import keep_freed_memory
from mvsa_tune.models.matmul import multiply_each
from mvsa_tune.training.trainer import minibatches
from stacks import make_stack
from workload import SWEEPS, make_set, set_flags, work_folder

RIVALS = Path(__file__).with_name("rivals.py")
Multiply = Callable[..., Iterable[torch.Tensor]]  # two stacks of matrices → their products


@dataclass(frozen=True)
class Work:
    """What is trained: every D, learning rate and seed."""

    D: list[int]
    lr: list[float]
    seeds: list[int]
    batch_size: int
    epochs: int
    batched: bool = False  # whether the scripts' data set hands out minibatches, not samples


def timed(command: list[object]) -> float:
    """Run a Python script; return its seconds, by the clock."""
    started = time.perf_counter()
    # What mvsa_tune sets must not reach the rivals; workers with a niceness would lose their cores to other processes.
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "TUNE_"))}
    environment |= {"RAY_worker_niceness": "0", "RAY_USAGE_STATS_ENABLED": "0"}
    ended = subprocess.run(
        [sys.executable, *map(str, command)], env=environment, capture_output=True, text=True, check=False
    )
    if ended.returncode:
        sys.exit(f"{command}: exit code {ended.returncode}\n{ended.stdout[-2000:]}\n{ended.stderr[-4000:]}")
    return time.perf_counter() - started


def ours(work: Work, folder: Path, precision: str, scheduler: str) -> float:
    """Time `sweeps/grid.py` with a new results folder."""
    with tempfile.TemporaryDirectory(dir=folder) as results:
        command = [SWEEPS / "grid.py", *set_flags(folder), "--results", results, "--no-report"]
        command += ["--D", *work.D, "--lr", *work.lr, "--seeds", len(work.seeds), "--batch-size", work.batch_size]
        return timed([*command, "--epochs", work.epochs, "--precision", precision, "--scheduler", scheduler])


def tuned(work: Work, folder: Path) -> float:
    """Time a sweep with Ray Tune in which every seed is a trial."""
    return timed([RIVALS, "tune", folder, json.dumps(asdict(work))])


def scripts(work: Work, folder: Path, batched: bool) -> float:
    """Time a training of each D, and count it for all learning rates and seeds."""
    total = 0.0
    for D in work.D:
        single = Work([D], work.lr[:1], work.seeds[:1], work.batch_size, work.epochs, batched)
        total += timed([RIVALS, "script", folder, json.dumps(asdict(single))])
    return total * len(work.lr) * len(work.seeds)


def onednn(left: torch.Tensor, right: torch.Tensor) -> list[torch.Tensor]:
    """Return the products `left @ right` of a stack, by oneDNN."""
    return multiply_each(left.unbind(), right.mT.unbind())


def products(work: Work, D: int, widths: list[int], count: int, dtype: torch.dtype, multiply: Multiply) -> float:
    """Return the CPU seconds of the matrix products of an epoch of a stack on `count` samples, scoring included."""
    R, train = len(work.seeds), count * 9 // 10
    sizes = [batch.stop - batch.start for batch in minibatches(train, work.batch_size)]
    operands: dict[int, list[torch.Tensor]] = {}
    for size in {*sizes, count - train}:
        inputs = [torch.randn(R, size, width).to(dtype) for width in widths]
        weights = [torch.randn(R, D, width).to(dtype) for width in widths]
        last = [torch.randn(R, *shape).to(dtype) for shape in ((4, len(widths) * D), (len(widths) * D, size))]
        operands[size] = [*inputs, *weights, *last, torch.randn(R, D, size).to(dtype), last[1][:, :4]]
    started = time.process_time()
    for size in [*sizes, None]:  # None: the validation samples, without gradients
        *both, classifier, units, gradient, logits = operands[size or count - train]
        inputs, weights = both[: len(widths)], both[len(widths) :]
        for x, weight in zip(inputs, weights, strict=True):
            multiply(weight, x.transpose(1, 2))
            if size:
                multiply(gradient, x)
        multiply(classifier, units)
        if size:
            multiply(logits, units.transpose(1, 2))
            multiply(classifier.transpose(1, 2), logits)
    return time.process_time() - started


def compare_products(work: Work, folder: Path, precision: str, rounds: int) -> None:
    """Print the CPU time of our training loop beside that of its matrix products alone, measured in turn."""
    torch.set_num_threads(1)
    keep_freed_memory()
    vectors = {m: torch.from_numpy(np.load(folder / f"{m}.npy", allow_pickle=False)) for m in ("image", "text")}
    labels = torch.from_numpy(np.load(folder / "labels.npy", allow_pickle=False))
    widths = [tensor.shape[1] for tensor in vectors.values()]
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    for D in work.D:
        config = Config(D=D, batch_size=work.batch_size, epochs=10_000, precision=precision)
        trainer = make_stack(vectors, len(work.seeds), config, labels=labels)
        trainer.advance(2)
        loop: list[float] = []
        libraries: dict[str, Multiply] = {"bmm": torch.bmm, "oneDNN": onednn}
        ways: dict[str, Callable[[], float]] = {}
        for name, multiply in libraries.items():
            ways[f"products by {name}"] = partial(products, work, D, widths, len(labels), dtype, multiply)
        times: dict[str, list[float]] = {name: [] for name in ways}
        for way in ways.values():
            way()
        for _ in range(rounds * 4):
            started = time.process_time()
            trainer.advance(trainer.epoch + 1)
            loop.append(time.process_time() - started)
            for name, way in ways.items():
                times[name].append(way())
        ours = statistics.median(loop)
        medians = {name: statistics.median(values) for name, values in times.items()}
        texts = [f"{name} {1000 * median:.0f} ms (ours / it {ours / median:.2f})" for name, median in medians.items()]
        print(f"an epoch of {len(work.seeds)} replicates, D {D}: ours {1000 * ours:.0f} ms; {', '.join(texts)}")


def report(work: Work, times: dict[str, list[float]]) -> None:
    """Print the median of each way, and how many times longer than ours it takes."""
    print(
        f"{len(work.D) * len(work.lr)} configurations × {len(work.seeds)} seeds, batch size {work.batch_size}, "
        f"{work.epochs} epochs:"
    )
    medians = {name: statistics.median(values) for name, values in times.items()}
    for name, values in times.items():
        references = [other for other in medians if other.startswith("ours") and other != name]
        ratios = ", ".join(f"{medians[name] / medians[other]:.2f} × {other}" for other in references)
        print(f"{name:<24} {medians[name]:7.1f} s (of {', '.join(f'{value:.1f}' for value in values)})  {ratios}")


def main() -> None:
    """Measure, alternating, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--D", type=int, nargs="+", default=[128, 256])
    parser.add_argument("--lr", type=float, nargs="+", default=[2e-5, 1e-4])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=512)
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--precision", nargs="+", default=["float32"])
    parser.add_argument("--scheduler", nargs="+", default=["none"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--skip", nargs="+", default=[], choices=["ours", "tune", "script", "products"])
    options = parser.parse_args()
    seeds = [42 + number for number in range(options.seeds)]
    work = Work(options.D, options.lr, seeds, options.batch_size, options.epochs)
    with work_folder() as folder:
        print(make_set(folder), f"{os.cpu_count()} cores, torch {torch.__version__}", sep="; ", flush=True)
        ways: dict[str, Callable[[], float]] = {}
        if "ours" not in options.skip:
            for precision in options.precision:
                for scheduler in options.scheduler:
                    ways[f"ours {precision} {scheduler}"] = partial(ours, work, folder, precision, scheduler)
        if "tune" not in options.skip:
            ways["tune"] = partial(tuned, work, folder)
        times: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(options.rounds):
            for name, way in ways.items():
                times[name].append(way())
                print(f"  {name}: {times[name][-1]:.1f} s", flush=True)
        if "script" not in options.skip:
            times["script"] = [scripts(work, folder, batched=False)]
            times["script, batched"] = [scripts(work, folder, batched=True)]
        report(work, times)
        if "products" not in options.skip:
            for precision in options.precision:
                print(precision)
                compare_products(work, folder, precision, options.rounds)


if __name__ == "__main__":
    main()
