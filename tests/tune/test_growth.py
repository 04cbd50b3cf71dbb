"""A sweep grows: the same name with more of anything trains what is missing, and gives the numbers of one begun with
all of it.
"""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from conftest import add_cache, grid, make_set
from mvsa_tune.config import Replicate
from mvsa_tune.data.dataset import read_dataset
from mvsa_tune.results.store import Store

FLAGS = ("--pairs", "eye+ear", "--D", 4, 8, "--lr", 0.01, "--batch-size", 8, "--epochs", 9)
EXACT = ["trial_id", "seed", "fold", "status", "val_acc_best", "best_epoch", "val_loss_last", "val_acc_cross"]


@pytest.fixture
def distinct(tmp_path: Path) -> Path:
    """Forty labelled pairs, no two texts the same, with the caches of a pair `eye+ear`."""
    folder = make_set(tmp_path / "distinct")
    for number, path in enumerate(sorted((folder / "data").glob("*.txt"))):
        path.write_text(f"{chr(97 + number % 26) * 3} {chr(97 + number // 26) * 2}", encoding="utf-8")
    dataset = read_dataset(folder)
    add_cache(dataset, "eye", "image")
    add_cache(dataset, "ear", "text", seed=1)
    return folder


def sweep(folder: Path, name: str, *flags: object, expected: int = 0) -> tuple[Store, str]:
    ended = grid("--data", folder, *FLAGS, *flags, "--name", name, cwd=folder.parent)
    assert ended.returncode == expected, ended.stderr
    return Store(folder.parent / "results" / name), ended.stdout + ended.stderr


def numbers(store: Store) -> pd.DataFrame:
    return store.rows()[EXACT].sort_values(["trial_id", "fold", "seed"], ignore_index=True)


def check_same(grown: Store, whole: Store) -> None:
    """Every number is the same, to the last digit, and so is what the tables are made of."""
    pd.testing.assert_frame_equal(numbers(grown), numbers(whole), check_exact=True)
    assert grown.manifest.conflicts(whole.manifest) == [] and set(grown.recorded()) == set(whole.recorded())
    for trial in whole.recorded():
        assert grown.replicates(trial) == whole.replicates(trial)
        first, second = grown.result(trial), whole.result(trial)
        for name in ("train_loss", "val_loss", "predicted", "rows", "labels", "confusion"):
            np.testing.assert_array_equal(getattr(first, name), getattr(second, name))
    tables = [pd.read_csv(store.folder / "tables.csv") for store in (grown, whole)]
    pd.testing.assert_frame_equal(*tables)


@pytest.mark.parametrize("split", ["kfold:3", "holdout:0.2"])
def test_seeds_added_later_are_those_of_a_sweep_begun_with_them(distinct: Path, split: str) -> None:
    flags = ["--scheduler", "none", "--split", split]
    grown, _ = sweep(distinct, "grown", *flags, "--seeds", 3)
    first = grown.rows().set_index(["trial_id", "seed", "fold"])["finished_at"]
    grown, shown = sweep(distinct, "grown", *flags, "--seeds", 5)
    assert "2 to train, 2 of them further seeds or folds" in shown
    whole, _ = sweep(distinct, "whole", *flags, "--seeds", 5)
    check_same(grown, whole)
    later = grown.rows().set_index(["trial_id", "seed", "fold"])["finished_at"]
    assert later.loc[first.index].equals(first)  # what was there was not trained again
    # fewer are asked for: what is there stays, and nothing is trained
    again, shown = sweep(distinct, "grown", *flags, "--seeds", 2)
    assert "2 of 2 configurations are recorded" in shown and "; 0 to train" in shown
    check_same(again, whole)


def test_values_pairs_and_epochs_added_later_are_further_configurations(distinct: Path) -> None:
    add_cache(read_dataset(distinct), "lens", "image", seed=2)
    flags = ["--scheduler", "none", "--seeds", 2]
    grown, _ = sweep(distinct, "grown", *flags)
    before = grown.rows()
    sweep(distinct, "grown", *flags, "--D", 8, 12, "--seeds", 3)
    sweep(distinct, "grown", *flags, "--epochs", 5)
    grown, _ = sweep(distinct, "grown", *flags, "--pairs", "lens+ear", "--D", 4)
    trials = {config.id: config for config in grown.configs()}
    points = [(config.image_encoder, config.D, config.epochs) for config in trials.values()]
    assert points == [("eye", 4, 9), ("eye", 8, 9), ("eye", 12, 9), ("eye", 4, 5), ("eye", 8, 5), ("lens", 4, 9)]
    seeds = [len(grown.replicates(trial)) for trial in trials]
    assert seeds == [2, 3, 3, 2, 2, 2]
    assert before.merge(grown.rows(), how="inner").shape == before.shape
    table = pd.read_csv(grown.folder / "tables.csv").set_index("trial_id")
    assert [table.loc[trial, "n"] for trial in trials] == seeds
    assert "Seeds of the sweep: 42, 43, 44" in (grown.folder / "tables.md").read_text()


def test_under_a_scheduler_what_finished_gets_more_seeds_and_what_was_stopped_stays(distinct: Path) -> None:
    flags = ["--D", 4, 8, 12, "--lr", 0.03, 1e-5, "--grace-period", 2, "--reduction-factor", 2]
    flags += ["--cpus-per-trial", 1]  # one at a time: what is stopped depends on the order of arrival
    store, _ = sweep(distinct, "asha", *flags, "--seeds", 2)
    finished, stopped = set(store.recorded()), set(store.recorded(("stopped",)))
    assert finished and stopped
    before = store.rows()
    store, _ = sweep(distinct, "asha", *flags, "--seeds", 4)
    assert set(store.recorded()) == finished and set(store.recorded(("stopped",))) == stopped
    assert {len(store.replicates(trial)) for trial in finished} == {4}
    assert {len(store.replicates(trial)) for trial in stopped} == {2}
    assert before.merge(store.rows(), how="inner").shape == before.shape
    # without the scheduler every configuration is trained to its end, on all seeds
    store, _ = sweep(distinct, "asha", *flags, "--seeds", 4, "--scheduler", "none")
    whole, _ = sweep(distinct, "whole", *flags, "--seeds", 4, "--scheduler", "none")
    check_same(store, whole)
    assert store.manifest.replicates == tuple(Replicate(seed) for seed in (42, 43, 44, 45))


def test_other_vectors_labels_or_data_are_refused_with_both_values(distinct: Path) -> None:
    sweep(distinct, "kept", "--seeds", 2)
    before = Store(distinct.parent / "results" / "kept").rows()
    _, shown = sweep(distinct, "kept", "--seeds", 2, "--split", "kfold:2", expected=2)
    assert "split: reference there, kfold:2 now" in shown
    add_cache(read_dataset(distinct), "eye", "image", seed=9)
    store, shown = sweep(distinct, "kept", "--seeds", 3, expected=2)
    assert "vectors of eye image:" in shown and " there, " in shown
    pd.testing.assert_frame_equal(store.rows(), before)
