"""What more work costs: time against replicates, samples, configurations and workers; memory against workers and samples.

    python bench/scaling.py [--out results/scaling] [--only replicates packs samples workers configurations memory large]

About ten minutes on 2 cores. Random vectors of the real set's widths, D 128, batch size 512. Writes scaling.csv, and
scaling.png where matplotlib is there. `large` writes 4 GB below --scratch, and removes them.
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
from replicas import make_set

from mvsa_tune.config import Config, Replicate
from mvsa_tune.data.dataset import read_dataset
from mvsa_tune.data.splits import reference_split
from mvsa_tune.embeddings.cache import expect_scattered_reads, open_cache, open_vectors
from mvsa_tune.machine import keep_freed_memory
from mvsa_tune.training.task import Task
from mvsa_tune.training.trainer import Samples, StackTrainer

CONFIG = Config("mobilenet_v2", "minilm", D=128, epochs=1000)
GRID = Path(__file__).parents[1] / "sweeps" / "grid.py"
Row = tuple[str, float, str, float]  # against what, how much of it, what was measured, its value


def epoch_seconds(trainer: StackTrainer, epochs: int = 3) -> float:
    """Time an epoch, the median of some after a first."""
    trainer.advance(1)
    times = []
    for _ in range(epochs):
        started = time.perf_counter()
        trainer.advance(trainer.epoch + 1)
        times.append(time.perf_counter() - started)
    return float(np.median(times))


def stack(vectors: dict[str, torch.Tensor], replicates: int, config: Config = CONFIG) -> StackTrainer:
    """A stack on random labels; a tenth of the samples validates."""
    count = len(next(iter(vectors.values())))
    labels = torch.arange(count) % 3
    rows = torch.randperm(count, generator=torch.Generator().manual_seed(0)).expand(replicates, -1)
    cut = count * 9 // 10
    seeds = [Replicate(seed) for seed in range(replicates)]
    return StackTrainer(config, seeds, Samples(vectors, labels, 3), rows[:, :cut], rows[:, cut:])


def random_vectors(count: int) -> dict[str, torch.Tensor]:
    """Of the widths of MobileNetV2 and MiniLM."""
    return {"image": torch.randn(count, 1280), "text": torch.randn(count, 384)}


def replicates(_: Path) -> Iterator[Row]:
    """Time of an epoch against replicates in a stack, at both of the reference's batch sizes."""
    vectors = random_vectors(4000)
    for size in (512, 32):
        for count in (1, 2, 5, 10, 20):
            trainer = stack(vectors, count, replace(CONFIG, batch_size=size))
            yield f"replicates, batch size {size}", count, "seconds an epoch", epoch_seconds(trainer)


def at_once(count: int, work: Callable[..., Any], *arguments: Any) -> list[Any]:
    """What so many processes at once return; the first argument of their work is a barrier that they share."""
    context = multiprocessing.get_context("spawn")
    with context.Manager() as manager, context.Pool(count) as pool:
        return pool.starmap(work, [(manager.Barrier(count), *arguments)] * count, chunksize=1)


def packed(barrier: Any, batch_size: int, D: int, count: int) -> float:
    """Time an epoch of a stack beside others, in milliseconds a replicate."""
    torch.set_num_threads(1)
    keep_freed_memory()
    trainer = stack(random_vectors(4000), count, replace(CONFIG, batch_size=batch_size, D=D))
    barrier.wait()
    return 1000 * epoch_seconds(trainer, 9) / count


def packs(_: Path) -> Iterator[Row]:
    """What a replicate costs in stacks of five and of ten, as two configurations of five would be, with a stack on every core."""
    cores = len(os.sched_getaffinity(0))
    for batch_size, D in ((512, 128), (512, 256), (32, 128), (32, 256)):
        for count in (5, 10):
            found = at_once(cores, packed, batch_size, D, count)
            yield (
                f"replicates, D {D}, batch size {batch_size}",
                count,
                "ms an epoch, a replicate",
                float(np.mean(found)),
            )


def samples(_: Path) -> Iterator[Row]:
    """Time of an epoch of five replicates against samples."""
    for count in (1000, 4000, 16_000, 64_000):
        yield "samples", count, "seconds an epoch", epoch_seconds(stack(random_vectors(count), 5))


def sweep_seconds(folder: Path, rates: int, *more: object) -> float:
    """Time a whole sweep over so many learning rates, five seeds and 20 epochs each, from start to tables."""
    command: list[object] = [sys.executable, GRID, "--data", folder / "set", "--cache", folder / "cache"]
    command += ["--pairs", "mobilenet_v2+minilm", "--D", 128, "--epochs", 20, "--scheduler", "none", "--quiet", *more]
    command += ["--lr", *(f"{rate:.6g}" for rate in np.geomspace(1e-5, 1e-3, rates))]
    with tempfile.TemporaryDirectory(dir=folder) as results:
        started = time.perf_counter()
        subprocess.run([*map(str, command), "--results", results], check=True, capture_output=True)
        return time.perf_counter() - started


def configurations(folder: Path) -> Iterator[Row]:
    """Time of a sweep against configurations."""
    for count in (2, 8, 32):
        yield "configurations", count, "seconds a sweep", sweep_seconds(folder, count)


def workers(folder: Path) -> Iterator[Row]:
    """Time of a sweep of eight configurations against workers, as many as there are cores at most."""
    cores = sorted(os.sched_getaffinity(0))
    for count in range(1, min(3, len(cores)) + 1):
        os.sched_setaffinity(0, cores[:count])
        try:
            yield "workers", count, "seconds a sweep", sweep_seconds(folder, 8)
        finally:
            os.sched_setaffinity(0, cores)


