"""Kill a sweep at random moments and start it again, until it ends; then compare it with one that was left alone.

    python bench/chaos.py                       20 kills without a scheduler: the numbers must be the same
    python bench/chaos.py --seeds 2..20         the same with rounds of further seeds
    python bench/chaos.py --scheduler asha      20 kills with ASHA: every rung must agree with all that is recorded

The kills are, in turn: the driver (kill -9), a worker, all of Ray, the driver (Ctrl-C). About ten minutes on 2 cores.
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
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from mvsa_tune.config import Asha
from mvsa_tune.results.schema import FINISHED, STOPPED
from mvsa_tune.results.store import Store
from workload import SWEEPS

DIFFERENT = ["sweep", "seconds", "finished_at", "code", "command"]  # between two sweeps of the same numbers
KINDS = ("driver", "worker", "ray", "ctrl-c")
EPOCHS = 60
FLAGS = (
    *("--demo", "--D", *range(8, 72, 4), "--lr", 1e-4, 1e-3, 3e-3),
    *("--batch-size", 64, "--epochs", EPOCHS, "--quiet"),
)


def start(folder: Path, *flags: object, script: str = "grid.py") -> subprocess.Popen[str]:
    """Start a sweep in `folder`."""
    command = [sys.executable, "-X", "faulthandler", str(SWEEPS / script), *map(str, flags)]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def descendants(pid: int) -> dict[int, str]:
    """Return the command line of each process that a process has started, directly or indirectly, by process id."""
    table = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                table[int(entry.name)] = (parent, (entry / "cmdline").read_text().replace("\0", " "))
            except OSError:
                continue  # it has ended
    lines: dict[int, str] = {}
    parents = {pid}
    while parents:
        parents = {child for child, (parent, _) in table.items() if parent in parents and child not in lines}
        lines |= {child: table[child][1] for child in parents}
    return lines


def kill(process: subprocess.Popen[str], kind: str) -> int:
    """Kill the driver, a worker or all of Ray; return how many processes were killed."""
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


def disturb(folder: Path, flags: Sequence[object], kills: int, rng: random.Random) -> Counter[str]:
    """Run the sweep to its end through kills; return how many there were of each kind."""
    results = folder / "results" / "chaos"
    done: Counter[str] = Counter()
    while True:
        process = start(folder, *flags, "--name", "chaos")
        deadline = time.monotonic() + 600
        while process.poll() is None:
            wait(process, results, rng)
            kind = KINDS[done.total() % len(KINDS)]
            if done.total() < kills and process.poll() is None and kill(process, kind):
                done[kind] += 1
                print(f"  kill {done.total():>2}: {kind}, {rows(results)} rows", flush=True)
                if kind != "worker":
                    break
            if time.monotonic() > deadline:
                raise SystemExit("the sweep hangs")
        try:
            out, _ = process.communicate(timeout=120)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGABRT)  # faulthandler prints where it hangs
            raise SystemExit(f"the driver hangs after the kill of {kind}:\n{process.communicate()[0]}") from None
        print(f"  exit {process.returncode}: {(out.strip().splitlines() or [''])[-1][:150]}", flush=True)
        if process.returncode == 0:
            return done


def wait(process: subprocess.Popen[str], folder: Path, rng: random.Random) -> None:
    """Wait up to ten seconds or, as often, for a few more rows: on a busy machine a start alone takes ten seconds."""
    if rng.random() < 0.5:
        time.sleep(rng.uniform(0.1, 10))
        return
    target = rows(folder) + rng.randint(1, 6)
    while process.poll() is None and rows(folder) < target:
        time.sleep(0.02)


def rows(folder: Path) -> int:
    """Return the number of rows in a results folder's trials.csv."""
    path = folder / "trials.csv"
    return path.read_bytes().count(b"\n") - 1 if path.exists() else 0


def main() -> None:
    """Run the sweep undisturbed and disturbed, and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--scheduler", choices=["asha", "none"], default="none")
    parser.add_argument("--seeds", default="3", help="of the sweep; 2..20 for rounds of further seeds")
    parser.add_argument("--seed", type=int, default=0, help="of the kills")
    options = parser.parse_args()
    # Ctrl-C is ignored in the background, and the sweeps would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        print("undisturbed, every trial to its end")
        flags = [*FLAGS, "--seeds", options.seeds, "--scheduler"]
        start(folder, *flags, "none", "--name", "calm").communicate()
        print(f"disturbed, scheduler {options.scheduler}")
        kills = disturb(folder, [*flags, options.scheduler], options.kills, random.Random(options.seed))
        print(f"{kills.total()} kills: {dict(kills)}")
        assert kills.total() == options.kills, "the sweep ended too soon"
        disturbed, undisturbed = (Store(folder / "results" / name) for name in ("chaos", "calm"))
        if options.scheduler == "none":
            check_same(disturbed, undisturbed)
            print("rows and tables are those of the undisturbed sweep")
        else:
            check_rungs(disturbed, undisturbed)


def check_same(disturbed: Store, undisturbed: Store) -> None:
    """Check that rows and tables are those of the undisturbed sweep, to the last digit."""
    stores = disturbed, undisturbed
    first, second = (store.rows().drop(columns=DIFFERENT) for store in stores)
    pd.testing.assert_frame_equal(first, second, check_exact=True)
    tables = [(store.folder / "tables.md").read_text().replace(store.folder.name, "") for store in stores]
    assert tables[0] == tables[1]


def check_rungs(disturbed: Store, undisturbed: Store) -> None:
    """Check that every stop is one of ASHA's, every curve the undisturbed one, and that every trial has its row."""
    recorded = disturbed.recorded((FINISHED, STOPPED))
    assert recorded == [config.id for config in disturbed.manifest.configs]
    full, cut = undisturbed.scores(), disturbed.scores()
    milestones = Asha().milestones(EPOCHS)
    for trial, curve in cut.items():
        np.testing.assert_array_equal(curve, full[trial][: len(curve)])
        assert len(curve) in (*milestones, EPOCHS)
        if len(curve) < EPOCHS:  # then a better trial came as far
            assert any(len(other) >= len(curve) and other[len(curve) - 1] > curve[-1] for other in cut.values())
    stopped = sum(len(curve) < EPOCHS for curve in cut.values())
    epochs = sum(map(len, cut.values())) / (EPOCHS * len(cut))
    best = max(curve[-1] for curve in cut.values() if len(curve) == EPOCHS)
    print(
        f"{stopped} of {len(cut)} stopped, {epochs:.0%} of the epochs; each curve is the undisturbed sweep's up to its "
        f"stop; best {best:.3f}, undisturbed {max(curve[-1] for curve in full.values()):.3f}"
    )


if __name__ == "__main__":
    main()
