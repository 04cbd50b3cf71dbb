import csv
import dataclasses
import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from conftest import make_set, result_of
from mvsa_tune.config import Config, Replicate
from mvsa_tune.data.dataset import Dataset, read_dataset
from mvsa_tune.data.readers import LABELS
from mvsa_tune.errors import InputError
from mvsa_tune.results.manifest import SweepManifest
from mvsa_tune.results.schema import NAMES
from mvsa_tune.results.store import Store, missing, sweep_data
from mvsa_tune.stats.summary import best, summarise
from mvsa_tune.training.result import TrialResult, take

CONFIGS = tuple(Config(image_encoder="eye", text_encoder="ear", D=D, epochs=2) for D in (8, 16, 32))
SEEDS = (Replicate(42), Replicate(43))


def sweep(dataset: Dataset, **change: object) -> SweepManifest:
    fields = {
        "data": "somewhere", "data_fingerprint": dataset.fingerprint, "layout": "reference", "classes": LABELS,
        "label_counts": (14, 13, 13), "dropped": {}, "demo": False,
        "split": "reference", "folds": {0: "d"}, "protocol": "reference", "replicates": SEEDS, "configs": CONFIGS,
        "not_run": {}, "skipped": {}, "vectors": {"eye image": "aa"},
        "space": {}, "finetuned": {}, "numerics": 1,
    }  # fmt: skip
    return SweepManifest(**{**fields, **change})  # type: ignore[arg-type]


def test_a_manifest_keeps_how_the_data_was_read_and_older_ones_do_not_say(tiny: Path) -> None:
    manifest = sweep(read_dataset(tiny), reading={"merge": "agree", "encoding": "big5"})
    assert SweepManifest.from_json(manifest.to_json()) == manifest
    values = json.loads(manifest.to_json())
    del values["reading"]
    assert SweepManifest.from_json(json.dumps(values)).reading == {}
    del values["split"]
    with pytest.raises(TypeError, match="split"):
        SweepManifest.from_json(json.dumps(values))


def test_a_search_goes_on_in_a_folder_whose_space_an_earlier_version_wrote(tiny: Path) -> None:
    def manifest(lr: str) -> SweepManifest:
        return sweep(read_dataset(tiny), configs=(), space={"lr": lr, "D": "8 16", "pair": "net-0.001+ear"})

    for earlier, now in {"0.001..0.1": "1e-3..0.1", "1e-5..0.0025": "1e-5..2.5e-3", "0.001 0.01": "1e-3 0.01"}.items():
        assert SweepManifest.from_json(manifest(earlier).to_json()) == manifest(now)
    assert "0 (" not in manifest("1e-3..0.1").extent()["configurations"]


def test_a_sweeps_data_is_read_again_as_it_was_read(tiny: Path, tmp_path: Path) -> None:
    (tiny / "data" / "101.txt").write_bytes("天氣".encode("big5"))
    dataset = read_dataset(tiny, encoding="big5")
    store = Store(tmp_path / "results")
    store.begin(sweep(dataset, data=str(tiny), reading=dataset.reading), dataset)
    assert sweep_data(store).samples[1].text == "天氣"


def outcome(right: list[list[int]], loss: float = 1.0) -> TrialResult:
    """Two replicates on ten samples, all of class 0; `right[e][r]` of them told right."""
    predicted = (np.arange(10) >= np.array(right)[:, :, None]).astype(np.uint8)
    return result_of(np.zeros(10, dtype=int), np.tile(np.arange(10), (len(right[0]), 1)), predicted, loss, 4.0)


def outcome_of(labels: np.ndarray, rows: np.ndarray, best: np.ndarray, last: np.ndarray) -> TrialResult:
    """What R replicates said of the samples in `rows` `(R, N)` at their best epoch, the first of two, and at the
    last.
    """
    return result_of(labels, rows, np.stack([best, last]))


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return read_dataset(make_set(tmp_path / "set"))


@pytest.fixture
def store(tmp_path: Path, dataset: Dataset) -> Store:
    store = Store(tmp_path / "results" / "s")
    store.begin(sweep(dataset), dataset)
    return store


PROVENANCE = {"code": "1", "command": "python, with a comma"}


