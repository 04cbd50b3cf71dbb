import csv
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from conftest import ROOT, make_set
from mvsa_tune.config import Config, union
from mvsa_tune.data.dataset import read_dataset
from mvsa_tune.data.splits import Split, write_split
from mvsa_tune.protocols import REFERENCE_COUNTS
from mvsa_tune.report.leaderboard import leaderboard
from mvsa_tune.report.page import page
from mvsa_tune.report.tables import published_lines, table_rows, tables_markdown
from mvsa_tune.report.tables import tables as tex_tables
from mvsa_tune.report.write import write_results
from mvsa_tune.results.schema import SCORES
from mvsa_tune.results.store import Store
from mvsa_tune.stats.analysis import analyse
from mvsa_tune.sweeps import FINETUNE, GRID_REFERENCE
from test_store import PROVENANCE, SEEDS, outcome, sweep


def reference_grid(pairs: Sequence[str] = ()) -> list[Config]:
    return union({**grid, "pair": pairs or grid["pair"]} for grid in GRID_REFERENCE)


def tables(folder: Path, configs: list[Config], trained: list[Config], stopped_at: int = 0, **change: object) -> str:
    dataset = read_dataset(make_set(folder / "set"))
    store = Store(folder / "s")
    manifest = sweep(dataset, **{"configs": tuple(configs), "label_counts": REFERENCE_COUNTS, **change})
    store.begin(manifest, dataset)
    for config in trained:
        store.add(config, SEEDS, outcome([[6, 8]] * (stopped_at or config.epochs)), PROVENANCE)
    return tables_markdown(analyse(store))


def rows(text: str, table: int) -> list[dict[str, str]]:
    """Return the rows of a table, by heading."""
    part = text.split(f"## Table {table}.")[1].split("\n## ")[0]
    lines = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in part.splitlines() if line.startswith("|")
    ]
    return [dict(zip(lines[0], line, strict=True)) for line in lines[2:]]


def test_every_published_cell_is_a_line() -> None:
    lines = published_lines()
    assert len(lines) == 24 + 4  # table 3 stands for both CLIPs
    assert sum(line.config.finetuned for line in lines) == 4
    finetuned = FINETUNE.requested(FINETUNE.parse([]))
    better = {config for config in finetuned if config.ablation == 0 and config.head == "concat"}
    assert len(better) == 2 and {line.config for line in lines} == {*reference_grid(), *finetuned} - better


def test_the_reference_grid_stands_beside_the_published_values(tmp_path: Path) -> None:
    grid = reference_grid()
    text = tables(tmp_path, grid, grid[:2], not_run={grid[4].id: "no image cache of resnet50"})
    first = rows(text, 1)
    assert len(first) == 10 and [len(rows(text, number)) for number in (2, 3, 4)] == [4, 8, 6]
    assert (first[0]["published"], first[0]["best epoch"], first[0]["n"]) == (
        "0.755",
        "0.700 ± 0.141 [0.208, 1.000]",
        "2",
    )
    assert (first[2]["best epoch"], first[2]["n"]) == ("–", "0")
    assert first[2]["note"] == "not run yet" and first[2]["published"] == "0.775"
    assert first[4]["note"] == "no image cache of resnet50"
    assert first[8]["fine-tuned"] == "yes" and "not in this sweep" in first[8]["note"]
    assert rows(text, 3)[0]["vision"] == "clip-vit-b-32" and rows(text, 3)[1]["vision"] == "clip-vit-l-14"
    assert rows(text, 3)[0]["published"] == rows(text, 3)[1]["published"] == "0.777"


@pytest.mark.parametrize(
    ("reading", "said"),
    [
        ({"merge": "agree"}, "; only pairs whose two labels agree"),
        ({"merge": "majority"}, "; labels merged as usual"),
        ({}, ""),
    ],
)
def test_the_heading_says_how_the_releases_labels_were_merged(
    tmp_path: Path, reading: dict[str, str], said: str
) -> None:
    grid = reference_grid()[:1]
    heading = tables(tmp_path, grid, grid, reading=reading).splitlines()[0]
    assert heading == f"# s: validation accuracy{said}"
    assert leaderboard(analyse(Store(tmp_path / "s"))).splitlines()[0] == f"# s: search{said}"


def test_the_page_counts_what_was_left_out(tmp_path: Path) -> None:
    grid = reference_grid()[:1]
    one = tables(tmp_path / "one", grid, grid, skipped={"7": "no picture"})
    two = tables(tmp_path / "two", grid, grid, skipped={"7": "no picture", "8": "no picture"})
    assert "\nLeft out: 1 sample whose picture could not be read (7);" in one
    assert "\nLeft out: 2 samples whose pictures could not be read (7, 8);" in two


