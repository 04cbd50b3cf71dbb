"""Everyday changes touch one file or two: each is made to a copy of the package, which a sweep then runs.

The copy goes on in a results folder that the package as it is has begun: nothing of it is trained again.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from conftest import ROOT, add_cache, grid
from mvsa_tune.data.dataset import read_dataset

# What is added, and by which edits: file, the text that is replaced, and what it becomes.
SEAMS: dict[str, list[tuple[str, str, str]]] = {
    "an encoder preset": [
        (
            "encoders/registry.py",
            '    "demo-pixels": Encoder(',
            '    "small-pixels": Encoder({"image": 192}, demo.load_pixels),\n    "demo-pixels": Encoder(',
        )
    ],
    "a head": [
        (
            "models/heads.py",
            '    "concat": HeadSpec(concat),\n',
            '    "concat": HeadSpec(concat),\n    "joined": HeadSpec(lambda shape: concat(shape), 4),\n',
        )
    ],
    "a hyperparameter": [
        (
            "config.py",
            "    dropout: float = setting(",
            '    clip: float = setting(0.0, "vectors cut off at ± this; 0 for never", within(0, 100), '
            "search=Choice((0.0, 2.0)))\n"
            "    dropout: float = setting(",
        ),
        (
            "training/trainer.py",
            '        mixed = self.config.precision == "bf16"\n        with torch',
            "        if self.config.clip:\n"
            "            inputs = {name: x.clamp(-self.config.clip, self.config.clip) for name, x in inputs.items()}\n"
            '        mixed = self.config.precision == "bf16"\n        with torch',
        ),
    ],
    "a split": [
        (
            "data/splits.py",
            "SPLIT_KINDS = [\n",
            "def _halves(match: re.Match[str], dataset: Dataset, seeds: Sequence[int]) -> Split:\n"
            "    rows = np.arange(len(dataset.labels))\n"
            '    return Split("halves", {0: rows[::2]}, {0: rows[1::2]}, {0: rows[:0]})\n\n\n'
            'SPLIT_KINDS = [\n    SplitKind("halves", "halves", _halves),\n',
        )
    ],
    "a column": [
        (
            "results/schema.py",
            "SCORES = (\n",
            'SCORES = (\n    _score("val_loss_least", lambda result: result.val_loss.min(axis=0), '
            'header="least loss"),\n',
        )
    ],
}
FILES = {"an encoder preset": 1, "a head": 1, "a hyperparameter": 2, "a split": 1, "a column": 1}


def test_each_change_touches_as_many_files_as_promised() -> None:
    assert {name: len({file for file, _, _ in edits}) for name, edits in SEAMS.items()} == FILES


@pytest.fixture
def changed(tmp_path: Path) -> Path:
    """A copy of the package with every change made."""
    copy = tmp_path / "copy"
    shutil.copytree(ROOT / "mvsa_tune", copy / "mvsa_tune", ignore=shutil.ignore_patterns("__pycache__"))
    for edits in SEAMS.values():
        for file, before, after in edits:
            path = copy / "mvsa_tune" / file
            text = path.read_text(encoding="utf-8")
            assert text.count(before) == 1, (file, before)
            path.write_text(text.replace(before, after), encoding="utf-8")
    return copy


def test_a_folder_goes_on_with_every_change_and_nothing_is_trained_again(tiny: Path, changed: Path) -> None:
    def run(*sweeps: tuple[object, ...]) -> list[str]:
        """Run sweeps with the changed package, all in one process; return what each prints."""
        calls = [[str(word) for word in (*words, "--data", tiny, "--no-report")] for words in sweeps]
        code = (
            f"from mvsa_tune.sweeps import SWEEPS\nfor kind, *flags in {calls}:\n"
            "    assert SWEEPS[kind].main(flags) == 0\n    print('# the next')"
        )
        environment = {**os.environ, "PYTHONPATH": str(changed)}
        ended = subprocess.run(
            [sys.executable, "-c", code], cwd=tiny.parent, env=environment, capture_output=True, text=True, check=False
        )
        assert ended.returncode == 0, ended.stderr
        return ended.stdout.split("# the next")

    add_cache(read_dataset(tiny), "small-pixels", "image", width=192)
    sweep = ["--D", 4, "--lr", 0.01, "--batch-size", 8, "--epochs", 3, "--seeds", 2, "--scheduler", "none"]
    first = grid("--data", tiny, "--pairs", "eye+ear", *sweep, "--name", "kept", cwd=tiny.parent)
    assert first.returncode == 0, first.stderr
    folder = tiny.parent / "results" / "kept"
    before = pd.read_csv(folder / "trials.csv")

    same, _, halves, search, _ = run(
        ("grid", "--pairs", "eye+ear", *sweep, "--name", "kept"),
        ("grid", "--pairs", "small-pixels+ear", *sweep, "--clip", 0, 0.5, "--head", "joined", "--name", "kept"),
        ("grid", "--pairs", "eye+ear", *sweep, "--split", "halves", "--dry-run"),
        ("search", "--pairs", "eye+ear", "--lr", 0.01, "--dry-run"),
    )
    assert "1 of 1 configurations are recorded" in same
    assert "halves: 20 samples to train, 20 to validate" in halves
    assert re.search(r"clip +0 2\b", search)
    rows = pd.read_csv(folder / "trials.csv")
    pd.testing.assert_frame_equal(rows[before.columns].iloc[:2], before)
    assert set(rows["clip"]) == {0.0, 0.5} and rows["trial_id"].nunique() == 3
    assert rows["val_loss_least"].isna().tolist() == [True] * 2 + [False] * 4
    assert set(rows["image_encoder"]) == {"eye", "small-pixels"} and set(rows["head"]) == {"concat", "joined"}
    clipped, whole = (rows[(rows["clip"] == clip) & (rows["head"] == "joined")] for clip in (0.5, 0.0))
    assert (clipped["val_loss_last"].to_numpy() != whole["val_loss_last"].to_numpy()).all()
    summary = pd.read_csv(folder / "summary.csv")
    assert summary["val_loss_least_mean"].isna().tolist() == [True, False, False]
    tables = pd.read_csv(folder / "tables.csv")
    assert tables["val_loss_least_mean"].notna().sum() == 2
    text = (folder / "tables.md").read_text()
    assert "least loss" in text and "clip=0.5" in text
