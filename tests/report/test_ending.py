"""The end of a sweep in the terminal: the answer, short, and flags that repeat it."""

import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from conftest import make_set
from mvsa_tune.config import Config, Replicate
from mvsa_tune.data.dataset import read_dataset
from mvsa_tune.report.ending import command_for, ending, flags_of
from mvsa_tune.results.schema import read_rows, write_rows
from mvsa_tune.results.store import Store
from mvsa_tune.stats.analysis import analyse, share_of_others
from mvsa_tune.sweeps import FINETUNE, GRID, SWEEPS
from mvsa_tune.tune.plan import make_plan
from test_store import sweep

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
        assert sweep.requested(sweep.parse([word for group in flags_of(config, others) for word in group])) == [config]


def command(text: str) -> list[str]:
    """Return the words that a shell takes from the command after *again*."""
    lines = text[text.index("again: ") :].removeprefix("again: ").splitlines()
    end = next(number for number, line in enumerate(lines) if not line.endswith(" \\"))
    assert all(line.split()[0].startswith("--") for line in lines[1 : end + 1])
    printed = subprocess.run(
        ["sh", "-c", r"printf '%s\0' " + "\n".join(lines[: end + 1])], capture_output=True, text=True
    )
    return printed.stdout.split("\0")[:-1]


def test_the_command_at_the_end_trains_the_best_alone_on_the_same_data_and_seeds(swept: Path) -> None:
    store = Store(swept)
    analysis = analyse(store)
    program, kind, *flags = command(ending(analysis))
    assert (program, kind) == ("mvsa-tune", "grid")
    options = GRID.parse(flags)
    plan = make_plan(options, GRID.requested(options))
    assert list(plan.configs) == [analysis.ranked[0].config]
    assert plan.replicates == store.manifest.replicates and plan.split.name == store.manifest.split
    assert plan.dataset.fingerprint == store.manifest.data_fingerprint


@pytest.mark.parametrize("case", CONFIGS)
def test_the_command_has_what_reads_the_data_and_breaks_between_flags_alone(case: str, tmp_path: Path) -> None:
    config, folds = CONFIGS[case], (0, 1)
    replicates = tuple(Replicate(seed, fold) for seed in (3, 50) for fold in folds)
    manifest = sweep(read_dataset(make_set(tmp_path / "my set")), configs=(config,), replicates=replicates)
    manifest = replace(manifest, split="kfold:2", data=str(tmp_path / "my set"))
    store = SimpleNamespace(folder=tmp_path, manifest=manifest, replicates=lambda trial: replicates)
    store.configs, store.settings = lambda: [config], Store(tmp_path).settings
    weights = {"weights": ["eye=/w 1", "ear=/w 2"], "text": "raw"} if config.finetuned else {"cache": "my caches"}
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump({"labels": "a,b", "split": "kfold:2", "lr": 7, **weights}))
    lines = command_for(config, store)
    assert all(len(line) <= 91 or str(tmp_path) in line for line in lines)
    _, kind, *flags = command("again: " + "\n".join(lines))
    options = SWEEPS[kind].parse(flags)
    assert SWEEPS[kind].requested(options) == [config]
    assert (options.split, options.seed_list, options.labels) == ("kfold:2", [3, 50], "a,b")
    assert options.data == tmp_path / "my set"
    assert [getattr(options, name) for name in weights] == [
        Path(value) if name == "cache" else value for name, value in weights.items()
    ]
    (tmp_path / "sweep.yaml").write_text("not: [YAML")  # damaged: what it had is left out
    assert "a,b" not in " ".join(command_for(config, store))


def test_the_answer_is_short_and_first(swept: Path) -> None:
    analysis = analyse(Store(swept))
    text = ending(analysis)
    lines = text.splitlines()
    best = analysis.ranked[0]
    assert lines[0] == f"Best of 6 trained to the end: {best.config.name}"
    assert f"{best.values.mean():.3f}, 95 % {best.cross_fitted.low:.3f} to {best.cross_fitted.high:.3f}" in lines[1]
    marked = [line for line in lines if line[:1].isdigit() and " = " in line[:6]]
    assert len(marked) == len(analysis.may_be_best())
    (header,) = (line for line in lines if "best epoch" in line)
    assert header.split()[:3] == ["may", "be", "best"] and all(line[header.index("may")] == "=" for line in marked)
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
