"""The same trainings four ways, in turn, in one go: how fast is fast?

    python bench/heads.py [--batch-size 512] [--precision float32] [--scheduler none] [--rounds 3]      about 10 minutes on 2 cores

ours      python sweeps/grid.py, from a cold start to written tables
tune      Ray Tune as its examples write it: one trial and one process a seed, a careful float32 torch loop inside
script    a script a training, as the reference's work did: vectors from JSON, a DataLoader, all cores; the first of each D is
          measured, and counted for every learning rate and seed. `batched`: its data set hands out minibatches, not samples
products  the matrix products alone of the same shapes (float32 or bf16), with torch's `bmm` and with oneDNN's linear layer,
          against our training loop in the same process, one thread: the limit

MobileNetV2 + MiniLM of the real set where MVSA_REAL_DATA names it, else random vectors of the same shapes. --skip leaves out what
need not be measured again.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from replicas import make_set, work_folder

from mvsa_tune.config import Config, Replicate
from mvsa_tune.machine import keep_freed_memory
from mvsa_tune.training.trainer import Samples, StackTrainer, minibatches

BENCH = Path(__file__).parent
PAIR = "mobilenet_v2+minilm"


@dataclass(frozen=True)
class Work:
    """What is trained."""

    D: list[int]
    lr: list[float]
    seeds: list[int]
    batch_size: int
    epochs: int
    batched: bool = False  # whether the scripts' data set gives minibatches, not samples

    @property
    def configurations(self) -> int:
        """Their number."""
        return len(self.D) * len(self.lr)


def timed(command: list[object]) -> float:
    """Run a command; return its seconds, by the clock."""
    started = time.perf_counter()
    # What mvsa_tune sets is for itself alone; workers that are nice would lose their cores to whatever else runs.
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "TUNE_"))}
    environment |= {"RAY_worker_niceness": "0", "RAY_USAGE_STATS_ENABLED": "0"}
    ended = subprocess.run(
        [sys.executable, *map(str, command)], env=environment, capture_output=True, text=True, check=False
    )
    if ended.returncode:
        sys.exit(f"{command}: exit code {ended.returncode}\n{ended.stdout[-2000:]}\n{ended.stderr[-4000:]}")
    return time.perf_counter() - started


def ours(work: Work, folder: Path, precision: str, scheduler: str) -> float:
    """`sweeps/grid.py`, in a results folder of its own."""
    with tempfile.TemporaryDirectory(dir=folder) as results:
        command: list[object] = [
            BENCH.parent / "sweeps" / "grid.py",
            "--no-report",
            "--data",
            folder / "set",
            "--pairs",
            PAIR,
        ]
        command += ["--cache", folder / "cache", "--D", *work.D, "--lr", *work.lr, "--seeds", len(work.seeds)]
        command += ["--batch-size", work.batch_size, "--epochs", work.epochs, "--precision", precision]
        return timed([*command, "--scheduler", scheduler, "--results", results, "--quiet"])


def scripts(work: Work, folder: Path, batched: bool) -> float:
    """A training of each D, each standing for those of all learning rates and seeds."""
    total = 0.0
    for D in work.D:
        one = Work([D], work.lr[:1], work.seeds[:1], work.batch_size, work.epochs, batched)
        total += timed([BENCH / "rivals.py", "script", folder, json.dumps(asdict(one))])
    return total * len(work.lr) * len(work.seeds)


def tuned(work: Work, folder: Path) -> float:
    """Every seed a trial."""
    return timed([BENCH / "rivals.py", "tune", folder, json.dumps(asdict(work))])


def onednn(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """`left @ right`, of a stack, by oneDNN."""
    linear = torch.ops.mkldnn._linear_pointwise
    return torch.stack(
        [linear(a, b.t(), None, "none", [], "") for a, b in zip(left.unbind(), right.unbind(), strict=True)]
    )


def products(
    work: Work, widths: list[int], count: int, dtype: torch.dtype, multiply: Callable[..., torch.Tensor]
) -> Callable[[int], None]:
    """One epoch's matrix products of a stack at width D, scoring included."""
    train = count * 9 // 10

    def epoch(D: int) -> None:
        R = len(work.seeds)
        sizes = [batch.stop - batch.start for batch in minibatches(train, work.batch_size)]
        made: dict[int, list[torch.Tensor]] = {}
        for size in [*sizes, count - train]:
            if size not in made:
                inputs = [torch.randn(R, size, width).to(dtype) for width in widths]
                weights = [torch.randn(R, D, width).to(dtype) for width in widths]
                last = [torch.randn(R, *shape).to(dtype) for shape in ((4, len(widths) * D), (len(widths) * D, size))]
                made[size] = [*inputs, *weights, *last, torch.randn(R, D, size).to(dtype), last[1][:, :4]]
        started.append(time.perf_counter())
        for size in [*sizes, None]:
            *both, classifier, units, gradient, logits = made[size or count - train]
            inputs, weights = both[: len(widths)], both[len(widths) :]
            for x, weight in zip(inputs, weights, strict=True):
                multiply(weight, x.transpose(1, 2))
                if size:
                    multiply(gradient, x)
            multiply(classifier, units)
            if size:
                multiply(logits, units.transpose(1, 2))
                multiply(classifier.transpose(1, 2), logits)
        spent.append(time.perf_counter() - started.pop())

    started: list[float] = []
    spent: list[float] = []
    epoch.spent = spent  # type: ignore[attr-defined]
    return epoch


