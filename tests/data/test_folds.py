"""Sweeps over folds: replicates are seeds on folds, test scores are of the chosen epoch, and any split is rebuilt."""

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import accuracy_score, f1_score

from conftest import add_cache, grid, make_set
from mvsa_tune import protocols
from mvsa_tune.cli import main as cli
from mvsa_tune.config import Config, Replicate, union
from mvsa_tune.data.dataset import read_dataset
from mvsa_tune.data.splits import make_split
from mvsa_tune.errors import InputError
from mvsa_tune.inference.select import chosen_head
from mvsa_tune.protocols import PROTOCOLS, REFERENCE_COUNTS
from mvsa_tune.results.store import Store
from mvsa_tune.stats.summary import best, choose, summarise
from mvsa_tune.sweeps import FINETUNE, GRID, GRID_REFERENCE, SEARCH, Sweep
from mvsa_tune.training.trainer import Samples, StackTrainer, normalised
from mvsa_tune.tune.plan import Plan, make_plan
from test_splits import word, write

FEW = ["--pairs", "eye+ear", "--D", "4", "--lr", "0.01", "--batch-size", "8", "--epochs", "4", "--scheduler", "none"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty-one labelled pairs of different texts, with caches: no number of folds divides them."""
    folder = make_set(tmp_path_factory.mktemp("folds") / "set", count=41)
    for number in range(45):
        (folder / "data" / f"{100 + number}.txt").write_text(word(number))
    dataset = read_dataset(folder)
    add_cache(dataset, "eye", "image")
    add_cache(dataset, "ear", "text", seed=1)
    return folder


@pytest.fixture(scope="module")
def folded(data: Path) -> Path:
    """A sweep of two seeds on three folds of unequal size."""
    process = grid("--data", data, *FEW, "--ablation", 0, 1, 2, "--split", "kfold:3", "--seeds", 2, cwd=data.parent)
    assert process.returncode == 0, process.stderr
    return data.parent / "results" / "grid"


def train(data: Path, config: Config, replicate: Replicate, split: str) -> StackTrainer:
    """One replicate alone, without Ray."""
    dataset = read_dataset(data)
    made = make_split(split, dataset, [42, 43])
    paths = {"image": data / "embeddings" / "eye" / "image.npy", "text": data / "embeddings" / "ear" / "text.npy"}
    vectors = {m: torch.from_numpy(np.load(path, allow_pickle=False)[:41]) for m, path in paths.items()}
    scaled = {m: normalised(v, config.normalise) for m, v in vectors.items()}
    rows = [[torch.from_numpy(part[replicate.fold])] for part in (made.train, made.validation, made.test)]
    return StackTrainer(config, [replicate], Samples(scaled, torch.tensor(dataset.labels), 3), *rows)


def test_every_seed_is_trained_on_every_fold_as_it_would_be_alone(folded: Path, data: Path) -> None:
    rows = pd.read_csv(folded / "trials.csv").query("ablation == 0")
    assert list(zip(rows["seed"], rows["fold"], strict=True)) == [(s, f) for s in (42, 43) for f in (0, 1, 2)]
    assert set(rows["split"]) == {"kfold:3"} and rows["test_acc_best"].isna().all()
    store = Store(folded)
    config = next(config for config in store.configs() if config.ablation == 0)
    result = store.result(config.id)
    assert len({(fold >= 0).sum() for fold in result.rows}) > 1
    for r, (_, row) in enumerate(rows.iterrows()):
        alone = train(data, config, Replicate(row["seed"], row["fold"]), "kfold:3").fit()
        assert row["val_acc_best"] == pytest.approx(alone.accuracy.max())
        assert row["val_loss_last"] == pytest.approx(alone.val_loss[-1, 0], rel=1e-5)
        assert np.array_equal(result.best[r][result.rows[r] >= 0], alone.best[0])
    assert "each on 3 folds; split: kfold:3" in (folded / "tables.md").read_text()


def test_what_reads_predictions_reads_those_of_folds(
    folded: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Store(folded)
    config = next(config for config in store.configs() if config.ablation == 0)
    chosen = ["--config", config.id]
    assert cli(["errors", str(folded), *chosen]) == 0
    assert "41 validation samples in all, 13 to 14 of them for each replicate" in capsys.readouterr().out
    samples = pd.read_csv(folded / "errors.csv")
    assert len(samples) == 41 and set(samples["n"]) == {2}  # each is validated on once a seed
    result = store.result(config.id)
    rows = pd.read_csv(folded / "trials.csv").query("ablation == 0")
    correct = sum(
        accuracy * (fold >= 0).sum() for accuracy, fold in zip(rows["val_acc_best"], result.rows, strict=True)
    )
    assert samples["wrong"].sum() == pytest.approx(82 - correct)
    assert cli(["export", str(folded), *chosen, "--out", str(tmp_path)]) == 0
    assert "trained again: 0 of 82 validation predictions differ" in capsys.readouterr().out
    assert cli(["predict", str(folded), *chosen, "--refit"]) == 0
    assert "2 heads, trained on all 41 labelled samples" in capsys.readouterr().out


def test_modalities_are_compared_on_the_samples_of_their_folds(
    folded: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = next(config for config in Store(folded).configs() if config.ablation == 0)
    assert cli(["errors", str(folded), "--config", config.id]) == 0
    page = capsys.readouterr().out.split("## Each modality alone")[1]
    cells = [[cell.strip() for cell in line.split("|")] for line in page.splitlines() if line.startswith("| ")][2:]
    assert sum(float(row[2]) for row in cells) == pytest.approx(41 / 3, abs=0.2)
    assert sum(float(row[3]) for row in cells) == pytest.approx(1, abs=0.003)


def test_a_missing_split_file_is_an_error_that_names_it(folded: Path, tmp_path: Path) -> None:
    kept = (folded / "split.npz").read_bytes()
    (folded / "split.npz").unlink()
    store = Store(folded)
    config = next(config for config in store.configs() if config.ablation == 1)
    with pytest.raises(InputError, match=r"split\.npz is missing or damaged: the same sweep"):
        chosen_head(store, config, None, None)
    (folded / "split.npz").write_bytes(kept)


PARTS = {"train_1": range(16, 41), "val_1": range(7), "test_1": range(7, 16)}
PARTS |= {"train_2": range(25), "val_2": range(25, 32), "test_2": range(32, 41)}


@pytest.fixture(scope="module")
def cheema(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep by the protocol of Cheema et al. on two folds of files, of two configurations."""
    write(data / "splits", PARTS)
    flags = ["--data", data, "--pairs", "eye+ear", "--protocol", "cheema2021", "--lr", "0.1", "0.02", "--epochs", 20]
    process = grid(*flags, "--scheduler", "none", "--name", "cheema", cwd=data.parent)
    assert process.returncode == 0, process.stderr
    return data.parent / "results" / "cheema"


def test_a_protocol_is_its_papers_settings_where_no_flag_says_otherwise(cheema: Path) -> None:
    store = Store(cheema)
    paper = {"D": 128, "batch_size": 32, "dropout": 0.5, "normalise": "l2", "schedule": "plateau", "select": "loss"}
    assert all(getattr(config, name) == value for config in store.configs() for name, value in paper.items())
    assert [(config.lr, config.epochs) for config in store.configs()] == [(0.1, 20), (0.02, 20)]
    assert store.manifest.replicates == (Replicate(42, 1), Replicate(42, 2)) and store.manifest.split == "files:splits"
    no_files = PROTOCOLS["cheema2021"].split_for(cheema, REFERENCE_COUNTS, finetuned=True)
    assert no_files == "kfold:10:test"
    assert GRID.requested(GRID.parse([])) == union(GRID_REFERENCE)


@pytest.mark.parametrize(
    ("sweep", "flags", "counts", "split"),
    [
        (GRID, ["--pairs", "eye+ear"], (14, 13, 13), "reference"),
        (FINETUNE, [], (14, 13, 13), "reference-finetune"),
        (FINETUNE, ["--lr", "0.1", "--head", "concat"], (14, 13, 13), "reference-finetune"),
        (FINETUNE, ["--split", "reference"], (14, 13, 13), "reference"),
        (FINETUNE, [], REFERENCE_COUNTS, "reference"),
    ],
)
def test_the_references_rows_are_on_its_splits_and_other_data_on_one(
    sweep: Sweep,
    flags: list[str],
    counts: tuple[int, ...],
    split: str,
    tiny: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(protocols, "REFERENCE_COUNTS", counts)
    options = sweep.parse(["--data", str(tiny), *flags])
    assert make_plan(options, sweep.requested(options)).split.name == split


def test_test_scores_are_scikit_learns_of_the_epoch_of_the_least_loss(cheema: Path, data: Path) -> None:
    rows, labels = pd.read_csv(cheema / "trials.csv"), np.array(read_dataset(data).labels)
    configs = {config.id: config for config in Store(cheema).configs()}
    for (trial, fold), row in rows.set_index(["trial_id", "fold"]).iterrows():
        alone = train(data, configs[trial], Replicate(42, fold), f"files:{data / 'splits'}")
        predicted, least, epoch = None, np.inf, 0
        for number in range(1, 21):
            result = alone.advance(number)
            if result.val_loss[-1, 0] < least:
                predicted, least, epoch = result.test_predicted[-1, 0], result.val_loss[-1, 0], number
                accuracy = result.accuracy[-1, 0]
        true = labels[list(PARTS[f"test_{fold}"])]
        assert row["best_epoch"] == epoch and row["val_acc_best"] == pytest.approx(accuracy)
        assert row["test_acc_best"] == pytest.approx(accuracy_score(true, predicted))
        for average in ("macro", "weighted"):
            score = f1_score(true, predicted, average=average, labels=[0, 1, 2], zero_division=0)
            assert row[f"test_f1_{average}_best"] == pytest.approx(score)
        assert row["test_acc_last"] == pytest.approx(accuracy_score(true, result.test_predicted[-1, 0]))
    assert (rows["best_epoch"] < 20).any()


def test_the_tables_say_whose_protocol_and_show_the_mean_over_folds(cheema: Path) -> None:
    text, rows = (cheema / "tables.md").read_text(), pd.read_csv(cheema / "trials.csv")
    assert (
        text.startswith("# cheema: test accuracy")
        and "Protocol cheema2021: accuracy and weighted F1 on the test part" in text
    )
    assert (
        "at the epoch with the lowest validation loss over its 20 epochs" in text
        and "published" not in text.replace("publish no", "")
    )
    summary = pd.read_csv(cheema / "summary.csv")
    for _, line in summary.iterrows():
        trial_rows = rows[rows["trial_id"] == line["trial_id"]]
        for name in ("test_acc_best", "test_f1_weighted_best"):
            assert line[f"{name}_mean"] == pytest.approx(trial_rows[name].mean())
            assert f"| {trial_rows[name].mean():.3f} ± {trial_rows[name].std():.3f}" in text


def test_nothing_is_chosen_on_test_samples(cheema: Path) -> None:
    store = Store(cheema)
    recorded = {trial: store.result(trial) for trial in store.recorded()}
    before = store.scores(), best(summarise(store))
    for trial, result in recorded.items():  # the worst of all answers, and the best
        upside_down = {
            "test_predicted": (result.test_predicted + 1) % 3,
            "test_confusion": result.test_confusion[:, :, ::-1],
        }
        changed = dataclasses.replace(result, **upside_down)
        assert np.array_equal(changed.best_epoch, result.best_epoch)
        np.testing.assert_array_equal(changed.scores, before[0][trial])
    summary = summarise(store)
    for name in (column for column in summary if column.startswith("test_")):
        summary[name] = -summary[name]
    assert best(summary)["trial_id"] == before[1]["trial_id"] == choose(store, "best").id


def test_a_fold_file_that_has_changed_is_another_sweep(
    cheema: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(data / "splits", {"val_1": range(1, 8), "test_1": [0, *range(8, 16)]})
    flags = ["--data", data, "--pairs", "eye+ear", "--protocol", "cheema2021", "--lr", "0.1", "0.02", "--epochs", 20]
    more = ["--scheduler", "none", "--name", "cheema", "--results", cheema.parent]
    assert GRID.main([*map(str, flags + more)]) == 2
    assert "holds another sweep (rows of fold 1: " in capsys.readouterr().err
    write(data / "splits", PARTS)


def test_the_plan_shows_the_folds(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def plan(*flags: str) -> str:
        assert GRID.main(["--data", str(data), *FEW, "--dry-run", *flags]) == 0
        return capsys.readouterr().out

    printed = plan("--split", "kfold:3:test", "--seeds", "2")
    assert "kfold:3:test, 3 folds: 13 to 14 samples to train, 13 to 14 to validate, 13 to 14 to test" in printed
    assert "1 configuration with 6 replicates (seeds 42, 43 on 3 folds)" in printed
    printed = plan("--split", "holdout:0.25", "--seeds", "2")
    assert "holdout:0.25, one fold for each seed: 30 samples to train, 11 to validate" in printed
    assert "1 configuration with 2 replicates (seeds 42, 43)" in printed


def test_each_seed_of_a_holdout_has_its_own_fold(data: Path) -> None:
    def plan(*seeds: str) -> Plan:
        options = GRID.parse(["--data", str(data), *FEW, "--split", "holdout:0.25", "--seed-list", *seeds])
        return make_plan(options, GRID.requested(options))

    assert plan("5", "6").replicates == (Replicate(5, 5), Replicate(6, 6))
    assert np.array_equal(plan("5", "6").split.validation[6], plan("6").split.validation[6])


def test_a_protocol_fixes_what_a_search_does_not_vary(data: Path) -> None:
    study = SEARCH.requested(SEARCH.parse(["--data", str(data), "--protocol", "cheema2021", "--lr", "1e-5..1e-3"]))
    assert str(study.space["D"]) == "128" and str(study.space["lr"]) == "1e-5..1e-3"
    assert study.fixed["select"] == "loss" and study.fixed["epochs"] == 100


def test_fewer_groups_of_duplicates_than_folds_is_one_line(tiny: Path) -> None:
    with pytest.raises(InputError, match="duplicates are never separated, and only 1 sample would"):
        make_split("kfold:2", read_dataset(tiny), [42])  # its texts differ in their numbers alone
