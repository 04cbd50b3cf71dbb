"""What a person waits for: nothing heavy is imported before it is needed."""

import subprocess
import sys
from pathlib import Path

from mvsa_tune.sweeps import SWEEPS

HEAVY = {
    "torch",
    "ray",
    "pandas",
    "scipy",
    "statsmodels",
    "sklearn",
    "transformers",
    "torchvision",
    "optuna",
    "pyarrow",
}


def imported(cwd: Path, *statements: str) -> set[str]:
    """Return the heavy libraries that a fresh process has imported after these statements, each of which may exit."""
    lines = [f"with contextlib.suppress(SystemExit):\n    {statement}" for statement in statements]
    whole = "\n".join(["import contextlib, sys", *lines, "print(*sys.modules, file=sys.stderr)"])
    ended = subprocess.run([sys.executable, "-c", whole], cwd=cwd, capture_output=True, text=True, check=True)
    return HEAVY & set(ended.stderr.splitlines()[-1].split())


def test_help_and_input_errors_of_a_sweep_import_nothing_heavy(tmp_path: Path) -> None:
    calls = [f"SWEEPS[{name!r}].main({flags})" for name in SWEEPS for flags in (["--help"], ["--data", "nowhere"])]
    assert not imported(tmp_path, "from mvsa_tune.sweeps import SWEEPS", *calls)


def test_a_plan_is_outlined_before_anything_heavy_is_imported(tiny: Path) -> None:
    """Only what has to be loaded or measured waits for torch."""
    flags = ["--data", str(tiny), "--pairs", "eye+ear", "--dry-run"]
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({sorted(HEAVY)}))\n"  # so that importing one raises ImportError
        "from mvsa_tune.sweeps import SWEEPS\nfor sweep in SWEEPS.values():\n"
        f"    try:\n        sweep.main({flags})\n    except ImportError:\n        print('# imported')"
    )
    ended = subprocess.run([sys.executable, "-c", code], cwd=tiny, capture_output=True, text=True, check=False)
    *outlines, last = ended.stdout.split("# imported")
    assert len(outlines) == len(SWEEPS) and last == "\n", ended.stderr
    assert all(f"\n{word} " in outline for outline in outlines for word in ("trials", "stopping", "machine"))


def test_help_and_input_errors_of_the_other_commands_import_nothing_heavy(tmp_path: Path) -> None:
    calls = [f"main({flags})" for flags in (["--help"], ["embed", "--help"], ["audit", "--data", "nowhere"])]
    assert not imported(tmp_path, "from mvsa_tune.cli import main", *calls)


def test_heads_are_named_and_checked_without_torch(tmp_path: Path) -> None:
    code = "from mvsa_tune.config import Config; from mvsa_tune.models.heads import HEADS"
    assert not imported(tmp_path, f"{code}; Config(head='gated'); assert HEADS")


def test_a_sweep_starts_without_what_only_training_and_tables_need(tmp_path: Path) -> None:
    assert imported(tmp_path, "import mvsa_tune.tune.runner") <= {"ray", "pandas", "pyarrow"}


def test_labels_are_predicted_without_ray(tmp_path: Path) -> None:
    assert "ray" not in imported(tmp_path, "import mvsa_tune.inference.predict")