def fraction(work: Work, folder: Path, precision: str, rounds: int) -> None:
    """Hold our training loop against its bare products, in turn."""
    torch.set_num_threads(1)
    keep_freed_memory()
    arrays = [torch.from_numpy(np.load(folder / f"{name}.npy", allow_pickle=False)) for name in ("image", "text")]
    labels = torch.from_numpy(np.load(folder / "labels.npy", allow_pickle=False))
    count, widths = len(labels), [one.shape[1] for one in arrays]
    samples = Samples(dict(zip(("image", "text"), arrays, strict=True)), labels, 3)
    rows = torch.randperm(count).expand(len(work.seeds), -1)
    cut = count * 9 // 10
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    ways = {
        "bmm": products(work, widths, count, dtype, torch.bmm),
        "oneDNN": products(work, widths, count, dtype, onednn),
    }
    for D in work.D:
        config = Config(D=D, batch_size=work.batch_size, epochs=10_000, precision=precision)
        trainer = StackTrainer(config, [Replicate(seed) for seed in work.seeds], samples, rows[:, :cut], rows[:, cut:])
        trainer.advance(2)
        loop: list[float] = []
        for epoch in ways.values():
            epoch(D)
            epoch.spent.clear()  # type: ignore[attr-defined]
        for _ in range(rounds * 4):
            started = time.perf_counter()
            trainer.advance(trainer.epoch + 1)
            loop.append(time.perf_counter() - started)
            for epoch in ways.values():
                epoch(D)
        bare = {name: statistics.median(epoch.spent) for name, epoch in ways.items()}  # type: ignore[attr-defined]
        ours = statistics.median(loop)
        told = ", ".join(
            f"{name} {1000 * seconds:.0f} ms ({seconds / ours:.0%} of our time)" for name, seconds in bare.items()
        )
        print(f"an epoch of {len(work.seeds)} replicates, D {D}: ours {1000 * ours:.0f} ms; bare products: {told}")


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
        ways: dict[str, Callable[[], float]] = {
            f"ours {precision} {scheduler}": lambda p=precision, s=scheduler: ours(work, folder, p, s)  # type: ignore[misc]
            for precision in options.precision
            for scheduler in options.scheduler
            if "ours" not in options.skip
        }
        if "tune" not in options.skip:
            ways["tune"] = lambda: tuned(work, folder)
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
                fraction(work, folder, precision, options.rounds)


def report(work: Work, times: dict[str, list[float]]) -> None:
    """Print medians, and how many times faster ours are."""
    print(
        f"{work.configurations} configurations × {len(work.seeds)} seeds, batch size {work.batch_size}, {work.epochs} epochs:"
    )
    medians = {name: statistics.median(seconds) for name, seconds in times.items()}
    for name, seconds in times.items():
        ratios = ", ".join(
            f"{medians[name] / medians[own]:.2f} × {own}" for own in medians if own.startswith("ours") and own != name
        )
        print(f"{name:<24} {medians[name]:7.1f} s (of {', '.join(f'{one:.1f}' for one in seconds)})  {ratios}")


if __name__ == "__main__":
    main()
