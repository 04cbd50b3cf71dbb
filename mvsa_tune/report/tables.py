"""A sweep's tables, as numbers, as texts and as a page, with the reference's rows if its configurations are swept."""

import csv
import math
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from importlib import resources
from itertools import groupby
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined

from mvsa_tune.config import Config
from mvsa_tune.data.release import MERGES
from mvsa_tune.data.splits import read_split, unvalidated
from mvsa_tune.errors import some
from mvsa_tune.formats import Table, markdown_section, short
from mvsa_tune.protocols import PROTOCOLS, REFERENCE_COUNTS
from mvsa_tune.results.schema import FINISHED, SCORES, STOPPED, Column
from mvsa_tune.results.store import Store
from mvsa_tune.stats.analysis import Analysis, verdict
from mvsa_tune.stats.differences import ALPHA

# Of the reference's frozen rows, and of its fine-tuned ones.
REFERENCE_BATCH_SIZE = {False: 512, True: 64}
REFERENCE_SPLIT = {False: "reference", True: "reference-finetune"}
CLIPS = ("clip-vit-b-32", "clip-vit-l-14")  # table 3 does not say which CLIP: it stands for both
OTHERS = 5  # the table of configurations that the reference does not have
# Below the tables that have published fine-tuned rows.
OTHER_SAMPLES = (
    "Published frozen and fine-tuned rows are not on the same samples. The former were scored on the split "
    "`reference`, the latter on `reference-finetune`: 45 of the 400 validation samples are in both, the other 355 of "
    "each are training samples of the other. `finetune.py --split reference` trains the fine-tuned rows on the samples "
    "of the frozen ones. Fine-tuned rows of both modalities share one BatchNorm (head `concat-shared-norm`)."
)
STATISTICS = ("mean", "std", "low", "high")
# The columns of `tables.csv` before the scores: what a row is about, and how far it is behind the best of its table.
ROW = (
    "table", "row", "trial_id", "vision", "text", "finetuned", "batch_size", "D", "lr", "ablation", "published",
    "published_split", "note",
)  # fmt: skip
BEHIND = ("behind_best", "behind_low", "behind_high", "p", "p_best", "test")


@dataclass(frozen=True)
class Line:
    """A row of a table: a configuration; for a published one also its row, accuracy and split in the reference."""

    table: int
    config: Config
    row: str = ""
    published: str = ""
    split: str = ""
    note: str = ""


def published_lines(precision: str = Config.precision) -> list[Line]:
    """Return every row of the reference's tables, with `precision` in place of the reference's mixed one on a GPU."""
    text = resources.files("mvsa_tune.report").joinpath("published.csv").read_text(encoding="utf-8")
    lines = []
    for row in csv.DictReader(text.splitlines()):
        for clip in CLIPS if "clip" in (row["vision"], row["text"]) else ("",):
            image, words = (clip if row[column] == "clip" else row[column] for column in ("vision", "text"))
            finetuned, ablation, lr = row["finetuned"] == "yes", int(row["ablation"]), float(row["lr"])
            config = Config(
                image_encoder=image or None,
                text_encoder=words or None,
                head="concat-shared-norm" if finetuned and not ablation else "concat",
                D=int(row["D"]),
                lr=lr,
                batch_size=int(row["batch_size"]),
                ablation=ablation,
                precision=precision,
                encoder_lr=lr if finetuned else 0.0,
                batchnorm="updated" if finetuned else "kept",
            )
            split = REFERENCE_SPLIT[finetuned]
            lines.append(Line(int(row["table"]), config, row["row"], row["val_acc"], split, row["note"]))
    return lines


def table_lines(store: Store) -> list[Line]:
    """Return the rows of a sweep's tables.

    A search has a single one, in the order in which trials ended.

    A sweep that holds published configurations, on the reference's data and one of its splits, gets all rows of the
    reference's tables; its other configurations follow in table `OTHERS`. Those of any other sweep go by the same rule:
    both modalities at the reference's batch size into table 1 (the first two pairs) and 2 (further pairs), at other
    batch sizes into 3, one modality into 4.
    """
    manifest, configs = store.manifest, store.configs()
    if manifest.space:
        return [Line(1, config, note=config.other_changes) for config in configs]
    comparable = manifest.label_counts == REFERENCE_COUNTS and manifest.split in REFERENCE_SPLIT.values()
    comparable = comparable and not manifest.demo
    published = published_lines(manifest.configs[0].precision) if comparable and manifest.configs else []
    known = {line.config for line in published}
    if known & set(configs):
        others = [Line(OTHERS, config, note=config.other_changes) for config in configs if config not in known]
        return [*published, *others]
    pairs = list(dict.fromkeys((c.image_encoder, c.text_encoder) for c in configs if c.ablation == 0))

    def table(config: Config) -> int:
        if config.ablation:
            return 4
        if config.batch_size != REFERENCE_BATCH_SIZE[config.finetuned]:
            return 3
        return 1 if (config.image_encoder, config.text_encoder) in pairs[:2] else 2

    lines = [Line(table(config), config, note=config.other_changes) for config in configs]
    return sorted(lines, key=lambda line: line.table)


