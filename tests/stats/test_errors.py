"""The errors report: against scikit-learn, and against counting by hand."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import classification_report, confusion_matrix, precision_recall_fscore_support

from conftest import make_set, result_of
from mvsa_tune.cli import main
from mvsa_tune.config import Config, Replicate
from mvsa_tune.data.dataset import Dataset, read_dataset
from mvsa_tune.data.readers import LABELS
from mvsa_tune.results.store import Store
from mvsa_tune.stats.error_analysis import by_sample, class_scores, confusion, disputed, per_class, write_errors
from mvsa_tune.stats.summary import choose
from mvsa_tune.training.result import TrialResult
from test_store import outcome_of, sweep


def hand_made() -> TrialResult:
    """Three replicates, four validation samples, two epochs, of which each replicate's best is another."""
    best = np.array([[0, 1, 2, 2], [0, 2, 2, 1], [0, 1, 2, 0]], dtype=np.uint8)
    rows = np.tile(np.array([5, 3, 1, 0], dtype=np.int32), (3, 1))
    labels = np.array([0, 0, 2, 1, 0, 0])  # by row number
    wrong = (labels[rows] + 1) % 3
    first = np.where(np.array([[1], [0], [1]]), best, wrong)
    return result_of(labels, rows, np.stack([first, np.where(np.array([[0], [1], [0]]), best, wrong)]))


def test_votes_counted_by_hand() -> None:
    labels = np.array([0, 0, 2, 1, 0, 0])
    samples = by_sample(hand_made(), list("abcdef"), labels, LABELS).set_index("guid")
    # row 1 (b) is always called positive, row 0 (a) once rightly, row 3 (d) wrongly once, row 5 (f) never
    assert samples["wrong"].to_dict() == {"b": 3, "a": 2, "d": 1, "f": 0}
    assert list(samples.index) == ["b", "a", "d", "f"] and set(samples["n"]) == {3}
    assert samples.loc["a", [f"votes_{label}" for label in LABELS]].tolist() == [1, 1, 1]
    assert disputed(samples.reset_index())["guid"].tolist() == ["a", "d"]


def test_scores_are_those_of_the_best_epoch_and_scikit_learns() -> None:
    outcome, labels = hand_made(), np.array([0, 0, 2, 1, 0, 0])
    wanted = [confusion_matrix(labels[r], p, labels=[0, 1, 2]) for r, p in zip(outcome.rows, outcome.best, strict=True)]
    np.testing.assert_array_equal(confusion(outcome), np.mean(wanted, axis=0))
    scores = per_class(outcome, labels)
    for replicate, (rows, predicted) in enumerate(zip(outcome.rows, outcome.best, strict=True)):
        report = classification_report(labels[rows], predicted, labels=[0, 1, 2], output_dict=True, zero_division=0)
        for kind, name in enumerate(("precision", "recall", "f1-score")):
            assert scores[replicate, kind].tolist() == pytest.approx([report[str(k)][name] for k in range(3)])


def test_a_class_without_validation_samples_has_no_scores() -> None:
    labels, rows = np.array([0, 2, 0]), np.array([[0, 1, 2], [2, 1, 0]])
    negative, neutral, positive = class_scores(result_of(labels, rows, np.array([[[0, 1, 2], [0, 0, 0]]])), labels)
    assert neutral == ["–"] * 3
    # positive is never predicted rightly, negative in one of two cases, then in two
    assert positive == ["0.000 ± 0.000"] * 3 and negative[1] == "0.750 ± 0.354"


def test_the_report_agrees_with_the_predictions(swept: Path, demo: Dataset, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["errors", str(swept)]) == 0
    page = capsys.readouterr().out
    assert page.strip() == (swept / "errors.md").read_text().strip()
    config = choose(Store(swept), "best")
    labels = np.array(demo.labels)
    written = pd.read_csv(swept / "errors.csv", dtype={"guid": str}).set_index("guid")
    kept = Store(swept).result(config.id)
    assert written["wrong"].sum() == (kept.best != labels[kept.rows]).sum() > 0
    assert not any(demo.samples[row].text.strip() in page for row in kept.rows[0])


def table(page: str) -> dict[str, list[str]]:
    lines = page.split("## Each modality alone")[1].splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    return {first: rest for first, *rest in cells}


