"""Measure what a trial costs besides its training, and whether the driver's memory grows: tiny trials on the demo set.

python bench/trials.py [--trials 1000] [--scheduler none]      about two minutes on 2 cores
"""

import argparse
import os
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import psutil

from chaos import rows
from mvsa_tune.results.store import Store
from mvsa_tune.sweeps import GRID


def watch(folder: Path, moments: dict[int, tuple[float, float]], over: threading.Event) -> None:
    """Note time and this process's memory in MB as rows appear, by their number."""
    process = psutil.Process()
    while not over.wait(0.1):
        # The first moment of each number: the last one's goes on through tables and report.
        moments.setdefault(rows(folder), (time.perf_counter(), process.memory_info().rss / 1e6))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--scheduler", choices=["asha", "none"], default="none")
    options = parser.parse_args()
    flags = [
        "--demo",
        "--D",
        "8",
        "--batch-size",
        "512",
        "--epochs",
        "4",
        "--seeds",
        "1",
        "--quiet",
        "--grace-period",
        "1",
        "--scheduler",
    ]
    rates = [f"{rate:.6g}" for rate in np.geomspace(1e-4, 1e-2, options.trials)]
    moments: dict[int, tuple[float, float]] = {}
    over = threading.Event()
    folder = Path("results") / "demo"
    with tempfile.TemporaryDirectory() as name:
        os.chdir(name)
        threading.Thread(target=watch, args=(folder, moments, over), daemon=True).start()
        code = GRID.main([*flags, options.scheduler, "--lr", *rates])
        over.set()
        recorded = Store(folder).rows()
    assert code == 0 and len(recorded) == options.trials
    counts = sorted(count for count in moments if count > 0)
    targets = options.trials // 10, options.trials
    first, last = (min(counts, key=lambda count: abs(count - target)) for target in targets)
    wall = (moments[last][0] - moments[first][0]) / (last - first)
    cores = os.cpu_count() or 1
    training = recorded["seconds"].mean() / cores
    print(
        f"{options.trials} trials, scheduler {options.scheduler}: {1000 * wall:.0f} ms a trial, of which training "
        f"{1000 * training:.0f} ms (its share of {cores} cores): {1000 * (wall - training):.0f} ms beside it"
    )
    print(f"driver's memory: {moments[first][1]:.0f} MB at trial {first}, {moments[last][1]:.0f} MB at trial {last}")


if __name__ == "__main__":
    main()
