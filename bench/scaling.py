"""Measure what more work costs: time by replicates, samples, configurations, workers; memory by workers, samples.

    python bench/scaling.py [--only replicates packs samples configurations workers memory large]

It takes about ten minutes on 2 cores, with random vectors of the real set's widths, D 128, batch size 512, and writes
scaling.csv and scaling.png to --out. `large` writes 4 GB below --scratch, and removes them.
"""

import argparse
import csv
import multiprocessing
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mvsa_tune.config import Config, Replicate
from mvsa_tune.data.dataset import read_dataset
from mvsa_tune.data.splits import reference_split
from mvsa_tune.embeddings.cache import expect_scattered_reads, open_cache, open_vectors
from mvsa_tune.machine import keep_freed_memory
from mvsa_tune.training.task import Task
from mvsa_tune.training.trainer import StackTrainer
from stacks import epoch_seconds, make_stack, random_vectors, seconds
from workload import SWEEPS, make_set, set_flags

CONFIG = Config("mobilenet_v2", "minilm", D=128, epochs=1000)
Row = tuple[str, float, str, float]  # against what, how much of it, what was measured, its value


def median_epoch(trainer: StackTrainer, epochs: int = 3) -> float:
    """Return the median seconds of some epochs after a first."""
    trainer.advance(1)
    return float(np.median([epoch_seconds(trainer) for _ in range(epochs)]))


def replicates(_: Path) -> Iterator[Row]:
    """Time an epoch by the number of replicates in a stack, at both batch sizes of the reference."""
    vectors = random_vectors(4000)
    for size in (512, 32):
        for count in (1, 2, 5, 10, 20):
            trainer = make_stack(vectors, count, replace(CONFIG, batch_size=size))
            yield f"replicates, batch size {size}", count, "seconds an epoch", median_epoch(trainer)


def at_once(count: int, work: Callable[..., Any], *arguments: Any) -> list[Any]:
    """Return what `count` processes at once return; the first argument of `work` is a barrier that they share."""
    context = multiprocessing.get_context("spawn")
    with context.Manager() as manager, context.Pool(count) as pool:
        return pool.starmap(work, [(manager.Barrier(count), *arguments)] * count, chunksize=1)


def packed(barrier: Any, batch_size: int, D: int, count: int) -> float:
    """Return the milliseconds that an epoch of a stack takes for each replicate, beside other stacks."""
    torch.set_num_threads(1)
    keep_freed_memory()
    trainer = make_stack(random_vectors(4000), count, replace(CONFIG, batch_size=batch_size, D=D))
    barrier.wait()
    return 1000 * median_epoch(trainer, 9) / count


def packs(_: Path) -> Iterator[Row]:
    """Time a replicate in stacks of five and of ten (two configurations of five), with a stack on every core."""
    cores = len(os.sched_getaffinity(0))
    for batch_size, D in ((512, 128), (512, 256), (32, 128), (32, 256)):
        for count in (5, 10):
            mean = float(np.mean(at_once(cores, packed, batch_size, D, count)))
            yield f"replicates, D {D}, batch size {batch_size}", count, "ms an epoch, a replicate", mean


def samples(_: Path) -> Iterator[Row]:
    """Time an epoch of five replicates by the number of samples."""
    for count in (1000, 4000, 16_000, 64_000):
        yield "samples", count, "seconds an epoch", median_epoch(make_stack(random_vectors(count), 5, CONFIG))


def sweep_seconds(folder: Path, count: int) -> float:
    """Time a sweep over `count` learning rates, with five seeds and 20 epochs each, from start to tables."""
    command = [sys.executable, SWEEPS / "grid.py", *set_flags(folder), "--D", 128, "--epochs", 20]
    command += ["--scheduler", "none", "--lr", *(f"{rate:.6g}" for rate in np.geomspace(1e-5, 1e-3, count))]
    with tempfile.TemporaryDirectory(dir=folder) as results:
        command += ["--results", results]
        return seconds(lambda: subprocess.run([str(word) for word in command], check=True, capture_output=True))


def configurations(folder: Path) -> Iterator[Row]:
    """Time a sweep by the number of configurations."""
    for count in (2, 8, 32):
        yield "configurations", count, "seconds a sweep", sweep_seconds(folder, count)


def workers(folder: Path) -> Iterator[Row]:
    """Time a sweep of eight configurations by the number of workers, up to the number of cores."""
    cores = sorted(os.sched_getaffinity(0))
    for count in range(1, min(3, len(cores)) + 1):
        os.sched_setaffinity(0, cores[:count])
        try:
            yield "workers", count, "seconds a sweep", sweep_seconds(folder, 8)
        finally:
            os.sched_setaffinity(0, cores)


def private_megabytes() -> float:
    """Return the memory of this process that no other process shares, because it is in no file."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Anonymous:")) / 1e3


def worker(barrier: Any, task: Task, config: Config) -> tuple[float, float]:
    """Load a trial's vectors beside other workers; return private MB of the vectors, and with a trained stack."""
    torch.set_num_threads(1)
    keep_freed_memory()
    make_stack({name: torch.randn(40, 8) for name in ("image", "text")}, 1, config).advance(1)  # what torch takes once
    before = private_megabytes()
    trainer = task.build(config, task.replicates)
    for vectors in trainer.vectors.values():
        vectors.sum()  # every page is touched
    head = sum(parameter.numel() for parameter in trainer.head.parameters()) * 4 * 3 / 1e6  # with Adam's moments
    loaded = private_megabytes() - before - head
    barrier.wait()
    trainer.advance(2)
    return loaded, private_megabytes() - before


