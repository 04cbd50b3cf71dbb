"""What a trial costs besides its training, and whether the driver's memory grows: 1,000 tiny trials on the demo set.

python bench/trials.py                 about two minutes on 2 cores
"""

import argparse
import os
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import psutil

import mvsa_tune  # noqa: F401  Ray reads what it sets
from mvsa_tune.results.store import Store


def watch(path: Path, seen: dict[int, tuple[float, float]], over: threading.Event) -> None:
    """Note time and this process's memory in MB as rows appear."""
    me = psutil.Process()
    while not over.wait(0.1):
        if path.exists():
            seen[path.read_bytes().count(b"\n") - 1] = (time.perf_counter(), me.memory_info().rss / 1e6)


def main() -> None:
    """Measure."""
    import sys

    sys.path.insert(0, str(Path(__file__).parents[1] / "sweeps"))
    import grid

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--scheduler", choices=["asha", "none"], default="none")
    options = parser.parse_args()
    rates = [f"{rate:.6g}" for rate in np.geomspace(1e-4, 1e-2, options.trials)]
    seen: dict[int, tuple[float, float]] = {}
    over = threading.Event()
    with tempfile.TemporaryDirectory() as name:
        os.chdir(name)
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
        ]
        threading.Thread(target=watch, args=(Path("results/demo/trials.csv"), seen, over), daemon=True).start()
        code = grid.main([*flags, "--scheduler", options.scheduler, "--lr", *rates])
        over.set()
        rows = Store(Path("results/demo")).rows()
    assert code == 0 and len(rows) == options.trials
    counts = sorted(count for count in seen if count > 0)
    first, last = (
        min(counts, key=lambda count: abs(count - wanted)) for wanted in (options.trials // 10, options.trials)
    )
    wall = (seen[last][0] - seen[first][0]) / (last - first)
    training = rows["seconds"].mean() / (os.cpu_count() or 1)
    print(
        f"{options.trials} trials, scheduler {options.scheduler}: {1000 * wall:.0f} ms a trial, of which training "
        f"{1000 * training:.0f} ms (its share of {os.cpu_count()} cores): {1000 * (wall - training):.0f} ms beside it"
    )
    print(f"driver's memory: {seen[first][1]:.0f} MB at trial {first}, {seen[last][1]:.0f} MB at trial {last}")


if __name__ == "__main__":
    main()
