"""Where the seconds go from `python sweeps/grid.py` to the first trained epoch.

    python bench/startup.py [--rounds 3]      20 s on 2 cores

Each round is a fresh process that runs the grid for one configuration and one epoch; medians of the moments, counted
from the start of the process. And how long --help, an input error and the first lines of --dry-run, of both kinds of
sweep, take.
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


def watched(folder: Path) -> None:
    """Run the grid in this process, and print when what had happened."""
    begun = float(sys.argv[3])
    moments = {"Python has started": time.time() - begun}

    def note(where: Any, name: str, moment: str) -> None:
        """Note when a function returns for the first time."""
        function: Callable[..., Any] = getattr(where, name)

        def noting(*arguments: Any, **named: Any) -> Any:
            result = function(*arguments, **named)
            moments.setdefault(moment, time.time() - begun)
            return result

        setattr(where, name, noting)

    sys.path.insert(0, str(SWEEPS))
    import grid
    from mvsa_tune.tune import sweep

    moments["flags can be read"] = time.time() - begun
    note(sweep, "make_plan", "the plan is made and the caches are checked")
    note(grid, "carry_out", "tables are written")
    options = grid.parse(flags(folder))
    sweep.make_plan(options, grid.configurations(options))
    import mvsa_tune.tune.runner

    moments["Ray and Tune are imported"] = time.time() - begun
    from ray import tune

    from mvsa_tune.training.result import TrialResult
    from mvsa_tune.tune.callbacks import Recorder

    note(mvsa_tune.tune.runner, "_searcher", "the results folder is ready")
    note(mvsa_tune.tune.runner, "_scratch", "Ray runs")
    note(tune, "Tuner", "torch is imported, and the tuner is built")
    note(Recorder, "on_trial_start", "Tune has started a trial")
    recorded = Recorder.on_trial_result

    def on_result(self: Recorder, *arguments: Any, **named: Any) -> None:
        outcome: TrialResult = named["result"]["outcome"]
        moments["its worker is up and has its vectors"] = time.time() - begun - outcome.seconds
        moments["its first epoch is trained"] = time.time() - begun
        recorded(self, *arguments, **named)

    Recorder.on_trial_result = on_result  # type: ignore[method-assign]
    assert grid.main(flags(folder)) == 0
    print(json.dumps(moments))


def flags(folder: Path) -> list[str]:
    """Those of the grid."""
    found = ["--data", str(folder / "set"), "--cache", str(folder / "cache"), "--pairs", "mobilenet_v2+minilm"]
    return [
        *found,
        "--lr",
        "1e-4",
        "2e-5",
        "--epochs",
        "1",
        "--quiet",
        "--results",
        str(folder / f"results-{time.time()}"),
    ]


def main() -> None:
    """Measure."""
    from replicas import make_set, work_folder

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with work_folder() as folder:
        print(make_set(folder))
        rounds = []
        for _ in range(options.rounds):
            command = [sys.executable, __file__, "watched", str(folder), str(time.time())]
            ended = subprocess.run(command, capture_output=True, text=True, check=True)
            rounds.append(json.loads(ended.stdout.splitlines()[-1]))
        before = 0.0
        for moment in rounds[0]:
            at = statistics.median(one[moment] for one in rounds)
            print(f"{at:6.2f} s  (+{at - before:.2f})  {moment}")
            before = at
        for name, script, more in (
            ("--help", "grid", ["--help"]),
            ("an input error", "grid", ["--lr", "-1"]),
            ("--dry-run, what will run", "grid", [*flags(folder), "--dry-run"]),
            ("finetune.py --dry-run, what will run", "finetune", ["--data", str(folder / "set"), "--dry-run"]),
        ):
            command = [sys.executable, str(SWEEPS / f"{script}.py"), *more]
            times = [first_output(command, until="machine" if "dry" in name else "") for _ in range(options.rounds)]
            print(f"{statistics.median(times):6.2f} s  {name}")


def first_output(command: list[str], until: str) -> float:
    """Seconds until a command ends, or writes a line that begins with `until`."""
    started = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if until and line.startswith(until):
                break
        else:
            process.wait()
        taken = time.perf_counter() - started
        process.kill()
    return taken


if __name__ == "__main__":
    watched(Path(sys.argv[2])) if sys.argv[1:2] == ["watched"] else main()