def test_a_row_is_a_replicate_with_the_columns_in_their_order(store: Store) -> None:
    store.add(CONFIGS[0], SEEDS, outcome([[5, 7], [6, 7]]), PROVENANCE)
    with store.trials_path.open() as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == NAMES
    documented = (
        "sweep, trial_id, image_encoder, text_encoder, head, D, lr, batch_size, ablation, epochs, seed, fold, status, "
        "val_acc_best, best_epoch, val_acc_last, val_f1_macro_best, val_f1_weighted_best, val_loss_last, "
        "seconds, device"
    )
    assert ", ".join(NAMES).startswith(documented)
    assert [row["seed"] for row in rows] == ["42", "43"]
    assert [row["val_acc_best"] for row in rows] == ["0.6", "0.7"]
    assert [row["best_epoch"] for row in rows] == ["2", "1"]
    assert rows[0]["seconds"] == "2.0" and rows[0]["command"] == "python, with a comma"


def test_finished_is_what_has_every_replicate_and_no_failure(store: Store) -> None:
    store.add(CONFIGS[0], SEEDS, outcome([[5, 7], [5, 7]]), PROVENANCE)
    store.add(CONFIGS[1], SEEDS, outcome([[5, 7], [5, 7]], loss=np.nan), PROVENANCE)
    store.add_failure(CONFIGS[2], SEEDS, "out of memory", PROVENANCE)
    assert store.recorded() == [CONFIGS[0].id]
    rows = store.rows()
    assert set(rows.loc[rows["trial_id"] == CONFIGS[1].id, "status"]) == {"failed: the loss was not finite in epoch 1"}
    assert set(rows.loc[rows["trial_id"] == CONFIGS[2].id, "status"]) == {"failed: out of memory"}


def test_predictions_are_there_before_their_rows(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Store, "_append", lambda *arguments: pytest.fail("rows") if not paths() else [])

    def paths() -> list[Path]:
        return list(store.folder.glob("predictions/*.npz"))

    store.add(CONFIGS[0], SEEDS, outcome([[5, 7], [5, 7]]), PROVENANCE)
    with np.load(paths()[0], allow_pickle=False) as arrays:
        assert arrays["predicted"].shape == (2, 2, 10) and arrays["seed"].tolist() == [42, 43]
        assert arrays["confusion"].shape == (2, 2, 3, 3)


def test_what_is_damaged_is_set_aside_named_and_the_rest_is_used(store: Store, dataset: Dataset) -> None:
    store.add(CONFIGS[0], SEEDS, outcome([[5, 7], [5, 7]]), PROVENANCE)
    whole = store.trials_path.read_text()
    store.add(CONFIGS[1], SEEDS, outcome([[5, 7], [5, 7]]), PROVENANCE)
    damaged = store.trials_path.read_text().replace(",43,0,finished", ",43,0,fin", 1)[:-40]
    store.trials_path.write_text(damaged)
    store.end()
    again = Store(store.folder)
    told = again.begin(sweep(dataset), dataset)
    assert len(told) == 2 and "line 3 is damaged" in told[0] and "line 5 is half written" in told[1]
    assert (store.folder / "trials.csv.damaged-1").read_text() == damaged
    assert again.statuses() == {CONFIGS[0].id: {SEEDS[0]: "finished"}, CONFIGS[1].id: {SEEDS[0]: "finished"}}
    again.add(CONFIGS[0], SEEDS, outcome([[5, 7], [5, 7]]), PROVENANCE)
    again.tidy()
    assert again.statuses()[CONFIGS[0].id] == dict.fromkeys(SEEDS, "finished")
    assert again.trials_path.read_text().startswith(whole)
    again.end()
    assert Store(store.folder).begin(sweep(dataset), dataset) == []


def test_an_empty_file_of_rows_is_named_and_begun_again(store: Store, dataset: Dataset) -> None:
    store.trials_path.write_text("")
    store.end()
    again = Store(store.folder)
    assert "is empty" in again.begin(sweep(dataset), dataset)[0]
    again.add(CONFIGS[0], SEEDS, outcome([[5, 7], [5, 7]]), PROVENANCE)
    assert again.recorded() == [CONFIGS[0].id]


def test_predictions_that_are_damaged_inside_are_named(store: Store) -> None:
    store.add(CONFIGS[0], SEEDS, outcome([[5, 7], [5, 7]]), PROVENANCE)
    path = store.folder / "predictions" / f"{CONFIGS[0].id}.npz"
    whole = path.read_bytes()
    path.write_bytes(whole[:58] + b"\xff" * 60 + whole[118:])
    with pytest.raises(InputError, match=r"npz cannot be read .*: run the same sweep again"):
        store.replicates(CONFIGS[0].id)


