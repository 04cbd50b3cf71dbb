"""The chosen head has the numbers that the sweep recorded, and its labels are in the order of the list."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn import functional as F

from conftest import make_set
from mvsa_tune.cli import main
from mvsa_tune.data.dataset import Dataset, read_dataset
from mvsa_tune.data.readers import LABELS
from mvsa_tune.data.splits import write_split
from mvsa_tune.embeddings.cache import default_folder, find_caches, open_vectors
from mvsa_tune.errors import InputError
from mvsa_tune.inference import predict as predicting
from mvsa_tune.inference.predict import Predictions, embed_new, predict
from mvsa_tune.inference.select import chosen_head, sweep_caches
from mvsa_tune.inference.trained import Head, load_head, make_head
from mvsa_tune.results.store import Store
from mvsa_tune.stats.summary import choose
from mvsa_tune.training.task import Task
from test_store import CONFIGS, sweep

build = Task.build


def raw(dataset: Dataset) -> dict[str, np.ndarray]:
    folder = default_folder(dataset.folder)
    names = {"image": "demo-pixels", "text": "demo-words"}
    return {modality: np.array(open_vectors(folder / name / f"{modality}.npy")) for modality, name in names.items()}


def by_hand(state: dict[str, torch.Tensor], replicate: int, vectors: dict[str, np.ndarray]) -> np.ndarray:
    """One replicate with torch's own functions, from the weights in the file."""
    weights = {name: tensor[replicate] for name, tensor in state.items()}
    hidden = []
    for modality in ("image", "text"):
        tower = f"towers.{modality}"
        x = torch.from_numpy(vectors[modality]).float()
        x = F.linear(x, weights[f"{tower}.linear.weight"], weights[f"{tower}.linear.bias"].flatten())
        statistics = (weights[f"{tower}.norm.{name}"] for name in ("running_mean", "running_var", "weight", "bias"))
        hidden.append(F.relu(F.batch_norm(x, *statistics)))
    logits = F.linear(torch.cat(hidden, dim=1), weights["classifier.weight"], weights["classifier.bias"].flatten())
    return logits.softmax(dim=1).numpy()


def test_the_best_has_the_highest_mean_of_the_rows(swept: Path) -> None:
    means = pd.read_csv(swept / "trials.csv").groupby("trial_id")["val_acc_cross"].mean()
    assert means[choose(Store(swept), "best").id] == pytest.approx(means.max(), abs=1e-12)  # of equals, any


def test_each_replicate_is_the_one_of_its_best_epoch(swept: Path, demo: Dataset) -> None:
    store = Store(swept)
    differing_epochs = set()
    for config in (config for config in store.configs() if config.ablation == 0):
        recorded = store.result(config.id)
        head = chosen_head(store, config, None, None)
        assert head.about["training"]["differs_from_recorded"] == 0
        vectors = raw(demo)
        for replicate, (rows, best) in enumerate(zip(recorded.rows, recorded.best, strict=True)):
            hand = by_hand(head.stack.state_dict(), replicate, {name: block[rows] for name, block in vectors.items()})
            assert np.array_equal(hand.argmax(axis=1), best)
        differing_epochs |= set(recorded.best_epoch.tolist())
    assert len(differing_epochs) > 1 and min(differing_epochs) < 6  # else any epoch's weights would have done