def test_modalities_agree_as_counted_by_hand(swept: Path, demo: Dataset, capsys: pytest.CaptureFixture[str]) -> None:
    store, labels = Store(swept), np.array(demo.labels)
    rows = pd.read_csv(swept / "trials.csv")
    mean = rows.groupby("trial_id", sort=False)["val_acc_best"].mean()
    best = {a: mean[rows.loc[rows["ablation"] == a, "trial_id"].unique()].idxmax() for a in (0, 1, 2)}
    assert main(["errors", str(swept), "--config", best[0], "--texts"]) == 0
    page = capsys.readouterr().out
    found = table(page)
    right = {a: store.result(one).best == labels[store.result(one).rows] for a, one in best.items()}
    cells = {
        "both": (True, True),
        "text alone": (True, False),
        "picture alone": (False, True),
        "neither": (False, False),
    }
    for name, (text, image) in cells.items():
        cell = (right[1] == text) & (right[2] == image)
        assert found[name][0] == f"{cell.sum() / 3:.1f}", name
        assert found[name][2] == (f"{right[0][cell].mean():.3f}" if cell.any() else "–")
    wrong = pd.read_csv(swept / "errors.csv", dtype={"guid": str})["guid"].iloc[0]
    assert " ".join(demo.samples[demo.guids.index(wrong)].text.split()) in page


def cells_of(page: str, heading: str) -> list[list[str]]:
    """The body of the table below a heading."""
    lines = [line for line in page.split(f"## {heading}")[1].split("##")[0].splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines[2:]]


def test_the_page_is_right_about_a_sweep_made_by_hand(tmp_path: Path) -> None:
    dataset = read_dataset(make_set(tmp_path / "set"))
    rng, labels = np.random.default_rng(0), np.array(dataset.labels)
    rows = np.tile(np.arange(40), (3, 1))
    both = Config("eye", "ear", epochs=2)
    configs = [both, *(replace(both, ablation=code) for code in (1, 2))]
    configs += [replace(both, ablation=1, text_encoder="other"), replace(both, ablation=2, image_encoder="other")]
    store = Store(tmp_path / "sweep")
    store.begin(sweep(dataset, configs=tuple(configs), replicates=tuple(Replicate(seed) for seed in range(3))), dataset)
    predicted = {}
    for config in configs:
        share = 0.9 if "other" in config.encoders.values() else 0.5  # other encoders are better, and not asked about
        predicted[config] = np.where(rng.random((3, 40)) < share, labels[rows], rng.integers(0, 3, (3, 40)))
        store.add(
            config, store.manifest.replicates, outcome_of(labels, rows, predicted[config], (labels[rows] + 1) % 3), {}
        )
    texts = {guid: f"{guid} a | b\nc" for guid in dataset.guids}
    page = write_errors(store, both, texts)

    scores = np.array([precision_recall_fscore_support(labels, one)[:3] for one in predicted[both]])
    counts = np.mean([confusion_matrix(labels, one) for one in predicted[both]], axis=0)
    for place, cells in enumerate(cells_of(page, "By class")):
        own = scores[:, :, place]
        spread = [f"{m:.3f} ± {s:.3f}" for m, s in zip(own.mean(axis=0), own.std(axis=0, ddof=1), strict=True)]
        assert cells == [LABELS[place], *(f"{count:.1f}" for count in counts[place]), *spread]

    wrong = (predicted[both] != labels[rows]).sum(axis=0)
    listed = cells_of(page, "Most often wrong")
    assert len(listed) == 20 and (wrong > 0).sum() > 20 and f"20 of {(wrong > 0).sum()} samples" in page
    for guid, label, *votes, text in listed:
        row = dataset.guids.index(guid)
        assert label == LABELS[labels[row]] and text == rf"{guid} a \| b c"
        assert votes == [str((predicted[both][:, row] == k).sum()) for k in range(3)]

    text, image, fused = (predicted[one] == labels[rows] for one in (configs[1], configs[2], both))
    cells = {
        "both": text & image,
        "text alone": text & ~image,
        "picture alone": image & ~text,
        "neither": ~text & ~image,
    }
    assert cells_of(page, "Each modality alone") == [
        [name, f"{cell.sum() / 3:.1f}", f"{cell.sum() / 120:.3f}", f"{fused[cell].mean():.3f}"]
        for name, cell in cells.items()
    ]


def test_one_replicate_has_no_spread(tmp_path: Path) -> None:
    dataset = read_dataset(make_set(tmp_path / "set"))
    store, config = Store(tmp_path / "sweep"), Config("eye", "ear", epochs=2)
    store.begin(sweep(dataset, configs=(config,), replicates=(Replicate(1),)), dataset)
    rows, labels = np.arange(40)[None], np.array(dataset.labels)
    store.add(config, store.manifest.replicates, outcome_of(labels, rows, labels[rows], labels[rows]), {})
    page = write_errors(store, config)
    assert "±" not in page.split("## By class")[1].split("|", 1)[1] and "nan" not in page
    assert page.count("None.") == 2 and "Not in this sweep" in page


def test_what_is_missing_for_the_modalities_is_said(swept: Path, capsys: pytest.CaptureFixture[str]) -> None:
    alone = next(one for one in Store(swept).configs() if one.ablation == 1)
    assert main(["errors", str(swept), "--config", alone.id]) == 0
    assert "uses the text alone" in capsys.readouterr().out
