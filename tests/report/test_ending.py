"""The end of a sweep in the terminal: the answer, short, and flags that repeat it."""

import json
import shlex
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from mvsa_tune.config import Config
from mvsa_tune.report.ending import ending, flags_of
from mvsa_tune.results.schema import read_rows, write_rows
from mvsa_tune.results.store import Store
from mvsa_tune.stats.analysis import analyse, share_of_others
from mvsa_tune.sweeps import FINETUNE, GRID

BOTH = Config(image_encoder="eye", text_encoder="hf:my folder/bert@mean")
CONFIGS = {
    "the defaults": BOTH,
    "long numbers": replace(BOTH, lr=0.0031415926535897, dropout=1 / 3, D=77),
    "text alone": replace(BOTH, ablation=1, image_encoder=None, head="linear"),
    "picture alone": replace(BOTH, ablation=2, text_encoder=None, epochs=7, normalise="l2"),
    "fine-tuned": replace(BOTH, encoder_lr=1e-5, batchnorm="updated", batch_size=64),
}


@pytest.mark.parametrize("case", CONFIGS)
def test_the_flags_of_a_configuration_ask_for_it_and_nothing_else(case: str) -> None:
    config = CONFIGS[case]
    sweep = FINETUNE if config.finetuned else GRID
    for others in ([BOTH], []):
        assert sweep.requested(sweep.parse(shlex.split(flags_of(config, others)))) == [config]


def test_the_answer_is_short_and_first(swept: Path) -> None:
    analysis = analyse(Store(swept))
    text = ending(analysis)
    lines = text.splitlines()
    best = analysis.ranked[0]
    assert lines[0] == f"Best of 6 trained to the end: {best.config.name}"
    assert f"{best.values.mean():.3f}, 95 % {best.cross_fitted.low:.3f} to {best.cross_fitted.high:.3f}" in lines[1]
    marked = [line for line in lines if line[:1].isdigit() and " = " in line[:6]]
    assert len(marked) == len(analysis.may_be_best())
    assert len(lines) <= 25 and all(len(line) <= 100 or str(swept) in line for line in lines)
    assert "|" not in text and "#" not in text and "stopped" not in text
    assert f"tensorboard --logdir {swept / 'tensorboard'}" in lines[-1]


def test_what_was_stopped_or_failed_is_counted(swept: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(swept, tmp_path / "copy"))
    rows, _ = read_rows(folder / "trials.csv")
    trials = list(dict.fromkeys(row["trial_id"] for row in rows))
    statuses = {trials[0]: "stopped", trials[1]: "failed: no luck"}
    write_rows(folder / "trials.csv", [{**row, "status": statuses.get(row["trial_id"], row["status"])} for row in rows])
    text = ending(analyse(Store(folder)))
    assert "1 of 6 configurations was stopped early by ASHA; --scheduler none trains it to the end" in text
    assert "1 of 6 configurations failed; " in text and text.startswith("Best of 4 ")
    write_rows(folder / "trials.csv", [{**row, "status": "failed: no luck"} for row in rows])
    assert ending(analyse(Store(folder))).startswith("No configuration was trained to its end.")


def test_a_search_that_leaves_its_trials_stopped_does_not_promise_to_train_them(swept: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(swept, tmp_path / "copy"))
    rows, _ = read_rows(folder / "trials.csv")
    stopped = {row["trial_id"] for row in rows[:-2]}
    write_rows(
        folder / "trials.csv", [{**row, "status": "stopped"} if row["trial_id"] in stopped else row for row in rows]
    )
    manifest = json.loads((folder / "sweep.json").read_text())
    (folder / "sweep.json").write_text(json.dumps({**manifest, "space": {"lr": "1e-3..1e-2"}}))
    text = ending(analyse(Store(folder)))
    assert f"{len(stopped)} of 6 configurations were stopped early by ASHA\n" in text and "--scheduler" not in text


@pytest.mark.parametrize(
    ("some", "others", "words"),
    [
        (1, 1, "the other one"),
        (2, 2, "both others"),
        (3, 3, "all of the other 3"),
        (1, 2, "1 of the other 2"),
    ],
)
def test_those_that_may_be_the_best_are_counted_in_words(some: int, others: int, words: str) -> None:
    assert share_of_others(some, others) == words