@pytest.mark.parametrize("spoil", [Path.unlink, lambda path: path.write_bytes(path.read_bytes()[:100])])
def test_a_trial_whose_predictions_are_gone_runs_again(store: Store, dataset: Dataset, spoil) -> None:  # type: ignore[no-untyped-def]
    for config in CONFIGS[:2]:
        store.add(config, SEEDS, outcome([[5, 7], [5, 7]]), PROVENANCE)
    spoil(store.folder / "predictions" / f"{CONFIGS[0].id}.npz")
    store.end()
    again = Store(store.folder)
    assert f"{CONFIGS[0].id}.npz is missing or damaged" in again.begin(sweep(dataset), dataset)[0]
    assert again.recorded() == [CONFIGS[1].id]


def test_an_outcome_comes_back_as_it_was(store: Store) -> None:
    found = outcome([[5, 7], [6, 6]])
    store.add(CONFIGS[0], SEEDS, found, PROVENANCE)
    back = store.result(CONFIGS[0].id)
    for name in (item.name for item in dataclasses.fields(found)):
        np.testing.assert_array_equal(getattr(back, name), getattr(found, name))
        assert type(getattr(back, name)) is type(getattr(found, name))
    for name, kept in vars(store.correctness(CONFIGS[0].id)).items():
        np.testing.assert_array_equal(kept, getattr(found.correctness, name))
    np.testing.assert_allclose(store.scores()[CONFIGS[0].id], [0.6, 0.65])


def test_a_stopped_trial_is_recorded_but_neither_finished_nor_the_best(store: Store) -> None:
    store.add(CONFIGS[0], SEEDS, outcome([[9, 9]]), PROVENANCE)
    store.add(CONFIGS[1], SEEDS, outcome([[5, 7], [5, 7]]), PROVENANCE)
    assert store.recorded() == [CONFIGS[1].id]
    assert store.recorded(("finished", "stopped")) == [CONFIGS[0].id, CONFIGS[1].id]
    summary = summarise(store)
    assert summary["status"][0] == "stopped at epoch 1" and summary["n"][0] == 2
    winner = best(summary)
    assert winner is not None and winner["trial_id"] == CONFIGS[1].id
    # trained to its end later, it is like any other
    store.add(CONFIGS[0], SEEDS, outcome([[9, 9], [9, 9]]), PROVENANCE)
    winner = best(summarise(store))
    assert winner is not None and winner["trial_id"] == CONFIGS[0].id


def test_a_search_knows_its_configurations_from_its_rows(tmp_path: Path, dataset: Dataset) -> None:
    store = Store(tmp_path / "search")
    store.begin(sweep(dataset, configs=(), space={"D": "8..32"}), dataset)
    for config in CONFIGS[::-1]:
        store.add(config, SEEDS, outcome([[5, 7], [5, 7]]), PROVENANCE)
    assert store.configs() == list(CONFIGS[::-1])


def test_a_folder_keeps_all_that_was_asked_of_it_and_takes_more(store: Store, dataset: Dataset) -> None:
    store.add(CONFIGS[0], SEEDS, outcome([[5, 7], [5, 7]]), PROVENANCE)
    store.end()
    more = Config(image_encoder="eye", text_encoder="ear", D=64, epochs=3)
    again = Store(store.folder)
    manifest = sweep(
        dataset,
        configs=(CONFIGS[1], more),
        replicates=(Replicate(43), Replicate(50)),
        folds={0: "d", 1: "e"},
        not_run={more.id: "x"},
    )
    assert again.begin(manifest, dataset) == []
    again.end()
    for opened in (again, Store(store.folder)):
        assert opened.manifest.configs == (*CONFIGS, more)
        assert opened.manifest.replicates == (*SEEDS, Replicate(50))
        assert opened.manifest.folds == {0: "d", 1: "e"} and opened.manifest.not_run == {more.id: "x"}
        assert opened.replicates(CONFIGS[0].id) == SEEDS
    Store(store.folder).begin(sweep(dataset, configs=(more,)), dataset)
    assert not Store(store.folder).manifest.not_run  # asked for again, and it can run now


