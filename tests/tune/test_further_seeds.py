"""`--seeds FIRST..LAST`: every configuration gets the first seeds, those between which seeds decide get more."""

import re
import shutil
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from conftest import grid
from mvsa_tune.data.dataset import Dataset
from mvsa_tune.results.schema import read_rows, write_rows
from mvsa_tune.results.store import Store
from mvsa_tune.stats.allocation import allocate
from mvsa_tune.stats.analysis import analyse
from mvsa_tune.sweeps import GRID, SEARCH
from mvsa_tune.tune.plan import make_plan
from mvsa_tune.tune.todo import further_trials

FLAGS = ("--pairs", "demo-pixels+demo-words", "--D", 8, 16, "--lr", 0.01, "--batch-size", 64, "--ablation", 0, 1)
EXACT = ["trial_id", "seed", "fold", "status", "val_acc_best", "val_loss_last", "val_acc_cross"]


def sweep(demo: Dataset, where: Path, *flags: object) -> tuple[Store, str]:
    ended = grid("--data", demo.folder, *FLAGS, "--epochs", 6, *flags, "--name", "seeds", cwd=where)
    assert ended.returncode == 0, ended.stderr
    return Store(where / "results" / "seeds"), ended.stdout


def numbers(store: Store) -> pd.DataFrame:
    return store.rows()[EXACT].sort_values(["trial_id", "seed"], ignore_index=True)


def test_the_seeds_trained_are_those_that_decide_after_a_kill_too(demo: Dataset, tmp_path: Path) -> None:
    (tmp_path / "whole").mkdir()
    flags = ["--scheduler", "none", "--quiet"]
    whole, _ = sweep(demo, tmp_path / "whole", *flags, "--seeds", 20)
    accuracies = {s.config.id: s.values.mean(axis=1) for s in analyse(whole).ranked}
    trials = sorted(accuracies)
    wanted = dict(zip(trials, allocate([accuracies[trial] for trial in trials], 2, 20), strict=True))
    assert 2 in wanted.values() and len(set(wanted.values())) > 1
    expected = numbers(whole)
    expected = expected[expected["seed"] < 42 + expected["trial_id"].map(wanted)].reset_index(drop=True)

    (tmp_path / "some").mkdir()
    some, shown = sweep(demo, tmp_path / "some", "--scheduler", "none", "--seeds", "2..20")
    pd.testing.assert_frame_equal(numbers(some), expected, check_exact=True)
    assert "Seeds     choosing now loses" in shown and "): enough" in shown
    joined = re.findall(r"\(n (\d+)\)", shown)  # of further seeds the mean over all
    assert {int(n) for n in joined} == set(range(2, 1 + max(wanted.values())))
    assert "\nseeds: 2..20\n" in (some.folder / "sweep.yaml").read_text()
    table = pd.read_csv(some.folder / "tables.csv").set_index("trial_id")
    assert table["n"].to_dict() == wanted
    most = 42 + max(wanted.values())
    assert (
        f"Seeds of the sweep: {', '.join(map(str, range(42, most)))} (--seeds 2..20: "
        in (some.folder / "tables.md").read_text()
    )
    assert len(some.trained.replicates) == max(wanted.values()) and len(some.manifest.replicates) == 20

    # Killed: the last seed of one of them is not there.
    shutil.copytree(tmp_path / "some", tmp_path / "killed")
    path = tmp_path / "killed" / "results" / "seeds" / "trials.csv"
    rows, _ = read_rows(path)
    rows.remove(max(rows, key=lambda row: int(row["seed"])))
    write_rows(path, rows)
    killed, _ = sweep(demo, tmp_path / "killed", "--scheduler", "none", "--seeds", "2..20")
    pd.testing.assert_frame_equal(numbers(killed), expected, check_exact=True)


def test_what_was_stopped_gets_no_further_seeds(demo: Dataset, tmp_path: Path) -> None:
    flags = ["--grace-period", 1, "--reduction-factor", 2, "--cpus-per-trial", 1, "--quiet"]
    store, _ = sweep(demo, tmp_path, *flags, "--lr", 0.02, 1e-5, "--seeds", "2..20")
    finished, stopped = store.recorded(), store.recorded(("stopped",))
    assert finished and stopped and len(finished) + len(stopped) == 8
    assert {len(store.replicates(trial)) for trial in stopped} == {2}
    assert min(len(store.replicates(trial)) for trial in finished) >= 2


@pytest.mark.parametrize("seeds", ["1..3", "5..3", "4..4", "3..", "a..b", "3..5..7"])
def test_seeds_that_are_no_range_are_refused(seeds: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert GRID.main(["--seeds", seeds]) == 2
    assert f"--seeds: {seeds}: " in capsys.readouterr().err


def test_further_seeds_need_the_same_samples_and_a_grid(demo: Dataset, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--data", str(demo.folder), "--pairs", "demo-pixels+demo-words", "--seeds", "2..4", "--dry-run"]
    assert GRID.main([*flags, "--split", "holdout:0.2"]) == 2
    assert "each seed draws other samples" in capsys.readouterr().err
    assert SEARCH.main(flags) == 2
    assert "--confirm-seeds" in capsys.readouterr().err


def test_all_that_the_folder_ranks_is_compared_and_the_commands_configurations_get_more(
    demo: Dataset, swept: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--data", str(demo.folder), "--pairs", "demo-pixels+demo-words", "--D", "4", "--lr", "0.01"]
    options = GRID.parse([*flags, "--batch-size", "32", "--epochs", "6", "--seeds", "2..400"])
    plan = make_plan(options, GRID.requested(options))
    store = Store(swept)
    trials = further_trials(plan, store, quiet=False)
    assert len(store.recorded()) == 6 and " of 6 get more" in capsys.readouterr().out
    assert [(trial.config.D, trial.config.ablation, trial.is_addition) for trial in trials] == [(4, 0, True)]
    assert {r.seed for r in trials[0].replicates} == set(range(45, 45 + len(trials[0].replicates)))


def test_a_list_of_seeds_and_a_range_of_counts_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert GRID.main(["--demo", "--seeds", "2..5", "--seed-list", "1", "2", "--dry-run"]) == 2
    assert "--seed-list with --seeds 2..5: give one of them" in capsys.readouterr().err


def test_the_plan_says_how_many_seeds_each_begins_with(demo: Dataset, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--data", str(demo.folder), "--pairs", "demo-pixels+demo-words", "--seeds", "2..4", "--split", "kfold:3"]
    options = GRID.parse(flags)
    plan = make_plan(options, GRID.requested(options))
    assert len(plan.replicates) == 2 * 3 and len(plan.further) == 2 * 3
    assert {replicate.seed for replicate in plan.further} == {44, 45}
    assert plan.largest_stack == 2 * 3 and replace(plan, further=plan.further * 5).largest_stack == 12
    assert GRID.main([*flags, "--dry-run"]) == 0
    assert "each with 2 to 4 seeds on 3 folds, where they decide" in capsys.readouterr().out