def test_the_page_says_which_class_no_sample_validates(tmp_path: Path) -> None:
    grid = reference_grid()[:1]
    assert "validates" not in tables(tmp_path, grid, grid)
    store, rows = Store(tmp_path / "s"), np.arange(40)
    for held, said in ((rows[:3], False), (rows[:2], True)):  # the tags are negative, neutral and positive in turn
        write_split(store.folder / "split.npz", Split("reference", {0: rows[3:]}, {0: held}, {0: rows[:0]}))
        for made in (tables_markdown, leaderboard):
            warning = "\nWarning: no positive sample validates: --split kfold:5 scores every sample.\n"
            assert (warning in made(analyse(store))) == said


@pytest.mark.parametrize("change", [{"label_counts": (1, 2, 3)}, {"demo": True}])
def test_no_published_value_stands_beside_other_data(tmp_path: Path, change: dict[str, object]) -> None:
    text = tables(tmp_path, reference_grid(), reference_grid()[:1], **change)
    assert "0.755" not in text and "| published" not in text
    assert ("demo set" in text.splitlines()[0]) == ("demo" in change)


SECTIONS = ("curves", "accuracy", "grids", "importance", "budget", "classes")  # of the report's plots
SPLIT_TOLD = "Published frozen and fine-tuned rows are not on the same samples."


@pytest.mark.parametrize("split", ["reference", "reference-finetune", "kfold:3"])
def test_a_published_value_names_its_split_and_is_compared_on_its_own_samples_alone(tmp_path: Path, split: str) -> None:
    frozen, finetuned = Config(D=128, lr=2e-5), FINETUNE.requested(FINETUNE.parse([]))
    text = tables(tmp_path, [frozen, *finetuned], [frozen, *finetuned], split=split)
    assert (SPLIT_TOLD in text) == (split != "kfold:3")
    if split == "kfold:3":
        assert "0.755" not in text and "0.723" not in text
        return
    first = rows(text, 1)
    compared = [row["row"] for row in first if row["in our interval"] != "–"]
    assert compared == (["1"] if split == "reference" else ["9"])
    assert [row["on split"] for row in first] == ["reference"] * 8 + ["reference-finetune"] * 2
    assert [row["published"] for row in (first[0], first[8])] == ["0.755", "0.723"] and first[8]["n"] == "2"
    others = text.split("## Other configurations of this sweep")[1]
    assert others.count("| yes ") == 2 and "published" not in others  # the better head, at both learning rates


def test_the_report_says_that_published_rows_are_on_different_samples(tmp_path: Path) -> None:
    configs = FINETUNE.requested(FINETUNE.parse([]))
    tables(tmp_path, configs, configs, split="reference-finetune")
    analysis = analyse(Store(tmp_path / "s"))
    assert SPLIT_TOLD in page(analysis, dict.fromkeys(SECTIONS, ()), None)
    assert "What did sharing one BatchNorm cost?" in {question.text for question in analysis.questions}


def test_no_published_value_stands_beside_another_training(tmp_path: Path) -> None:
    short = Config(D=128, lr=2e-5, epochs=7)
    text = tables(tmp_path, [short], [short])
    assert "0.755" not in text and rows(text, 1)[0]["note"] == "epochs=7"


@pytest.mark.long
def test_other_pairs_get_the_same_tables(tmp_path: Path) -> None:
    pairs = ["a+t", "b+t", "c+t"]
    configs = reference_grid(pairs)
    text = tables(tmp_path, configs, configs)
    assert [row["vision"] for row in rows(text, 1)] == ["a"] * 4 + ["b"] * 4
    assert [row["vision"] for row in rows(text, 2)] == ["c"] * 4
    assert {row["batch size"] for row in rows(text, 3)} == {"32"} and len(rows(text, 3)) == 12
    assert sorted((row["vision"], row["text"]) for row in rows(text, 4)) == [
        ("a", "–"),
        ("b", "–"),
        ("c", "–"),
        ("–", "t"),
    ]
    assert sum(len(rows(text, number)) for number in (1, 2, 3, 4)) == len(configs)