def test_added_replicates_stand_beside_the_recorded_ones_in_the_order_of_the_sweep(
    store: Store, dataset: Dataset
) -> None:
    store.end()
    again = Store(store.folder)
    order = (Replicate(50), *SEEDS)
    manifest = sweep(dataset, replicates=(*SEEDS, Replicate(50)))
    again.begin(manifest, dataset)
    whole = outcome([[5, 7, 6], [5, 7, 8]])
    again.add(CONFIGS[0], [SEEDS[1], Replicate(50)], take(whole, [1, 2]), PROVENANCE)
    assert again.replicates(CONFIGS[0].id) == (SEEDS[1], Replicate(50))
    again.add(CONFIGS[0], [SEEDS[0]], take(whole, [0]), PROVENANCE)
    assert again.replicates(CONFIGS[0].id) == (*SEEDS, Replicate(50)) == manifest.replicates
    back = again.result(CONFIGS[0].id)
    for name in ("train_loss", "confusion", "rows", "predicted"):
        np.testing.assert_array_equal(getattr(back, name), getattr(whole, name))
    assert back.seconds == pytest.approx(whole.seconds)
    np.testing.assert_array_equal(again.correctness(CONFIGS[0].id).accuracy, whole.correctness.accuracy)
    assert again.rows()["seed"].tolist() == [42, 43, 50] and set(order) == set(again.statuses()[CONFIGS[0].id])
    # the same replicate once more takes the place of the first
    again.add(CONFIGS[0], [SEEDS[1]], take(outcome([[1, 1], [2, 2]]), [1]), PROVENANCE)
    assert again.replicates(CONFIGS[0].id) == manifest.replicates
    assert again.rows()["val_acc_best"].tolist() == [0.5, 0.2, 0.8]
    np.testing.assert_allclose(again.result(CONFIGS[0].id).accuracy[-1], [0.5, 0.2, 0.8])


def test_what_is_missing_of_a_configuration() -> None:
    a, b, c = Replicate(1), Replicate(2), Replicate(3)
    ended = dict.fromkeys((a, b), "finished")
    for stopped_counts in (True, False):
        assert missing({}, (a, b), stopped_counts=stopped_counts) == (a, b)
        assert missing(ended, (a, b, c), stopped_counts=stopped_counts) == (c,)
        assert missing(ended, (a,), stopped_counts=stopped_counts) == ()
        assert missing({a: "finished", b: "failed: x"}, (a, b), stopped_counts=stopped_counts) == (b,)
    stopped = dict.fromkeys((a, b), "stopped")
    assert missing(stopped, (a, b, c), stopped_counts=True) == ()
    assert missing(stopped, (a, c), stopped_counts=False) == (a, b, c)
    assert missing({a: "stopped", b: "failed: x"}, (a, b), stopped_counts=True) == (a, b)


def test_tidying_orders_rows_and_changes_no_digit(store: Store) -> None:
    for config in CONFIGS[::-1]:
        store.add(config, SEEDS, outcome([[5, 7], [5, 7]], loss=1 / 3), PROVENANCE)
    before = sorted(store.trials_path.read_text().splitlines())
    store.tidy()
    lines = store.trials_path.read_text().splitlines()
    assert sorted(lines) == before
    assert [line.split(",")[1] for line in lines[1::2]] == [config.id for config in CONFIGS]


def test_the_newest_row_of_a_replicate_counts(store: Store) -> None:
    store.add_failure(CONFIGS[0], SEEDS, "out of memory", PROVENANCE)
    store.add(CONFIGS[0], SEEDS, outcome([[5, 7], [5, 7]]), PROVENANCE)
    assert store.recorded() == [CONFIGS[0].id] and len(store.rows()) == 2


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"folds": {0: "other"}}, "rows of fold 0: d there, other now"),
        ({"classes": ("a", "b")}, "labels: negative, neutral, positive there, a, b now"),
        ({"data_fingerprint": "x"}, "data fingerprint: .* there, x now"),
        ({"vectors": {"eye image": "bb"}}, "vectors of eye image: aa there, bb now"),
        ({"numerics": 2}, "numerics version: 1 there, 2 now"),
        ({"space": {"lr": "1e-5..0.1"}}, r"search space: none there, lr 1e-5\.\.0\.1 now"),
        ({"split": "kfold:5"}, "split: reference there, kfold:5 now"),
        ({"skipped": {"7": "empty"}}, "unreadable samples: 0"),
    ],
)
def test_another_sweep_may_not_use_the_folder(
    store: Store, dataset: Dataset, change: dict[str, object], told: str
) -> None:
    store.end()
    with pytest.raises(InputError, match=told):
        Store(store.folder).begin(sweep(dataset, **change), dataset)


