"""The errors report: against scikit-learn, and against counting by hand."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import classification_report, confusion_matrix

from mvsa_tune.chosen import choose
from mvsa_tune.cli import main
from mvsa_tune.dataset import Dataset
from mvsa_tune.labels import LABELS
from mvsa_tune.mistakes import by_sample, confusion, disputed, per_class
from mvsa_tune.outcome import Outcome
from mvsa_tune.store import Store


def hand_made() -> Outcome:
    """Three replicates, four validation samples, two epochs, of which each replicate's best is another."""
    best = np.array([[0, 1, 2, 2], [0, 2, 2, 1], [0, 1, 2, 0]], dtype=np.uint8)
    rows = np.tile(np.array([5, 3, 1, 0], dtype=np.int32), (3, 1))
    labels = np.array([0, 0, 2, 1, 0, 0])  # by row number
    now = np.stack([confusion_matrix(labels[r], p, labels=[0, 1, 2]) for r, p in zip(rows, best, strict=True)])
    worse = np.zeros_like(now)
    worse[:, 0, 1] = 4
    counts = np.stack(
        [
            np.where(np.array([1, 0, 1])[:, None, None], now, worse),
            np.where(np.array([0, 1, 0])[:, None, None], now, worse),
        ]
    )
    losses = np.ones((2, 3), dtype=np.float32)
    return Outcome(losses, losses, counts.astype(np.int32), rows, best, best, 1.0, "cpu")


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
    for replicate, (rows, said) in enumerate(zip(outcome.rows, outcome.best, strict=True)):
        report = classification_report(labels[rows], said, labels=[0, 1, 2], output_dict=True, zero_division=0)
        for kind, name in enumerate(("precision", "recall", "f1-score")):
            assert scores[replicate, kind].tolist() == pytest.approx([report[str(k)][name] for k in range(3)])


def test_the_report_agrees_with_the_predictions(swept: Path, demo: Dataset, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["errors", str(swept)]) == 0
    page = capsys.readouterr().out
    assert page.strip() == (swept / "errors.md").read_text().strip()
    config = choose(Store(swept), "best")
    labels = np.array(demo.labels)
    written = pd.read_csv(swept / "errors.csv", dtype={"guid": str}).set_index("guid")
    kept = np.load(swept / "predictions" / f"{config.id}.npz", allow_pickle=False)
    assert written["wrong"].sum() == (kept["best"] != labels[kept["rows"]]).sum() > 0
    assert not any(demo.samples[row].text.strip() in page for row in kept["rows"][0])


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
    right = {a: store.outcome(one).best == labels[store.outcome(one).rows] for a, one in best.items()}
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


def test_what_is_missing_for_the_modalities_is_said(swept: Path, capsys: pytest.CaptureFixture[str]) -> None:
    alone = next(one for one in Store(swept).configs() if one.ablation == 1)
    assert main(["errors", str(swept), "--config", alone.id]) == 0
    assert "sees the text alone" in capsys.readouterr().out
