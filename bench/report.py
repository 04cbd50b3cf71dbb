"""Time the report of a large sweep of simulated trials (`simulated.py`); nothing is trained.

    python bench/report.py [--trials 1000] [--seeds 3] [--samples 400]

`mvsa-tune report` is timed from its start to its end, in a separate process: imports, reading every trial's
predictions, statistics, plots, the page.
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

from mvsa_tune import NUMERICS_VERSION
from mvsa_tune.config import Config, Replicate
from mvsa_tune.data.dataset import Dataset, Sample
from mvsa_tune.data.readers import LABELS
from mvsa_tune.results.manifest import SweepManifest
from mvsa_tune.results.store import Store
from mvsa_tune.training.result import TrialResult
from simulated import case

ROOT = Path(__file__).parents[1]


def configurations(count: int, rng: np.random.Generator) -> tuple[Config, ...]:
    """Return random configurations, as a search would sample them."""
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


def simulated_result(
    correct: NDArray[np.bool_], labels: NDArray[np.int64], epochs: int, rng: np.random.Generator
) -> TrialResult:
    """Return a result whose predictions become `correct` `(R, N)` over the first half of the epochs."""
    R, N = correct.shape
    first = rng.integers(0, epochs // 2, (R, N))  # the first epoch in which a sample may be correct
    by_epoch = correct & (np.arange(epochs)[:, None, None] >= first)
    predicted = np.where(by_epoch, labels, (labels + rng.integers(1, 3, (R, N))) % 3).astype(np.uint8)
    confusion = np.zeros((epochs, R, 3, 3), dtype=np.int32)
    np.add.at(confusion, (np.arange(epochs)[:, None, None], np.arange(R)[:, None], labels, predicted), 1)
    loss = (0.6 + 0.4 / (1 + np.arange(epochs)))[:, None] + rng.normal(0, 0.01, (epochs, R))
    return TrialResult(
        train_loss=loss.astype(np.float32),
        val_loss=(loss + 0.1).astype(np.float32),
        confusion=confusion,
        rows=np.tile(np.arange(N, dtype=np.int32), (R, 1)),
        labels=np.tile(labels.astype(np.uint8), (R, 1)),
        predicted=predicted,
        seconds=1.0,
        device="cpu",
    )


def fill(folder: Path, trials: int, seeds: int, samples: int) -> None:
    """Write a sweep of simulated trials."""
    rng = np.random.default_rng(0)
    labels = rng.choice(3, samples, p=[0.3, 0.1, 0.6])
    pairs = [Sample(str(row), int(label), ROOT / "none", "", "utf-8") for row, label in enumerate(labels)]
    dataset = Dataset(folder, tuple(pairs))
    configs, replicates = configurations(trials, rng), tuple(Replicate(42 + seed) for seed in range(seeds))
    manifest = SweepManifest(
        data="simulated",
        data_fingerprint="0" * 64,
        layout="reference",
        classes=LABELS,
        label_counts=tuple(np.bincount(labels, minlength=3).tolist()),
        dropped={},
        demo=False,
        split="reference",
        folds={0: "0"},
        protocol="reference",
        replicates=replicates,
        configs=configs,
        space={},
        not_run={},
        skipped={},
        vectors={},
        finetuned={},
        numerics=NUMERICS_VERSION,
    )
    store = Store(folder)
    store.begin(manifest, dataset)
    truth = 0.70 + 0.05 * rng.beta(2, 2, trials)
    for start in range(0, trials, 50):
        simulated = case(rng, truth[start : start + 50], seeds, samples)
        for config, correct in zip(configs[start : start + 50], simulated.correct, strict=True):
            result = simulated_result(correct, labels, config.epochs, rng)
            store.add(config, replicates, result, {"code": "simulated", "command": "simulated"})
    store.end()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--samples", type=int, default=400)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "simulated"
        fill(folder, options.trials, options.seeds, options.samples)
        started = time.perf_counter()
        subprocess.run([sys.executable, "-m", "mvsa_tune", "report", str(folder)], check=True, cwd=ROOT)
        seconds = time.perf_counter() - started
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        memory, busy = used.ru_maxrss / 1024, used.ru_utime + used.ru_stime
        size = (folder / "report.html").stat().st_size / 1e6
    print(
        f"{options.trials:,} trials of {options.seeds} seeds on {options.samples} samples: {seconds:.1f} s "
        f"({busy:.1f} s of CPU time), {memory:,.0f} MB of memory, page {size:.1f} MB"
    )


if __name__ == "__main__":
    main()
