"""The chosen head is the sweep's own, and its labels are in the list's order."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn import functional as F

from conftest import make_set
from mvsa_tune import chosen
from mvsa_tune.cache import default_folder, open_vectors
from mvsa_tune.chosen import choose, chosen_head
from mvsa_tune.cli import main
from mvsa_tune.dataset import Dataset, read_dataset
from mvsa_tune.errors import InputError
from mvsa_tune.labels import LABELS
from mvsa_tune.predict import predict
from mvsa_tune.store import Store
from mvsa_tune.trained import read_head

build = chosen.build_trainer


def raw(dataset: Dataset) -> dict[str, np.ndarray]:
    place = default_folder(dataset.folder)
    names = {"image": "demo-pixels", "text": "demo-words"}
    return {modality: np.array(open_vectors(place / name / f"{modality}.npy")) for modality, name in names.items()}


def by_hand(state: dict[str, torch.Tensor], replicate: int, vectors: dict[str, np.ndarray]) -> np.ndarray:
    """One replicate with torch's own functions, from the weights in the file."""
    own = {name: tensor[replicate] for name, tensor in state.items()}
    hidden = []
    for modality in ("image", "text"):
        tower = f"towers.{modality}"
        x = torch.from_numpy(vectors[modality]).float()
        x = F.linear(x, own[f"{tower}.linear.weight"], own[f"{tower}.linear.bias"].flatten())
        statistics = (own[f"{tower}.norm.{name}"] for name in ("running_mean", "running_var", "weight", "bias"))
        hidden.append(F.relu(F.batch_norm(x, *statistics)))
    logits = F.linear(torch.cat(hidden, dim=1), own["classifier.weight"], own["classifier.bias"].flatten())
    return logits.softmax(dim=1).numpy()


def test_the_best_is_that_of_the_rows(swept: Path) -> None:
    rows = pd.read_csv(swept / "trials.csv")
    assert choose(Store(swept), "best").id == rows.groupby("trial_id", sort=False)["val_acc_best"].mean().idxmax()


def test_each_replicate_is_the_one_of_its_best_epoch(swept: Path, demo: Dataset) -> None:
    store = Store(swept)
    differing_epochs = set()
    for config in (one for one in store.configs() if one.ablation == 0):
        recorded = store.outcome(config.id)
        head = chosen_head(store, config, None, None)
        assert head.about["training"]["differs_from_recorded"] == 0
        vectors = raw(demo)
        for replicate, (rows, best) in enumerate(zip(recorded.rows, recorded.best, strict=True)):
            hand = by_hand(head.stack.state_dict(), replicate, {name: one[rows] for name, one in vectors.items()})
            assert np.array_equal(hand.argmax(axis=1), best)
        differing_epochs |= set(recorded.best_epoch.tolist())
    assert len(differing_epochs) > 1 and min(differing_epochs) < 6  # else any epoch's weights would have done


def test_the_list_has_the_replicates_mean_in_order(swept: Path, demo: Dataset, tmp_path: Path) -> None:
    out = tmp_path / "labels.txt"
    assert main(["predict", str(swept), "--out", str(out), "--probabilities"]) == 0
    store = Store(swept)
    head = chosen_head(store, choose(store, "best"), None, None)
    first = len(demo.labels)
    vectors = {name: one[first:] for name, one in raw(demo).items()}
    votes = np.stack([by_hand(head.stack.state_dict(), replicate, vectors) for replicate in range(3)])
    lines = ["guid,tag"]
    lines += [f"{g},{LABELS[k]}" for g, k in zip(demo.guids[first:], votes.mean(axis=0).argmax(axis=1), strict=True)]
    assert out.read_text().splitlines() == lines
    table = pd.read_csv(tmp_path / "labels.probabilities.csv", dtype={"guid": str})
    assert table["guid"].tolist() == demo.guids[first:]
    np.testing.assert_allclose(table[list(LABELS)], votes.mean(axis=0), atol=2e-6)
    np.testing.assert_allclose(table[[f"{one}_std" for one in LABELS]], votes.std(axis=0, ddof=1), atol=2e-6)


