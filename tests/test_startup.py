"""What a person waits for: nothing heavy is imported before it is needed."""

import subprocess
import sys
from pathlib import Path

import pytest

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


def imported(code: str, cwd: Path) -> set[str]:
    """Return the heavy libraries that a fresh process has imported after it ran `code`, even if that failed."""
    lines = ("import contextlib, sys", "with contextlib.suppress(SystemExit):", f"    {code}")
    whole = "\n".join([*lines, "print(*sys.modules, file=sys.stderr)"])
    ended = subprocess.run([sys.executable, "-c", whole], cwd=cwd, capture_output=True, text=True, check=True)
    return HEAVY & set(ended.stderr.splitlines()[-1].split())


@pytest.mark.parametrize("name", SWEEPS)
@pytest.mark.parametrize("flags", [["--help"], ["--data", "nowhere"]])
def test_help_and_input_errors_of_a_sweep_import_nothing_heavy(name: str, flags: list[str], tmp_path: Path) -> None:
    assert not imported(f"from mvsa_tune.sweeps import SWEEPS; SWEEPS[{name!r}].main({flags})", tmp_path)


@pytest.mark.parametrize("name", SWEEPS)
def test_a_plan_is_outlined_before_anything_heavy_is_imported(name: str, tiny: Path) -> None:
    """Only what has to be loaded or measured waits for torch."""
    block = f"sys.modules.update(dict.fromkeys({sorted(HEAVY)}))"  # so that importing one raises ImportError
    flags = ["--data", str(tiny), "--pairs", "eye+ear", "--dry-run"]
    code = f"import sys; {block}; from mvsa_tune.sweeps import SWEEPS; SWEEPS[{name!r}].main({flags})"
    ended = subprocess.run([sys.executable, "-c", code], cwd=tiny, capture_output=True, text=True, check=False)
    assert "ImportError" in ended.stderr or "ModuleNotFoundError" in ended.stderr
    assert all(f"\n{word} " in ended.stdout for word in ("trials", "stopping", "machine"))


@pytest.mark.parametrize("flags", [["--help"], ["embed", "--help"], ["audit", "--data", "nowhere"]])
def test_help_and_input_errors_of_the_other_commands_import_nothing_heavy(flags: list[str], tmp_path: Path) -> None:
    assert not imported(f"from mvsa_tune.cli import main; main({flags})", tmp_path)


def test_heads_are_named_and_checked_without_torch(tmp_path: Path) -> None:
    code = "from mvsa_tune.config import Config; from mvsa_tune.models.heads import HEADS"
    assert not imported(f"{code}; Config(head='gated'); assert HEADS", tmp_path)


def test_a_sweep_starts_without_what_only_training_and_tables_need(tmp_path: Path) -> None:
    assert imported("import mvsa_tune.tune.runner", tmp_path) <= {"ray", "pandas", "pyarrow"}


def test_labels_are_predicted_without_ray(tmp_path: Path) -> None:
    assert "ray" not in imported("import mvsa_tune.inference.predict", tmp_path)