def memory(folder: Path) -> Iterator[Row]:
    """Measure the private memory of a worker by the number of workers."""
    dataset = read_dataset(folder / "set")
    names = {("mobilenet_v2", "image"), ("minilm", "text")}
    caches = {name: cache for name in names if (cache := open_cache(dataset, folder / "cache", *name))}
    task = Task(
        caches,
        labels=np.array(dataset.labels),
        classes=3,
        split=reference_split(dataset.labels),
        replicates=tuple(Replicate(seed) for seed in range(42, 47)),
        device="cpu",
        threads=1,
    )
    for config in (CONFIG, replace(CONFIG, precision="bf16")):
        for count in (1, 2, 4):
            means = np.mean(at_once(count, worker, task, config), axis=0)
            for name, value in zip(("vectors", "vectors and stack"), means, strict=True):
                yield f"workers at once, {config.precision}", count, f"private MB a worker, {name}", float(value)


def large(folder: Path) -> Iterator[Row]:
    """Open a cache of 1,024 float16, and compare training on all of it from its file with a part of it from memory.

    To measure it with less memory, run it in a memory cgroup: page cache counts there.
    """
    torch.set_num_threads(1)
    against = "samples of 1,024 float16"
    for count in (20_000, 200_000, 2_000_000):
        path = folder / "large.npy"
        mapped = np.lib.format.open_memmap(path, mode="w+", dtype=np.float16, shape=(count, 1024))
        block = np.random.default_rng(0).normal(size=(20_000, 1024)).astype(np.float16)
        for start in range(0, count, len(block)):
            mapped[start : start + len(block)] = block
        del mapped
        started = time.perf_counter()
        vectors = open_vectors(path, mode="c")
        yield against, count, "ms to open", 1000 * (time.perf_counter() - started)
        expect_scattered_reads(vectors)
        before = private_megabytes()
        config = replace(CONFIG, ablation=2, D=256)
        on_file = make_stack(
            {"image": torch.from_numpy(vectors)}, 1, config, rows=torch.randperm(count), validation=1000
        )
        from_file = median_epoch(on_file, 2) / count
        yield against, count, "private MB", private_megabytes() - before
        del on_file
        part = min(count, 60_000)
        rows = np.linspace(0, count - 1, part, dtype=np.int64)
        copied = {"image": torch.from_numpy(np.asarray(vectors[rows], dtype=np.float32))}
        in_memory = make_stack(copied, 1, config, rows=torch.randperm(part), validation=1000)
        from_memory = median_epoch(in_memory, 4) / part
        yield against, count, "rate from the file / from memory", from_memory / from_file
        del vectors, copied, in_memory
        path.unlink()
    yield against, count, "peak resident MB", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def draw(rows: list[Row], path: Path) -> None:
    """Draw a panel for each quantity and what it was measured against."""
    from matplotlib.figure import Figure

    panels = list(dict.fromkeys((against, what) for against, _, what, _ in rows))
    figure = Figure(figsize=(4 * min(4, len(panels)), 3 * -(-len(panels) // 4)), layout="constrained")
    for number, (against, what) in enumerate(panels, start=1):
        axes = figure.add_subplot(-(-len(panels) // 4), min(4, len(panels)), number)
        x, y = zip(*[row[1::2] for row in rows if row[::2] == (against, what)], strict=True)
        axes.plot(x, y, marker="o")
        axes.set(xlabel=against, ylabel=what)
        if max(x) > 20 * min(x):  # what is proportional is a line of slope 1 in logarithms, too
            axes.set(xscale="log", yscale="log" if max(y) > 10 * min(y) > 0 else "linear")
        if axes.get_yscale() == "linear":
            axes.set_ylim(min(0, 1.1 * min(y)), 1.1 * max(1e-9, *y))
        axes.set_xticks(x, [f"{value:,.0f}" for value in x], minor=False)
        axes.minorticks_off()
    figure.savefig(path, dpi=120)


def main() -> None:
    """Measure, print, write, draw."""
    measures: dict[str, Callable[[Path], Iterator[Row]]] = {
        measure.__name__: measure for measure in (replicates, packs, samples, configurations, workers, memory, large)
    }
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("results/scaling"))
    parser.add_argument("--only", nargs="+", choices=list(measures), default=list(measures))
    parser.add_argument("--scratch", type=Path, help="where the large cache goes (default: the system's folder)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="scaling-", dir=options.scratch) as scratch:
        folder = Path(scratch).resolve()
        make_set(folder)
        for name in options.only:
            for row in measures[name](folder):
                print("{:<28} {:>9,} {:>40} {:10.3f}".format(*row), flush=True)
                rows.append(row)
    options.out.mkdir(parents=True, exist_ok=True)
    with (options.out / "scaling.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("against", "how_much", "what", "value"), *rows])
    draw(rows, options.out / "scaling.png")
    print(f"{options.out}: scaling.csv, scaling.png")


if __name__ == "__main__":
    main()