def test_a_cache_made_since_is_no_other_sweep(store: Store, dataset: Dataset) -> None:
    store.end()
    Store(store.folder).begin(sweep(dataset, vectors={"eye image": "aa", "ear text": "cc"}), dataset)


def test_two_at_once_may_not_share_a_folder(store: Store, dataset: Dataset) -> None:
    with pytest.raises(InputError, match=f"in use by process {os.getpid()}"):
        Store(store.folder).begin(sweep(dataset), dataset)


def test_rows_without_their_sweep_are_not_thrown_away(store: Store, dataset: Dataset) -> None:
    store.add(CONFIGS[0], SEEDS, outcome([[5, 7], [5, 7]]), PROVENANCE)
    before = store.trials_path.read_text()
    (store.folder / "sweep.json").unlink()
    store.end()
    with pytest.raises(InputError, match=r"without the sweep\.json"):
        Store(store.folder).begin(sweep(dataset), dataset)
    assert store.trials_path.read_text() == before


def test_replicates_keep_their_order(tmp_path: Path, dataset: Dataset) -> None:
    store = Store(tmp_path / "seeds")
    store.begin(sweep(dataset, replicates=(Replicate(10), Replicate(9))), dataset)
    store.add(CONFIGS[0], [Replicate(10), Replicate(9)], outcome([[5, 7], [5, 7]]), PROVENANCE)
    assert store.rows()["seed"].tolist() == [10, 9]


def test_a_sweep_survives_its_file(store: Store, dataset: Dataset) -> None:
    assert Store(store.folder).manifest == sweep(dataset)


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path, dataset: Dataset) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write the results folder"):
        Store(tmp_path / "file" / "s").begin(sweep(dataset), dataset)


def test_a_summary_counts_and_averages_what_finished(store: Store) -> None:
    store.add(CONFIGS[0], SEEDS, outcome([[5, 7], [6, 7]]), PROVENANCE)
    store.add_failure(CONFIGS[1], SEEDS, "out of memory", PROVENANCE)
    summary = summarise(store)
    assert summary["status"].tolist() == ["finished", "failed: out of memory", "not run yet"]
    assert summary["n"].tolist() == [2, 0, 0]
    first = summary.iloc[0]
    assert first["val_acc_best_mean"] == pytest.approx(0.65)
    assert first["val_acc_best_std"] == pytest.approx(np.std([0.6, 0.7], ddof=1))
    assert first["best_epoch_median"] == 1.5 and first["seconds"] == 4.0
    winner = best(summary)
    assert winner is not None and winner["trial_id"] == CONFIGS[0].id


def test_nothing_finished_has_no_best(store: Store) -> None:
    assert best(summarise(store)) is None


def test_samples_are_listed_by_row(store: Store, dataset: Dataset) -> None:
    frame = pd.read_csv(store.folder / "samples.csv", dtype={"guid": str})
    assert frame["guid"].tolist() == dataset.guids[:40] and frame["label"].tolist() == dataset.labels
    assert set(frame["encoding"]) == {"utf-8"}


def test_answers_are_right_where_prediction_and_label_agree() -> None:
    """Two replicates, the second of one sample less; the first's epochs are right about the first, or about all but the
    last.
    """
    labels, rows = np.array([0, 1, 2, 0]), np.array([[0, 1, 2, 3], [3, 2, 1, -1]])
    said = np.array([[[0, 0, 0, 1], [0, 2, 0, 255]], [[0, 1, 2, 1], [1, 2, 1, 255]]])
    whole = result_of(labels, rows.clip(0), np.minimum(said, 2))
    right = np.array([[1, 2], [3, 2]])
    confusion = np.zeros((2, 2, 3, 3), dtype=np.int32)
    confusion[:, :, 0, 0], confusion[:, :, 0, 1] = right, np.array([4, 3]) - right
    mine = dataclasses.replace(
        whole,
        rows=rows.astype(np.int32),
        labels=np.where(rows < 0, 255, labels[rows]).astype(np.uint8),
        predicted=said.astype(np.uint8),
        confusion=confusion,
    ).correctness
    assert mine.best.tolist() == [[True, True, True, False], [True, True, False, False]]
    assert mine.last.tolist() == [[True, True, True, False], [False, True, True, False]]
    assert mine.cross_fitted[1, 3] == 0 and (mine.cross_fitted <= 1).all()
    np.testing.assert_allclose(mine.accuracy, [mine.cross_fitted[0].mean(), mine.cross_fitted[1, :3].mean()])