def table_rows(analysis: Analysis) -> pd.DataFrame:
    """Return the rows of a sweep's tables as numbers: the content of `tables.csv`."""
    rows = []
    for table, group in groupby(table_lines(analysis.store), lambda line: line.table):
        lines = list(group)
        behind = _behind_best({line.config.id for line in lines}, analysis)
        for number, line in enumerate(lines, start=1):
            config = line.config
            row = {"table": table, "row": line.row or str(number), "trial_id": config.id}
            row |= {"vision": config.image_encoder or "", "text": config.text_encoder or ""}
            row |= {name: getattr(config, name) for name in ("finetuned", "batch_size", "D", "lr", "ablation")}
            row |= {"published": line.published, "published_split": line.split, "note": line.note}
            rows.append({**row, **behind.get(config.id, {})})
    frame = pd.DataFrame(rows, columns=[*ROW, *BEHIND])
    if frame.empty:
        return frame
    summary = analysis.with_intervals()
    scores = [f"{column.name}_{statistic}" for column in shown_scores(summary) for statistic in STATISTICS]
    columns = ["trial_id", "status", "n", *(name for name in scores if name in summary)]
    frame = frame.merge(summary[columns], how="left", on="trial_id")
    frame = frame.fillna({"status": "not in this sweep", "n": 0}).astype({"n": int})
    published, low, high = pd.to_numeric(frame["published"]), frame["val_acc_best_low"], frame["val_acc_best_high"]
    inside = published.between(low, high).map({True: "yes", False: "no"})
    same_samples = frame["published_split"] == analysis.store.manifest.split
    return frame.assign(published_inside=inside.where(published.notna() & low.notna() & same_samples, ""))


def _behind_best(trials: Collection[str], analysis: Analysis) -> dict[str, dict[str, Any]]:
    """Return by trial how far it is behind the best of them, by `BEHIND`; without those that are not compared."""
    best = next((scored.config.id for scored in analysis.ranked if scored.config.id in trials), None)
    behind: dict[str, dict[str, Any]] = {best: {"behind_best": 0.0}} if best else {}
    for trial, d in analysis.behind_best(trials).items():
        values = (d.mean, d.low, d.high, d.p, d.adjusted, d.test)
        behind[trial] = dict(zip(BEHIND, values, strict=True))
    return behind


def tables(analysis: Analysis) -> list[Table]:
    """Return a sweep's tables that have rows, as texts."""
    rows = table_rows(analysis)
    published = bool(rows["published"].any())
    pairs, sizes = ("CLIP ViT-L/14", "batch size 32") if published else ("further pairs", "other batch sizes")
    titles = {
        1: f"Table 1. Both modalities, {_batch_sizes(rows, 1)}",
        2: f"Table 2. Both modalities, {_batch_sizes(rows, 2)}, {pairs}",
        3: f"Table 3. Both modalities, {sizes}",
        4: "Table 4. One modality",
        OTHERS: "Other configurations of this sweep",
    }
    scores = shown_scores(rows)
    made = []
    for table, title in titles.items():
        records = rows[rows["table"] == table].to_dict("records")
        cells = [_cells(record, scores, published and table != OTHERS) for record in records]
        if cells:
            header = [name for name in cells[0] if name != "note" or any(row["note"] for row in cells)]
            note = OTHER_SAMPLES if any(row["published_split"] == REFERENCE_SPLIT[True] for row in records) else ""
            made.append(Table(title, header, [[row[name] for name in header] for row in cells], note))
    return made


