"""Measure where the seconds go from `python sweeps/grid.py` to the first trained epoch.

    python bench/startup.py [--rounds 3]      20 s on 2 cores

Each round is a fresh process that runs the grid for two configurations of one epoch each; printed are the medians of
the moments, from the start of the process. Then: how long --help, an input error and the first lines of --dry-run take.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

SWEEPS = Path(__file__).parents[1] / "sweeps"


def watched(started: float, flags: list[str]) -> None:
    """Run the grid in this process, and print when each step was done, in seconds after `started`."""
    moments: dict[str, float] = {}

    def note(moment: str) -> None:
        moments.setdefault(moment, time.time() - started)

    def note_return(owner: Any, name: str, moment: str) -> None:
        """Note when a function returns for the first time."""
        function: Callable[..., Any] = getattr(owner, name)

        def noting(*arguments: Any, **named: Any) -> Any:
            result = function(*arguments, **named)
            note(moment)
            return result

        setattr(owner, name, noting)

    note("Python has started")
    from mvsa_tune import sweeps
    from mvsa_tune.tune.plan import make_plan

    note("flags can be read")
    note_return(sweeps, "carry_out", "tables are written")
    options = sweeps.GRID.parse(flags)
    make_plan(options, sweeps.GRID.requested(options))
    note("the plan is made and the caches are checked")
    from mvsa_tune.tune import runner

    note("Ray and Tune are imported")
    from ray import tune

    from mvsa_tune.tune.callbacks import Recorder
    from mvsa_tune.tune.trainable import RESULT

    note_return(runner, "_searcher", "the results folder is ready")
    note_return(runner, "_scratch", "Ray runs")
    note_return(tune, "Tuner", "torch is imported, and the tuner is built")
    note_return(Recorder, "on_trial_start", "Tune has started a trial")
    record = Recorder.on_trial_result

    def on_trial_result(self: Recorder, **info: Any) -> None:
        if result := info["result"].get(RESULT):
            trained = time.time() - started  # of the last of both trials
            moments["its worker is up and has its vectors"] = trained - result.seconds
            moments["its first epoch is trained"] = trained
        record(self, **info)

    Recorder.on_trial_result = on_trial_result  # type: ignore[assignment, method-assign]
    assert sweeps.GRID.main(flags) == 0
    print(json.dumps(moments))


def first_output(command: list[object], until: str) -> float:
    """Return the seconds until a command ends, or writes a line that begins with `until`."""
    started = time.perf_counter()
    with subprocess.Popen(
        [*map(str, command)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if until and line.startswith(until):
                break
        else:
            process.wait()
        seconds = time.perf_counter() - started
        process.kill()
    return seconds


def main() -> None:
    """Measure and print."""
    from workload import make_set, set_flags, work_folder

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with work_folder() as folder:
        print(make_set(folder))
        flags = [*set_flags(folder), "--lr", "1e-4", "2e-5", "--epochs", 1, "--results"]
        rounds = []
        for number in range(options.rounds):
            command = [__file__, "watched", time.time(), *flags, folder / f"results-{number}"]
            ended = subprocess.run([sys.executable, *map(str, command)], capture_output=True, text=True, check=True)
            rounds.append(json.loads(ended.stdout.splitlines()[-1]))
        before = 0.0
        for moment in rounds[0]:
            at = statistics.median(moments[moment] for moments in rounds)
            print(f"{at:6.2f} s  (+{at - before:.2f})  {moment}")
            before = at
        for name, script, until, more in (
            ("--help", "grid", "", ["--help"]),
            ("an input error", "grid", "", ["--lr", "-1"]),
            ("--dry-run, what will run", "grid", "machine", [*flags, folder / "new", "--dry-run"]),
            ("finetune.py --dry-run, what will run", "finetune", "machine", ["--data", folder / "set", "--dry-run"]),
        ):
            command = [sys.executable, SWEEPS / f"{script}.py", *more]
            times = [first_output(command, until) for _ in range(options.rounds)]
            print(f"{statistics.median(times):6.2f} s  {name}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["watched"]:
        watched(float(sys.argv[2]), sys.argv[3:])
    else:
        main()
