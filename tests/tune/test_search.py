"""`sweeps/search.py` as a person meets it: a whole tiny search, what it refuses, how it goes on."""

import subprocess
from pathlib import Path

import pandas as pd
import pytest

from conftest import grid
from mvsa_tune.results.store import Store
from mvsa_tune.sweeps import SEARCH

SPACE = ("--D", "4..16", "--lr", "1e-3..0.1", "--batch-size", "8", "16", "--epochs", "6", "--grace-period", "2")


def search(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    return grid(*arguments, cwd=cwd, kind=SEARCH)


def test_a_search_confirms_its_finalists_on_fresh_seeds_and_goes_on_with_a_larger_budget(tiny: Path) -> None:
    flags = ["--data", tiny, "--pairs", "eye+ear", *SPACE, "--seeds", 2, "--finalists", 2, "--confirm-seeds", 3]
    flags += ["--cpus-per-trial", 1]  # the one CPU of the tests' Ray: one trial at a time
    first = search(*flags, "--trials", 8, cwd=tiny.parent)
    assert first.returncode == 0, first.stderr
    folder = tiny.parent / "results" / "search"
    store, confirmed = Store(folder), Store(folder / "confirmed")
    assert len(store.configs()) == 8 and store.recorded(("stopped",))
    chosen = confirmed.configs()
    assert len(chosen) == 2 and {config.id for config in chosen} <= set(store.recorded())
    seen, fresh = ({one.seed for one in one_sweep.manifest.replicates} for one_sweep in (store, confirmed))
    assert seen == {42, 43} and fresh == {44, 45, 46}
    # both numbers stand in the table
    summary, again = (pd.read_csv(one / "summary.csv").set_index("trial_id") for one in (folder, confirmed.folder))
    text = (folder / "tables.md").read_text()
    for config in chosen:
        line = next(line for line in text.split("## Finalists")[1].splitlines() if f"| {config.name}" in line)
        for frame in (summary, again):
            assert f"{frame.loc[config.id, 'val_acc_best_mean']:.3f} ±" in line
    end = first.stdout.splitlines()[-20:]
    answer = " ".join(map(str.strip, end)).partition("Best of the 2 finalists, on fresh seeds: ")[2]
    best = again["val_acc_cross_mean"].idxmax()
    assert next(config for config in chosen if config.id == best).name in answer.partition(" cross-fitted accuracy")[0]
    row = next(line for line in end if line.startswith("1 "))
    assert f"{again.loc[best, 'val_acc_cross_mean']:.3f} [" in row
    assert f"{summary.loc[best, 'val_acc_cross_mean']:.3f} " in row.partition("]")[2]

    more = search(*flags, "--trials", 10, cwd=tiny.parent)
    assert more.returncode == 0, more.stderr
    assert "8 configurations are recorded" in more.stdout and len(store.configs()) == 10
    assert {config.id for config in chosen} <= {config.id for config in Store(folder / "confirmed").configs()}

    # One trial at a time, begun anew without a pause: the same trials in the same order, with the same numbers.
    anew = search(*flags, "--trials", 10, "--name", "anew", cwd=tiny.parent)
    assert anew.returncode == 0, anew.stderr
    both = [Store(tiny.parent / "results" / name).rows() for name in ("search", "anew")]
    columns = ["trial_id", "seed", "status", "epochs_run", "val_acc_best", "val_acc_cross", "val_loss_last"]
    pd.testing.assert_frame_equal(both[0][columns], both[1][columns])

    # the budget is spent and the finalists are confirmed: nothing is left to do
    before = store.trials_path.read_bytes()
    again = search("--config", folder / "sweep.yaml", cwd=tiny.parent)
    assert again.returncode == 0
    assert store.trials_path.read_bytes() == before


BAD = {
    "a range that falls": (("--lr", "0.1..0.001"), "--lr 0.1..1e-3: write LOW..HIGH"),
    "a value out of bounds": (("--dropout", "0.5..1.5"), "--dropout 1.5"),
    "half a pair": (("--pairs", "eye"), "IMAGE_ENCODER+TEXT_ENCODER"),
    "no finalists": (("--finalists", "0"), "--finalists: from 1 to 100"),
    "no budget": (("--trials", "0"), "--trials 0: must be greater than 0"),
    "a head that is none": (("--head", "magic"), "--head magic"),
    "any D for attention": (("--head", "co-attention"), "--D 32..1024: --head co-attention needs multiples of 8; list"),
    "no cache": (("--pairs", "resnet50+roberta-base"), "have no embedding cache"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_told_before_anything_starts(case: str, tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments, told = BAD[case]
    pairs = [] if "--pairs" in arguments else ["--pairs", "eye+ear"]
    assert SEARCH.main(["--data", str(tiny), "--results", str(tiny / "results"), *pairs, *arguments]) == 2
    assert told in capsys.readouterr().err and not (tiny / "results").exists()


def test_the_plan_of_a_search_starts_nothing(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert SEARCH.main(["--data", str(tiny), "--pairs", "eye+ear", *SPACE, "--minutes", "2.5", "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert "D 4..16" in printed and "at most 2.5 minutes" in printed and "ASHA" in printed
