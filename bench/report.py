"""How long the report of a large sweep takes: `python bench/report.py --trials 1000`.

Trials are simulated (`simulated.py`); nothing is trained.
What is timed is a process of its own, `python -m mvsa_tune report`, from its start to its end: imports, every trial's
answers, statistics, plots, the page.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mvsa_tune.config import Config, Replicate
from mvsa_tune.data.dataset import Dataset, Sample
from mvsa_tune.data.labels import LABELS
from mvsa_tune.results.manifest import SweepManifest
from mvsa_tune.results.store import Store
from mvsa_tune.training.result import TrialResult
from simulated import case

ROOT = Path(__file__).parents[1]


def configurations(count: int, rng: np.random.Generator) -> tuple[Config, ...]:
    """As a search would sample them."""
    return tuple(
        Config(
            image_encoder=str(rng.choice(["eye", "retina"])),
            text_encoder="ear",
            D=int(rng.choice([64, 128, 256])),
            lr=float(f"{10 ** rng.uniform(-5, -3):.4g}"),
            batch_size=int(rng.choice([32, 128, 512])),
            dropout=float(f"{rng.uniform(0.1, 0.6):.4g}"),
            epochs=20,
        )
        for _ in range(count)
    )


def outcome(right: NDArray[np.bool_], labels: NDArray[np.int64], epochs: int, rng: np.random.Generator) -> TrialResult:
    """A trial whose answers grow right `(R, N)` over its first half."""
    R, N = right.shape
    rises = rng.integers(0, epochs // 2, (R, N))
    known = right & (np.arange(epochs)[:, None, None] >= rises)
    predicted = np.where(known, labels, (labels + rng.integers(1, 3, (R, N))) % 3).astype(np.uint8)
    counts = np.zeros((epochs, R, 3, 3), dtype=np.int32)
    place = np.arange(epochs)[:, None, None], np.arange(R)[:, None]
    np.add.at(counts, (*place, labels, predicted), 1)
    loss = (0.6 + 0.4 / (1 + np.arange(epochs)))[:, None] + rng.normal(0, 0.01, (epochs, R))
    told = np.tile(labels.astype(np.uint8), (R, 1))
    return TrialResult(
        loss, loss + 0.1, counts, np.tile(np.arange(N, dtype=np.int32), (R, 1)), told, predicted, 1.0, "cpu"
    )


def fill(folder: Path, trials: int, seeds: int, samples: int) -> None:
    """Write a sweep of simulated trials."""
    rng = np.random.default_rng(0)
    labels = rng.choice(3, samples, p=[0.3, 0.1, 0.6])
    every = [Sample(str(row), int(label), ROOT / "none", "", "utf-8") for row, label in enumerate(labels)]
    dataset = Dataset(folder, tuple(every))
    configs, replicates = configurations(trials, rng), tuple(Replicate(42 + seed) for seed in range(seeds))
    counts = tuple(int(count) for count in np.bincount(labels, minlength=3))
    sweep = SweepManifest(
        "simulated", "0" * 64, "reference", LABELS, counts, {}, False, "reference", {0: "d"}, "reference", replicates,
        configs, {}, {}, {}, {}, {}, 1,
    )  # fmt: skip
    store = Store(folder)
    store.begin(sweep, dataset)
    truth = 0.70 + 0.05 * rng.beta(2, 2, trials)
    for start in range(0, trials, 50):
        right = case(rng, truth[start : start + 50], seeds, samples).correct
        for config, one in zip(configs[start : start + 50], right, strict=True):
            provenance = {"code": "simulated", "command": "simulated"}
            store.add(config, replicates, outcome(one, labels, config.epochs, rng), provenance)
    store.end()


def main() -> None:
    """Time it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--samples", type=int, default=400)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "simulated"
        fill(folder, options.trials, options.seeds, options.samples)
        before = time.perf_counter()
        subprocess.run([sys.executable, "-m", "mvsa_tune", "report", str(folder)], check=True, cwd=ROOT)
        seconds = time.perf_counter() - before
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        memory, busy = used.ru_maxrss / 1024, used.ru_utime + used.ru_stime
        size = (folder / "report.html").stat().st_size / 1e6
    print(
        f"{options.trials:,} trials of {options.seeds} seeds on {options.samples} samples: {seconds:.1f} s "
        f"({busy:.1f} s of CPU time), {memory:,.0f} MB of memory, page {size:.1f} MB"
    )


if __name__ == "__main__":
    main()