def test_the_list_has_the_replicates_mean_in_order(swept: Path, demo: Dataset, tmp_path: Path) -> None:
    out = tmp_path / "labels.txt"
    assert main(["predict", str(swept), "--out", str(out), "--probabilities"]) == 0
    store = Store(swept)
    head = chosen_head(store, choose(store, "best"), None, None)
    first = len(demo.labels)
    vectors = {name: block[first:] for name, block in raw(demo).items()}
    votes = np.stack([by_hand(head.stack.state_dict(), replicate, vectors) for replicate in range(3)])
    lines = ["guid,tag"]
    lines += [f"{g},{LABELS[k]}" for g, k in zip(demo.guids[first:], votes.mean(axis=0).argmax(axis=1), strict=True)]
    assert out.read_text().splitlines() == lines
    table = pd.read_csv(tmp_path / "labels.probabilities.csv", dtype={"guid": str})
    assert table["guid"].tolist() == demo.guids[first:]
    np.testing.assert_allclose(table[list(LABELS)], votes.mean(axis=0), atol=2e-6)
    np.testing.assert_allclose(table[[f"{label}_std" for label in LABELS]], votes.std(axis=0, ddof=1), atol=2e-6)


def test_a_kept_head_is_not_trained_again(swept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(swept)
    config = choose(store, "best")
    before = predict(store, config, None, None, {}).votes
    monkeypatch.setattr(Task, "build", None)
    assert np.array_equal(predict(store, config, None, None, {}).votes, before)


def test_a_kept_head_is_trained_again_when_its_trial_has_other_replicates(swept: Path, tmp_path: Path) -> None:
    shutil.copytree(swept, tmp_path / "swept", ignore=shutil.ignore_patterns("heads"))
    store = Store(tmp_path / "swept")
    config = choose(store, "best")
    whole = chosen_head(store, config)
    about = json.loads(json.dumps(whole.about))
    about["replicates"], about["training"]["best_epochs"] = (
        about["replicates"][:1],
        about["training"]["best_epochs"][:1],
    )
    first = make_head(about, {name: tensor[:1] for name, tensor in whole.stack.state_dict().items()})
    path = tmp_path / "swept" / "heads" / f"{config.id}.safetensors"
    first.save(path)
    assert len(load_head(path).about["replicates"]) == 1
    again = chosen_head(store, config)
    assert again.about == whole.about == load_head(path).about
    assert all(torch.equal(tensor, whole.stack.state_dict()[name]) for name, tensor in again.stack.state_dict().items())


def test_a_refit_sees_every_labelled_sample_for_the_median_epoch(
    swept: Path, demo: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(swept, tmp_path / "swept", ignore=shutil.ignore_patterns("heads"))  # none is kept yet
    built = []
    monkeypatch.setattr(Task, "build", lambda *arguments: built.append(build(*arguments)) or built[-1])
    store = Store(tmp_path / "swept")
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


def embedded_as(head: Head, **change: object) -> Head:
    """Return a head whose description says that its text vectors were made otherwise."""
    about = json.loads(json.dumps(head.about))
    about["encoders"]["text"] |= change
    return make_head(about, head.stack.state_dict())


def test_new_pairs_are_embedded_as_the_heads_own_were(swept: Path, demo: Dataset, tmp_path: Path) -> None:
    store = Store(swept)
    head = chosen_head(store, choose(store, "best"), None, None)
    dataset = read_dataset(new_pairs(demo, tmp_path / "new"), needs_labels=False)
    then = head.about["encoders"]["text"]
    raw_text = then["preprocessing"].replace("text reference 2", "text raw")
    assert raw_text != then["preprocessing"]
    otherwise = embedded_as(head, preprocessing=raw_text, dtype="float16")
    made = embed_new(otherwise, dataset, tmp_path / "raw", {})["text"].manifest
    assert (made.preprocessing, made.dtype) == (raw_text, "float16")
    named = replace(head, config=replace(head.config, text_encoder="words"))
    assert embed_new(named, dataset, tmp_path / "named", {})["text"].path == tmp_path / "named" / "words" / "text.npy"


def test_new_pairs_are_refused_where_they_cannot_be_embedded_as_the_heads_own_were(
    swept: Path, demo: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(swept)
    head = chosen_head(store, choose(store, "best"), None, None)
    dataset = read_dataset(new_pairs(demo, tmp_path / "new"), needs_labels=False)
    with pytest.raises(InputError, match=r"imported from words\.npy: new pairs cannot be embedded in the same way"):
        embed_new(embedded_as(head, source="imported from words.npy"), dataset, tmp_path / "caches", {})
    calls, embed = [], predicting.embed
    monkeypatch.setattr(predicting, "embed", lambda *arguments: calls.append(arguments) or embed(*arguments))
    with pytest.raises(InputError, match=r"weights others then, .* now.*--weights demo-words=PATH"):
        embed_new(embedded_as(head, weights="others"), dataset, tmp_path / "caches", {"demo-pixels": Path("here")})
    assert {name: settings.weights for _, _, name, settings in calls} == {
        "demo-pixels": Path("here"),
        "demo-words": None,
    }


def test_samples_without_a_picture_are_named_and_not_trained_on(swept: Path, demo: Dataset, tmp_path: Path) -> None:
    """As if pictures could not be read: the data has moved, its manifest and the sweep name a sample of either list."""
    moved, copy, last = tmp_path / "moved", tmp_path / "swept", demo.guids[-1]
    shutil.copytree(demo.folder, moved)
    shutil.copytree(swept, copy, ignore=shutil.ignore_patterns("heads"))
    for path, fields in ((moved / "embeddings/demo-pixels/image.json", {last}), (copy / "sweep.json", {demo.guids[0]})):
        described = json.loads(path.read_text())
        path.write_text(json.dumps(described | {"skipped": dict.fromkeys(fields, "damaged")}))
    split = Store(swept).split().without({0})
    write_split(copy / "split.npz", split)
    described = json.loads((copy / "sweep.json").read_text())
    (copy / "sweep.json").write_text(json.dumps(described | {"folds": split.fold_digests}))
    store = Store(copy)
    predictions = predict(store, choose(store, "best"), moved, None, {}, refit=True)
    assert predictions.unread == [last] and last in predictions.warning and "1 samples" in predictions.warning
    assert predictions.training["samples"] == len(demo.labels) - 1
    assert replace(predictions, unread=[]).warning == ""


def test_probabilities_are_written_on_demand_and_have_no_spread_for_one_head(tmp_path: Path) -> None:
    votes = np.array([[[0.2, 0.3, 0.5], [0.6, 0.3, 0.1]]], dtype=np.float32)
    predictions = Predictions(["9", "7"], list(LABELS), votes, [], {})
    assert predictions.write(tmp_path / "a.txt", probabilities=False) == [tmp_path / "a.txt"]
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() == "guid,tag\n9,positive\n7,negative\n"
    _, table = predictions.write(tmp_path / "c.txt", probabilities=True)
    assert table.read_text().splitlines()[1] == "9,positive,0.200000,0.300000,0.500000,,,"
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="choose --out"):
        predictions.write(tmp_path / "file" / "b.txt", probabilities=False)


def test_a_folder_without_unlabelled_samples_raises(swept: Path, tmp_path: Path) -> None:
    folder = make_set(tmp_path / "labelled", unlabelled=0)
    store = Store(swept)
    with pytest.raises(
        InputError, match=r"has no unlabelled samples: the reference's layout lists them in test_without_label\.txt"
    ):
        predict(store, choose(store, "best"), folder, None, {})


def test_where_only_the_new_pairs_are_at_hand_the_message_says_how_to_keep_the_head(
    swept: Path, demo: Dataset, tmp_path: Path
) -> None:
    copy = tmp_path / "swept"
    shutil.copytree(swept, copy, ignore=shutil.ignore_patterns("heads"))
    described = json.loads((copy / "sweep.json").read_text())
    (copy / "sweep.json").write_text(json.dumps(described | {"data": str(tmp_path / "gone")}))
    store, folder = Store(copy), new_pairs(demo, tmp_path / "new")
    config = choose(store, "best")
    with pytest.raises(
        InputError, match=rf"is not in .*gone.*predict {copy} --config {config.id} --refit`, which keeps"
    ):
        predict(store, config, folder, None, {}, refit=True)
    with pytest.raises(InputError, match=r"is not in .*gone: say where it is with --data$"):
        predict(store, config, None, None, {})
    for refit, samples in ((False, [540] * 3), (True, 600)):
        predict(store, config, demo.folder, None, {}, refit=refit)
        predictions = predict(store, config, folder, tmp_path / "caches", {}, refit=refit)
        assert (
            len(predictions.guids) == len(demo.guids) - len(demo.labels) and predictions.training["samples"] == samples
        )
    assert (tmp_path / "caches" / "demo-words" / "text.npy").exists()


def test_what_differs_from_the_record_is_counted_and_another_split_refused(swept: Path, tmp_path: Path) -> None:
    copy = tmp_path / "swept"
    shutil.copytree(swept, copy, ignore=shutil.ignore_patterns("heads"))
    config = choose(Store(copy), "best")
    path = copy / "predictions" / f"{config.id}.npz"
    kept = dict(np.load(path, allow_pickle=False))
    best = Store(copy).result(config.id).best_epoch[1] - 1
    kept["predicted"][best, 1, :2] = (kept["predicted"][best, 1, :2] + 1) % 3
    np.savez(path, **kept)
    assert chosen_head(Store(copy), config, None, None).about["training"]["differs_from_recorded"] == 2
    write_split(copy / "split.npz", Store(copy).split().without({3}))
    with pytest.raises(InputError, match=r"split\.npz is missing or damaged"):
        chosen_head(Store(copy), config, None, None, refit=True)


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
    sha = Store(copy).manifest.vectors["demo-words text"]
    (copy / "sweep.json").write_text(described.replace(sha, "0" * 64))
    assert "is not what" in refused("predict", copy) and not (copy / "heads").exists()


def test_imported_vectors_are_found_where_the_sweep_had_them_else_asked_for(tiny: Path, tmp_path: Path) -> None:
    dataset, elsewhere, store = read_dataset(tiny), tmp_path / "my vectors", Store(tmp_path / "results" / "s")
    made = find_caches(dataset, default_folder(tiny), CONFIGS[:1])[0]
    vectors = {f"{encoder} {modality}": cache.manifest.sha256 for (encoder, modality), cache in made.items()}
    store.begin(sweep(dataset, vectors=vectors), dataset)
    default_folder(tiny).rename(elsewhere)
    finalists = Store(store.folder / "confirmed")
    finalists.begin(store.manifest, dataset)
    for kept in ("command: grid", f"cache: {tmp_path / 'gone'}", "- no mapping", "not: [YAML"):
        (store.folder / "sweep.yaml").write_text(kept)
        with pytest.raises(InputError, match=r"no image vectors of eye in .*: say where they are with --cache"):
            sweep_caches(store, CONFIGS[0], dataset, None)
    (store.folder / "sweep.yaml").write_text(f"cache: {elsewhere}")
    for results in (store, finalists):
        opened = sweep_caches(results, CONFIGS[0], dataset, None)
        assert {path.parents[1] for path in (cache.path for cache in opened.values())} == {elsewhere}


def test_a_damaged_head_is_named(swept: Path, tmp_path: Path) -> None:
    store = Store(swept)
    chosen_head(store, choose(store, "best"), None, None)
    whole = next((swept / "heads").glob("*[0-9a-f].safetensors")).read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"{}"):
        (tmp_path / "head.safetensors").write_bytes(content)
        with pytest.raises(InputError, match=r"head\.safetensors is damaged"):
            load_head(tmp_path / "head.safetensors")


def test_a_sweep_still_needs_labels(demo: Dataset, tmp_path: Path) -> None:
    folder = new_pairs(demo, tmp_path / "new")
    assert read_dataset(folder, needs_labels=False).labels == []
    with pytest.raises(InputError, match=r"has no labelled samples: expected a folder with train\.txt"):
        read_dataset(folder)
