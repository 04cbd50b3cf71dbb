"""Sets of two and of five classes, from a table to embeddings, a sweep, labels, errors and a head for elsewhere."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.metrics import confusion_matrix

from conftest import grid
from mvsa_tune.cli import main
from mvsa_tune.data.dataset import read_dataset
from mvsa_tune.data.demo import WORDS
from mvsa_tune.data.readers import SCALE
from mvsa_tune.embeddings.cache import default_folder, open_cache, open_vectors
from mvsa_tune.inference.trained import load_head
from mvsa_tune.results.store import Store
from mvsa_tune.sweeps import GRID

LABELLED, UNLABELLED = 60, 6
SETS = {
    "pairs.csv": ("positive", "negative"),
    "pairs.parquet": SCALE[::-1],
}


def make_table(path: Path, classes: tuple[str, ...]) -> Path:
    """Write pairs whose brightness and words tell their class, the unlabelled among them, and the pictures as PNG."""
    generator = np.random.default_rng(0)
    words = [word for kind in WORDS.values() for word in kind]
    rows = []
    for number in range(LABELLED + UNLABELLED):
        label = number % len(classes)
        grey = int(40 + 170 * label / (len(classes) - 1))
        noise = generator.integers(-20, 20, (16, 16, 3))
        (path.parent / "shots").mkdir(exist_ok=True)
        Image.fromarray((grey + noise).astype(np.uint8)).save(path.parent / "shots" / f"{number}.png")
        text = f'{words[label]}, "so" {generator.choice(words)}'
        tag = "" if number % 11 == 5 else classes[label]
        rows.append({"id": f"pair, {number}|", "image": f"shots/{number}.png", "text": text, "label": tag})
    frame = pd.DataFrame(rows)
    if path.suffix == ".csv":
        frame.to_csv(path, index=False)
    else:
        frame.to_parquet(path)
    return path


def test_an_unreadable_picture_of_two_rows_skips_both(tmp_path: Path) -> None:
    table = make_table(tmp_path / "pairs.csv", SETS["pairs.csv"])
    frame = pd.read_csv(table, keep_default_na=False)
    frame.loc[7, "image"] = "shots/3.png"
    frame.to_csv(table, index=False)
    (tmp_path / "shots" / "3.png").write_bytes(b"no picture")
    assert main(["embed", "--data", str(table), "--encoder", "demo-pixels", "--skip-bad"]) == 0
    cache = open_cache(read_dataset(table), default_folder(table), "demo-pixels", "image")
    assert cache is not None and set(cache.manifest.skipped) == {"pair, 3|", "pair, 7|"}


@pytest.mark.parametrize("name", SETS)
def test_any_set_of_labels_goes_from_a_table_to_a_head(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = make_table(tmp_path / name, SETS[name])
    classes = SETS[name][::-1]  # the usual order
    count = len(classes)
    assert main(["embed", "--data", str(table), "--encoder", "demo-pixels", "demo-words"]) == 0
    printed = capsys.readouterr().out
    assert f"{table}: layout table; 60 labelled samples, 6 unlabelled" in printed
    assert f"classes in the usual order: {classes[0]} " in printed
    dataset = read_dataset(table)

    flags = [
        "--pairs",
        "demo-pixels+demo-words",
        "--D",
        4,
        "--lr",
        0.01,
        "--epochs",
        5,
        "--seeds",
        2,
        "--batch-size",
        8,
    ]
    flags += ["--scheduler", "none", "--name", "s", "--results", tmp_path, "--data", table]
    assert GRID.main([*map(str, flags), "--dry-run"]) == 0
    counts = ", ".join(f"{name} {dataset.labels.count(index)}" for index, name in enumerate(classes))
    assert f"classes in the usual order: {counts}" in capsys.readouterr().out
    process = grid(*flags, "--quiet", cwd=tmp_path)
    assert process.returncode == 0, process.stderr
    store = Store(tmp_path / "s")
    assert store.manifest.classes == classes and store.manifest.layout == "table"
    config = store.configs()[0]
    result = store.result(config.id)
    assert result.confusion.shape[2:] == (count, count) and set(np.unique(result.predicted[-1])) <= set(range(count))

    assert main(["errors", str(store.folder), "--texts"]) == 0
    page = capsys.readouterr().out
    heading = next(line for line in page.splitlines() if "true ↓" in line)
    assert tuple(cell.strip() for cell in heading.split("|")[2 : 2 + count]) == classes
    labels = np.array(dataset.labels)
    mean = np.mean(
        [
            confusion_matrix(labels[rows], best, labels=range(count))
            for rows, best in zip(result.rows, result.best, strict=True)
        ],
        axis=0,
    )
    for index, label in enumerate(classes):
        line = next(line for line in page.splitlines() if line.startswith(f"| {label} "))
        assert [float(cell) for cell in line.split("|")[2 : 2 + count]] == pytest.approx(mean[index], abs=0.05)

    out = tmp_path / "labels.csv"
    assert main(["predict", str(store.folder), "--out", str(out), "--probabilities"]) == 0
    predictions = pd.read_csv(out)
    assert predictions["guid"].tolist() == [f"pair, {number}|" for number in range(66) if number % 11 == 5]
    assert set(predictions["tag"]) <= set(classes)
    assert main(["export", str(store.folder), "--out", str(tmp_path / "head")]) == 0
    head = load_head(tmp_path / "head")
    assert head.about["labels"] == list(classes)
    vectors = {}
    for modality, encoder in config.encoders.items():
        cache = open_cache(dataset, default_folder(table), encoder, modality)
        assert cache is not None
        vectors[modality] = open_vectors(cache.path)[LABELLED:]
    probabilities = head(vectors)
    assert probabilities.shape == (UNLABELLED, count)
    assert [classes[index] for index in probabilities.argmax(axis=1)] == predictions["tag"].tolist()
    table_of = pd.read_csv(tmp_path / "labels.probabilities.csv")
    np.testing.assert_allclose(table_of[list(classes)], probabilities, atol=2e-6)

    # New pairs in another layout than the sweep's: the same pairs in the reference's lists, and one that is labelled.
    new = tmp_path / "new"
    (new / "data").mkdir(parents=True)
    for number, sample in enumerate(dataset.samples[LABELLED - 1 :]):
        Image.open(sample.picture).save(new / "data" / f"{number}.jpg", "PNG")
        (new / "data" / f"{number}.txt").write_text(sample.text)
    (new / "train.txt").write_text(f"0,{classes[0]}\n")
    (new / "test_without_label.txt").write_text("".join(f"{number + 1},null\n" for number in range(UNLABELLED)))
    assert main(["predict", str(store.folder), "--data", str(new), "--out", str(out)]) == 0
    assert pd.read_csv(out)["tag"].tolist() == predictions["tag"].tolist()

    # Another order of the labels is another sweep.
    capsys.readouterr()
    assert GRID.main([*map(str, flags), "--labels", ",".join(SETS[name]), "--quiet"]) == 2
    assert f"labels: {', '.join(classes)} there, {', '.join(SETS[name])} now" in capsys.readouterr().err