def test_every_configuration_of_a_sweep_has_its_row(tmp_path: Path) -> None:
    odd = [Config(image_encoder="a", text_encoder="t", D=7, lr=0.5, batch_size=9, ablation=n) for n in (0, 1, 2)]
    text = tables(tmp_path, odd + reference_grid(), [])
    assert len(rows(text, 3)) == 8 and len(rows(text, 4)) == 6
    others = text.split("## Other configurations of this sweep")[1]
    assert sum(line.split("|")[6].strip() == "7" for line in others.splitlines() if line.startswith("| ")) == 3
    assert "published" not in others


def test_a_table_without_rows_is_left_out(tmp_path: Path) -> None:
    text = tables(tmp_path, [Config(image_encoder="a")], [])
    assert re.findall(r"^## (.*)", text, re.MULTILINE) == ["Table 1. Both modalities, batch size 512"]


def test_the_published_cells_are_the_reference(real: Path) -> None:
    published = real.parent / "documents" / "tables.csv"
    if not published.exists():
        pytest.skip("the reference's tables are not beside the real set")
    package = ROOT / "mvsa_tune" / "report" / "published.csv"
    with published.open() as reference, package.open() as copy:
        assert list(csv.DictReader(copy)) == list(csv.DictReader(reference))


def test_a_stopped_trial_is_marked_with_its_epoch_and_never_the_best(tmp_path: Path) -> None:
    configs = [Config(image_encoder="eye", text_encoder="ear", D=D) for D in (64, 128)]
    text = tables(tmp_path, configs, configs[:1], stopped_at=10)
    first = rows(text, 1)[0]
    assert first["best epoch"].startswith("0.700 ± 0.141 [") and first["note"] == "stopped at epoch 10"
    assert first["behind the best"] == "–"
    assert "1 configuration was stopped early" in text and "`--scheduler none`" in text
    assert "Best of this sweep" not in text


def test_each_row_has_its_own_number_of_replicates(tmp_path: Path) -> None:
    whole, part = (Config(image_encoder="eye", text_encoder="ear", D=D, epochs=2) for D in (64, 128))
    dataset = read_dataset(make_set(tmp_path / "set"))
    store = Store(tmp_path / "s")
    store.begin(sweep(dataset, configs=(whole, part)), dataset)
    store.add(whole, SEEDS, outcome([[6, 8], [6, 8]]), PROVENANCE)
    store.add(part, SEEDS[:1], outcome([[6], [6]]), PROVENANCE)
    text = tables_markdown(analyse(store))
    assert [(row["D"], row["n"]) for row in rows(text, 1)] == [("64", "2"), ("128", "1")]
    assert [" ± " in row["best epoch"] for row in rows(text, 1)] == [True, False]
    assert "Seeds of the sweep: 42, 43; split: reference." in text


def test_a_score_with_a_heading_is_in_every_table(swept: Path) -> None:
    analysis = analyse(Store(swept))
    shown = [column for column in SCORES if column.header and not column.tested]
    assert {column.name for column in shown} == {"val_acc_best", "val_acc_last", "val_acc_cross"}
    (table,) = [table for table in tex_tables(analysis) if table.title.startswith("Table 4")]
    for column in shown:
        assert {f"{column.name}_{end}" for end in ("mean", "std", "low", "high")} <= set(table_rows(analysis))
        assert column.header in table.header and f"| {column.header} " in leaderboard(analysis)


@pytest.mark.parametrize(
    ("kinds", "said"), [((False,), "512"), ((True,), "64"), ((False, True), "512 (fine-tuned: 64)")]
)
def test_a_tables_heading_has_the_batch_sizes_of_its_rows(tmp_path: Path, kinds: tuple[bool, ...], said: str) -> None:
    more = {False: {}, True: {"encoder_lr": 1e-5, "batch_size": 64}}
    configs = [Config(image_encoder="eye", text_encoder="ear", **more[kind]) for kind in kinds]  # type: ignore[arg-type]
    text = tables(tmp_path, configs, configs)
    assert f"## Table 1. Both modalities, batch size {said}\n" in text and len(rows(text, 1)) == len(kinds)


def test_no_two_lines_of_a_page_are_empty(swept: Path) -> None:
    assert "?" in (page := tables_markdown(analyse(Store(swept)))) and "\n\n\n" not in page


def test_a_search_that_has_recorded_nothing_has_a_page(tmp_path: Path) -> None:
    dataset = read_dataset(make_set(tmp_path / "set"))
    store = Store(tmp_path / "s")
    store.begin(sweep(dataset, configs=(), space={"D": "8..16"}), dataset)
    assert "0 trials" in write_results(store)[1] and "Table 1" not in (tmp_path / "s" / "tables.tex").read_text()
    assert (tmp_path / "s" / "tables.csv").read_text().startswith("table,row,")
