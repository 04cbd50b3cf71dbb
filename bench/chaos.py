"""Kill a sweep at random moments and start it again, until it ends; then compare it with one that was left alone.

    python bench/chaos.py                       at least 20 kills, without a scheduler: the same numbers
    python bench/chaos.py --scheduler asha      with ASHA: every rung consistent with all that is recorded

What is killed, in turn: the driver (kill -9), a worker, all of Ray, and the driver by Ctrl-C. About ten minutes on 2
cores.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd

from mvsa_tune.config import Asha
from mvsa_tune.results.schema import FINISHED, STOPPED
from mvsa_tune.results.store import Store

SWEEPS = Path(__file__).parents[1] / "sweeps"
DIFFERENT = ["sweep", "seconds", "finished_at", "code", "command"]  # between two sweeps of the same numbers
KINDS = ("driver", "worker", "ray", "ctrl-c")
EPOCHS = 60
FLAGS = [
    "--demo",
    "--D",
    *range(8, 72, 4),
    "--lr",
    "1e-4",
    "1e-3",
    "3e-3",
    "--batch-size",
    64,
    "--seeds",
    3,
    "--epochs",
    EPOCHS,
]


def start(folder: Path, *flags: object, script: str = "grid.py") -> subprocess.Popen[str]:
    """Start a sweep in `folder`."""
    command = [sys.executable, "-X", "faulthandler", str(SWEEPS / script), *map(str, flags)]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def descendants(pid: int) -> dict[int, str]:
    """Command lines of the processes that a process has started, and those have started."""
    table = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                table[int(entry.name)] = (parent, (entry / "cmdline").read_text().replace("\0", " "))
            except OSError:
                continue  # it has ended
    found: dict[int, str] = {}
    fresh = {pid}
    while fresh:
        fresh = {child for child, (parent, _) in table.items() if parent in fresh and child not in found}
        found |= {child: table[child][1] for child in fresh}
    return found


def kill(process: subprocess.Popen[str], kind: str) -> int:
    """Kill one kind of thing; return how many processes were."""
    if kind in ("driver", "ctrl-c"):
        victims, number = [process.pid], signal.SIGKILL if kind == "driver" else signal.SIGINT
    else:
        below, number = descendants(process.pid), signal.SIGKILL
        victims = [pid for pid, line in below.items() if kind == "ray" or "Trainable" in line]
        victims = victims[:1] if kind == "worker" else victims  # one trial's process
    for pid in victims:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue
    return len(victims)


def disturb(folder: Path, scheduler: str, kills: int, rng: random.Random) -> Counter[str]:
    """Run the sweep to its end through kills; return how many there were of each kind.

    Half of them fall within ten seconds, half when a few more rows are there: a start takes as long as the machine is
    busy.
    """
    done: Counter[str] = Counter()
    while True:
        process = start(folder, *FLAGS, "--quiet", "--scheduler", scheduler, "--name", "chaos")
        ends = time.monotonic() + 600
        while process.poll() is None:
            wait(process, folder / "results" / "chaos", rng)
            kind = KINDS[sum(done.values()) % len(KINDS)]
            if sum(done.values()) < kills and process.poll() is None and kill(process, kind):
                done[kind] += 1
                print(f"  kill {sum(done.values()):>2}: {kind}, {rows(folder / 'results' / 'chaos')} rows", flush=True)
                if kind != "worker":
                    break
            if time.monotonic() > ends:
                raise SystemExit("the sweep hangs")
        try:
            out, _ = process.communicate(timeout=120)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGABRT)  # it tells where it hangs
            raise SystemExit(f"the driver hangs after the kill of {kind}:\n{process.communicate()[0]}") from None
        print(f"  exit {process.returncode}: {(out.strip().splitlines() or [''])[-1][:150]}", flush=True)
        if process.returncode == 0:
            return done


def wait(process: subprocess.Popen[str], folder: Path, rng: random.Random) -> None:
    """Wait for a random moment of a sweep's life."""
    if rng.random() < 0.5:
        time.sleep(rng.uniform(0.1, 10))
        return
    enough = rows(folder) + rng.randint(1, 6)
    while process.poll() is None and rows(folder) < enough:
        time.sleep(0.02)


def rows(folder: Path) -> int:
    """Rows on record in a results folder."""
    path = folder / "trials.csv"
    return path.read_text().count("\n") - 1 if path.exists() else 0


def main() -> None:
    """Compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--scheduler", choices=["asha", "none"], default="none")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background it would be ignored, by the sweeps too
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        print("undisturbed, every trial to its end")
        calm = start(folder, *FLAGS, "--quiet", "--scheduler", "none", "--name", "calm")
        calm.communicate()
        print(f"disturbed, scheduler {options.scheduler}")
        done = disturb(folder, options.scheduler, options.kills, random.Random(options.seed))
        print(f"{sum(done.values())} kills: {dict(done)}")
        assert sum(done.values()) == options.kills, "the sweep ended too soon"
        chaos, whole = (Store(folder / "results" / one) for one in ("chaos", "calm"))
        if options.scheduler == "none":
            pd.testing.assert_frame_equal(
                chaos.rows().drop(columns=DIFFERENT), whole.rows().drop(columns=DIFFERENT), check_exact=True
            )
            tables = [
                (store.folder / "tables.md").read_text().replace(store.folder.name, "") for store in (chaos, whole)
            ]
            assert tables[0] == tables[1]
            print("rows and tables are those of the undisturbed sweep")
        else:
            check_rungs(chaos, whole)


def check_same(chaos: Store, whole: Store) -> None:
    """The rows are those of the undisturbed sweep to the last digit, and so are the tables."""
    pd.testing.assert_frame_equal(
        chaos.rows().drop(columns=DIFFERENT), whole.rows().drop(columns=DIFFERENT), check_exact=True
    )
    ours, theirs = ((store.folder / "tables.md").read_text().replace(store.folder.name, "") for store in (chaos, whole))
    assert ours == theirs


def check_rungs(chaos: Store, whole: Store) -> None:
    """Every stop is one that ASHA makes, every curve is the undisturbed one, and each trial has its row."""
    statuses = (FINISHED, STOPPED)
    assert chaos.recorded(statuses) == [config.id for config in chaos.manifest.configs]
    full, cut = whole.scores(), chaos.scores()
    milestones = Asha().milestones(EPOCHS)
    for trial, curve in cut.items():
        np.testing.assert_array_equal(curve, full[trial][: len(curve)])
        assert len(curve) in (*milestones, EPOCHS)
        if len(curve) < EPOCHS:  # a better one came as far
            assert any(len(other) >= len(curve) and other[len(curve) - 1] > curve[-1] for other in cut.values())
    stopped = sum(len(curve) < EPOCHS for curve in cut.values())
    epochs = sum(map(len, cut.values())) / (EPOCHS * len(cut))
    best = max(curve[-1] for curve in cut.values() if len(curve) == EPOCHS)
    print(
        f"{stopped} of {len(cut)} stopped, {epochs:.0%} of the epochs; each curve is the undisturbed one up to its "
        f"stop; best {best:.3f}, undisturbed {max(curve[-1] for curve in full.values()):.3f}"
    )


if __name__ == "__main__":
    main()