def private_megabytes() -> float:
    """Memory of this process that is its own: in no file, so shared with none."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Anonymous:")) / 1e3


def worker(barrier: Any, task: Task, config: Config) -> tuple[float, float]:
    """Load a trial's vectors beside other workers; return private memory in MB for them, and with a stack that has trained."""
    torch.set_num_threads(1)
    keep_freed_memory()
    stack({name: torch.randn(40, 8) for name in ("image", "text")}, 1, config).advance(1)  # what torch takes once
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
    """Private memory of a worker against workers."""
    dataset = read_dataset(folder / "set")
    names = {("mobilenet_v2", "image"), ("minilm", "text")}
    caches = {name: cache for name in names if (cache := open_cache(dataset, folder / "cache", *name))}
    five = tuple(Replicate(seed) for seed in range(42, 47))
    task = Task(
        caches,
        labels=np.array(dataset.labels),
        classes=3,
        split=reference_split(dataset.labels),
        replicates=five,
        device="cpu",
        threads=1,
    )
    for config in (CONFIG, replace(CONFIG, precision="bf16")):
        for count in (1, 2, 4):
            found = at_once(count, worker, task, config)
            for name, value in zip(("vectors", "vectors and stack"), np.mean(found, axis=0), strict=True):
                yield f"workers at once, {config.precision}", count, f"private MB a worker, {name}", float(value)


def large(folder: Path) -> Iterator[Row]:
    """Open a cache of 1,024 float16, and train on all of it from its file, against training on a part of it from memory.

    Within a limit on memory it is what a process of a memory cgroup finds: page cache counts there.
    """
    torch.set_num_threads(1)
    for count in (20_000, 200_000, 2_000_000):
        path = folder / "large.npy"
        mapped = np.lib.format.open_memmap(path, mode="w+", dtype=np.float16, shape=(count, 1024))
        block = np.random.default_rng(0).normal(size=(20_000, 1024)).astype(np.float16)
        for start in range(0, count, len(block)):
            mapped[start : start + len(block)] = block
        del mapped
        started = time.perf_counter()
        vectors = open_vectors(path, mode="c")
        yield "samples of 1,024 float16", count, "ms to open", 1000 * (time.perf_counter() - started)
        expect_scattered_reads(vectors)
        before = private_megabytes()
        config = replace(CONFIG, ablation=2, D=256)
        file = subset({"image": torch.from_numpy(vectors)}, torch.randperm(count), config)
        from_file = epoch_seconds(file, 2) / count
        yield "samples of 1,024 float16", count, "private MB", private_megabytes() - before
        del file
        part = min(count, 60_000)
        rows = np.linspace(0, count - 1, part, dtype=np.int64)
        inside = {"image": torch.from_numpy(np.asarray(vectors[rows], dtype=np.float32))}
        from_memory = epoch_seconds(subset(inside, torch.randperm(part), config), 4) / part
        yield "samples of 1,024 float16", count, "rate from the file / from memory", from_memory / from_file
        del vectors, inside
        path.unlink()
    yield (
        "samples of 1,024 float16",
        count,
        "peak resident MB",
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3,
    )


def subset(vectors: dict[str, torch.Tensor], rows: torch.Tensor, config: Config) -> StackTrainer:
    """One replicate that trains on some rows but the last thousand, which validate."""
    samples = Samples(vectors, torch.arange(len(vectors["image"])) % 3, 3)
    cut = len(rows) - 1000
    return StackTrainer(config, [Replicate(0)], samples, [rows[:cut]], [rows[cut:]])


def draw(rows: list[Row], path: Path) -> None:
    """A panel for each pair of what was measured and against what."""
    from matplotlib.figure import Figure

    panels = list(dict.fromkeys((against, what) for against, _, what, _ in rows))
    figure = Figure(figsize=(4 * min(4, len(panels)), 3 * -(-len(panels) // 4)), layout="constrained")
    for number, (against, what) in enumerate(panels, start=1):
        axes = figure.add_subplot(-(-len(panels) // 4), min(4, len(panels)), number)
        x, y = zip(*[(x, y) for one, x, other, y in rows if (one, other) == (against, what)], strict=True)
        axes.plot(x, y, marker="o")
        axes.set(xlabel=against, ylabel=what)
        if max(x) > 20 * min(x):  # what is proportional is a line of slope 1 in logarithms, too
            axes.set(xscale="log", yscale="log" if max(y) > 10 * min(y) > 0 else "linear")
        if axes.get_yscale() == "linear":
            axes.set_ylim(min(0, 1.1 * min(y)), 1.1 * max(1e-9, *y))
        axes.set_xticks(x, [f"{one:,.0f}" for one in x], minor=False)
        axes.minorticks_off()
    figure.savefig(path, dpi=120)


def main() -> None:
    """Measure, print, write, draw."""
    measures: dict[str, Callable[[Path], Iterator[Row]]] = {
        one.__name__: one for one in (replicates, packs, samples, configurations, workers, memory, large)
    }
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("results/scaling"))
    parser.add_argument("--only", nargs="+", choices=list(measures), default=list(measures))
    parser.add_argument("--scratch", type=Path, help="where the large cache goes (default: the system's place)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="scaling-", dir=options.scratch) as name:
        folder = Path(name).resolve()
        make_set(folder)
        for only in options.only:
            for row in measures[only](folder):
                print("{:<28} {:>9,} {:>40} {:10.3f}".format(*row), flush=True)
                rows.append(row)
    options.out.mkdir(parents=True, exist_ok=True)
    with (options.out / "scaling.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("against", "how_much", "what", "value"), *rows])
    try:
        draw(rows, options.out / "scaling.png")
    except ImportError:
        print("no plot: matplotlib is not here (pip install matplotlib)")
    print(f"{options.out}: scaling.csv")


if __name__ == "__main__":
    main()