def test_a_kept_head_is_not_trained_again(swept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(swept)
    config = choose(store, "best")
    before = predict(store, config, None, None, {}).votes
    monkeypatch.setattr(chosen, "build_trainer", None)
    assert np.array_equal(predict(store, config, None, None, {}).votes, before)


def test_a_refit_sees_every_labelled_sample_for_the_median_epoch(
    swept: Path, demo: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = []
    monkeypatch.setattr(chosen, "build_trainer", lambda *given: built.append(build(*given)) or built[-1])
    store = Store(swept)
    config = choose(store, "best")
    head = chosen_head(store, config, None, None, refit=True)
    assert all(np.array_equal(rows.numpy(), np.arange(len(demo.labels))) for rows in built[0].train_rows)
    median = int(np.median(pd.read_csv(swept / "trials.csv").groupby("trial_id").get_group(config.id)["best_epoch"]))
    assert built[0].epoch == median == head.about["training"]["epochs"]
    assert len(predict(store, config, None, None, {}, refit=True).votes) == 3


def new_pairs(demo: Dataset, folder: Path) -> Path:
    """The demo set's unlabelled pairs, in another order, in a folder that has no labels at all."""
    (folder / "data").mkdir(parents=True)
    guids = demo.guids[len(demo.labels) :][::-1]
    for sample in demo.samples[len(demo.labels) :]:
        shutil.copy(sample.picture, folder / "data")
        (folder / "data" / f"{sample.guid}.txt").write_text(sample.text, encoding="utf-8")
    (folder / "test_without_label.txt").write_text("guid,tag\n" + "".join(f"{guid},null\n" for guid in guids))
    return folder


def test_new_pairs_get_the_labels_that_the_same_pairs_got(swept: Path, demo: Dataset, tmp_path: Path) -> None:
    folder = new_pairs(demo, tmp_path / "new")
    store = Store(swept)
    config = choose(store, "best")
    known, new = predict(store, config, None, None, {}), predict(store, config, folder, None, {})
    assert new.guids == known.guids[::-1]
    np.testing.assert_allclose(new.votes, known.votes[:, ::-1], atol=1e-5)


def test_other_vectors_and_other_data_are_refused(
    swept: Path, demo: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "swept"
    shutil.copytree(swept, copy, ignore=shutil.ignore_patterns("heads"))

    def refused(*arguments: object) -> str:
        assert main([*map(str, arguments)]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        return error

    assert "no finished configuration" in refused("predict", copy, "--config", "0123456789")
    assert "no sweep in" in refused("errors", tmp_path / "none")
    other = make_set(tmp_path / "other")
    assert "is not the data of" in refused("export", copy, "--data", other, "--out", tmp_path / "out")
    assert "--cache" in refused("predict", copy, "--cache", tmp_path / "empty")
    described = (copy / "sweep.json").read_text()
    sha = Store(copy).sweep.vectors["demo-words text"]
    (copy / "sweep.json").write_text(described.replace(sha, "0" * 64))
    assert "is not what" in refused("predict", copy) and not (copy / "heads").exists()


def test_a_damaged_head_is_named(swept: Path, tmp_path: Path) -> None:
    store = Store(swept)
    chosen_head(store, choose(store, "best"), None, None)
    whole = next((swept / "heads").glob("*[0-9a-f].safetensors")).read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"{}"):
        (tmp_path / "head.safetensors").write_bytes(content)
        with pytest.raises(InputError, match=r"head\.safetensors is damaged"):
            read_head(tmp_path / "head.safetensors")


def test_a_sweep_still_needs_labels(demo: Dataset, tmp_path: Path) -> None:
    folder = new_pairs(demo, tmp_path / "new")
    assert read_dataset(folder, needs_labels=False).labels == []
    with pytest.raises(InputError, match=r"no train\.txt"):
        read_dataset(folder)