def _batch_sizes(rows: pd.DataFrame, table: int) -> str:
    """Return the batch sizes of a table of the reference's, for its heading: fine-tuned rows have their own."""
    kinds = sorted(set(rows["finetuned"][rows["table"] == table])) or [False]
    frozen, *finetuned = (REFERENCE_BATCH_SIZE[kind] for kind in kinds)
    return f"batch size {frozen}" + (f" (fine-tuned: {finetuned[0]})" if finetuned else "")


def shown_scores(summary: pd.DataFrame) -> list[Column]:
    """Return the scores that tables show; those on test samples where the split has any."""
    return [column for column in SCORES if column.header and f"{column.name}_mean" in summary]


def score_cell(column: Column, row: "Mapping[Any, Any] | pd.Series[Any]") -> str:
    """Return a score of a summary's row as a table's cell."""
    mean, std, low, high = (row.get(f"{column.name}_{statistic}", math.nan) for statistic in STATISTICS)
    return "–" if math.isnan(mean) else column.cell(mean, std, low, high)


def _cells(row: Mapping[Any, Any], scores: list[Column], published: bool) -> dict[str, str]:
    """Return a row's cells by column heading."""
    cells = {"row": row["row"], "vision": row["vision"] or "–", "text": row["text"] or "–"}
    cells |= {"fine-tuned": "yes" if row["finetuned"] else "no", "batch size": str(row["batch_size"])}
    cells |= {"D": str(row["D"]), "lr": short(row["lr"])}
    if published:
        cells |= {"published": row["published"] or "–", "on split": row["published_split"]}
        cells |= {"in our interval": row["published_inside"] or "–"}
    cells |= {column.header: score_cell(column, row) for column in scores}
    if pd.isna(row["behind_best"]):
        behind = "–"
    elif pd.isna(row["p_best"]):
        behind = "best"
    else:
        gap, low, high = (f"{100 * row[name]:.1f}".replace("-", "−") for name in BEHIND[:3])
        behind = f"{gap} ({low} to {high})" + (" =" if row["p_best"] >= ALPHA else "")
    status = "" if row["status"] == FINISHED else row["status"]
    note = "; ".join(filter(None, [row["note"], status]))
    return {**cells, "behind the best": behind, "n": str(row["n"]), "note": note}


def tables_markdown(analysis: Analysis) -> str:
    """Return the page of a sweep's tables: how to read them, the answer in words, the tables."""
    store, manifest, configs, made = analysis.store, analysis.store.manifest, analysis.store.configs(), tables(analysis)
    return render(
        "tables.md.j2",
        name=store.folder.name,
        manifest=manifest,
        merged=MERGES.get(manifest.reading.get("merge", "")),
        reported=PROTOCOLS[manifest.protocol].reported,
        tested=any(column.tested for column in shown_scores(analysis.summary)),
        by_loss=any(config.select == "loss" for config in configs),
        epochs=", ".join(map(str, sorted({config.epochs for config in configs}))),
        seeds=_seeds(store),
        stopped=int(analysis.summary["status"].str.startswith(STOPPED).sum()),
        skipped=some(list(manifest.skipped)),
        warning=split_warning(store),
        published=any("published" in table.header for table in made),
        verdict=verdict(analysis),
        tables=made,
    )


def split_warning(store: Store) -> str:
    """Return a line on the classes without validation samples; empty if there are none, or the split is lost."""
    split = read_split(store.folder / "split.npz", store.manifest.split)
    note = unvalidated(split, store.samples()["label"].to_numpy(), store.manifest.classes) if split else ""
    return f"Warning: {note}." if note else ""


def _seeds(store: Store) -> str:
    """Return which seeds and folds a sweep has trained, as a sentence."""
    manifest = store.trained
    folds = Counter(replicate.seed for replicate in manifest.replicates)
    most = max(folds.values())
    each = f", each on {'' if set(folds.values()) == {most} else 'up to '}{most} folds" if most > 1 else ""
    asked = str(store.settings().get("seeds", ""))
    why = f" (--seeds {asked}: more where they decide which one is the best)" if ".." in asked else ""
    return f"Seeds of the sweep: {', '.join(map(str, folds))}{each}{why}; split: {manifest.split}."


def render(template: str, **values: object) -> str:
    """Return a template with its values; text is escaped in HTML. An unknown value raises `jinja2.UndefinedError`."""
    environment = Environment(
        loader=PackageLoader("mvsa_tune.report", "."),
        autoescape=template.endswith(".html.j2"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["markdown"] = markdown_section
    return environment.get_template(template).render(values)
