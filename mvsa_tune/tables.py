"""The documents' tables, with our numbers beside the published ones."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import resources

import pandas as pd

from mvsa_tune.config import Config, short
from mvsa_tune.errors import some
from mvsa_tune.identity import Sweep
from mvsa_tune.protocols import PROTOCOLS
from mvsa_tune.rows import FINISHED, STOPPED
from mvsa_tune.stats import best
from mvsa_tune.store import Store

# The published numbers belong to MVSA-Single: 1,193 negative, 419 neutral, 2,388 positive labelled samples.
DOCUMENTS_COUNTS = (1193, 419, 2388)
DOCUMENTS_BATCH_SIZE = {False: 512, True: 64}  # fine-tuned or not
DOCUMENTS_SPLIT = "documents"
# Table 3 does not say which CLIP: it stands for both.
CLIP = ("clip-vit-b-32", "clip-vit-l-14")
TITLES = {
    1: "Both modalities, batch size 512",
    2: "Both modalities, batch size 512, {which}",
    3: "Both modalities, {which}",
    4: "One modality",
}
OTHERS = 5
# What is shown of the test samples, where a split has any.
TESTED = {"test_acc_best": "test accuracy", "test_f1_weighted_best": "test F1 (weighted)"}


@dataclass(frozen=True)
class Line:
    """A row of a table: what it is about, the published accuracy if that is about the same, and ours if we have it."""

    table: int
    label: str
    vision: str
    text: str
    finetuned: bool
    batch_size: int
    D: int
    lr: float
    published: str
    config: Config
    note: str = ""


def tables_markdown(store: Store, summary: pd.DataFrame) -> str:
    """Write the four tables of a sweep.

    A sweep that holds published configurations, on the documents' data and split, gets the documents' rows, all of them; those that
    are not in the sweep or could not run say why. Its other configurations follow in a table of their own. Any other sweep's are sorted by the same rule: both
    modalities at batch size 512 in table 1 (the first two pairs) and 2 (further pairs), at other batch sizes in 3,
    one modality in 4.
    """
    sweep = store.sweep
    comparable = not sweep.demo and sweep.label_counts == DOCUMENTS_COUNTS and sweep.split == DOCUMENTS_SPLIT
    published = published_lines(sweep.configs[0].precision) if comparable and sweep.configs else []
    published = published if any(line.config in sweep.configs for line in published) else []
    own = own_lines([config for config in sweep.configs if config not in {line.config for line in published}])
    if published:
        own = [replace(line, table=OTHERS) for line in own]
    lines = published + own
    by_id = {row["trial_id"]: row for _, row in summary.iterrows()}
    stopped = int(summary["status"].str.startswith(STOPPED).sum())
    tested = "test_acc_best_mean" in summary
    parts = [_heading(store, bool(published), stopped, tested)]
    for number in TITLES:
        parts.append(f"## Table {number}. {_title(number, bool(published))}\n")
        mine = [line for line in lines if line.table == number]
        parts.append(_table(mine, by_id, bool(published)) if mine else _absent(number))
    if others := [line for line in lines if line.table == OTHERS]:
        parts.append(f"## Other configurations of this sweep\n\n{_table(others, by_id, published=False)}")
    winner = best(summary)
    if winner is not None:
        name = next(config.name for config in sweep.configs if config.id == winner["trial_id"])
        parts.append(
            f"Best of this sweep by mean validation accuracy: **{name}**, {accuracy_cell(winner)} (n {winner['n']}).\n"
        )
    return "\n".join(parts)


def published_lines(precision: str = Config.precision) -> list[Line]:
    """Every row of the documents' tables, as configurations, trained in `precision`: theirs was mixed on a GPU."""
    lines = []
    text = resources.files("mvsa_tune").joinpath("published.csv").read_text(encoding="utf-8")
    for cell in csv.DictReader(text.splitlines()):
        clips = CLIP if "clip" in (cell["vision"], cell["text"]) else ("",)
        for clip in clips:
            vision, words = (clip if cell[column] == "clip" else cell[column] for column in ("vision", "text"))
            finetuned = cell["finetuned"] == "yes"
            lr = float(cell["lr"])
            config = Config(
                image_encoder=vision or None,
                text_encoder=words or None,
                D=int(cell["D"]),
                lr=lr,
                batch_size=int(cell["batch_size"]),
                ablation=int(cell["ablation"]),
                precision=precision,
                encoder_lr=lr if finetuned else 0.0,
            )
            lines.append(
                Line(
                    table=int(cell["table"]),
                    label=cell["row"],
                    vision=vision,
                    text=words,
                    finetuned=finetuned,
                    batch_size=config.batch_size,
                    D=config.D,
                    lr=config.lr,
                    published=cell["val_acc"],
                    config=config,
                    note=cell["note"],
                )
            )
    return lines


def own_lines(configs: Sequence[Config]) -> list[Line]:
    """The tables' rows for configurations that the documents do not have."""
    pairs = list(dict.fromkeys((c.image_encoder, c.text_encoder) for c in configs if c.ablation == 0))
    lines = []
    for config in configs:
        if config.ablation != 0:
            table = 4
        elif config.batch_size != DOCUMENTS_BATCH_SIZE[config.finetuned]:
            table = 3
        else:
            table = 1 if pairs.index((config.image_encoder, config.text_encoder)) < 2 else 2
        lines.append(
            Line(
                table=table,
                label="",
                vision=config.image_encoder or "",
                text=config.text_encoder or "",
                finetuned=config.finetuned,
                batch_size=config.batch_size,
                D=config.D,
                lr=config.lr,
                published="",
                config=config,
                note=config.peculiarities,
            )
        )
    return lines


def _heading(store: Store, published: bool, stopped: int, tested: bool) -> str:
    sweep = store.sweep
    title = f"# {store.folder.name}: {'test' if tested else 'validation'} accuracy"
    if sweep.demo:
        title += " on the built-in demo set (made-up pairs: these numbers say nothing about tweets)"
    epochs = ", ".join(sorted({str(config.epochs) for config in sweep.configs}))
    explanation = (
        f"Protocol {sweep.protocol}: {PROTOCOLS[sweep.protocol].reported}. Ours: {_reported(sweep, epochs)}, mean ± standard "
        f"deviation over n replicates ({_replicates(sweep)}; {sweep.split} split). Chosen on the samples it is scored on, the "
        "validation accuracy reads high; the accuracy after the last epoch stands beside it."
    )
    if tested:
        explanation += " Accuracy and F1 on each fold's test samples are those of the same epoch: neither it nor anything else is chosen on them."
    if stopped:
        explanation += (
            f" {stopped} configurations were stopped early: their cells hold the best up to that epoch, marked with it, and take "
            "no part in any ranking; `--scheduler none` with the same command trains them to the end."
        )
    if sweep.skipped:
        explanation += (
            f" Without {len(sweep.skipped):,} samples whose pictures could not be read ({some(list(sweep.skipped))}); "
            "sweep.json lists them all and says why."
        )
    if not published:
        explanation += " The documents publish no number for these configurations on this data."
    return f"{title}\n\n{explanation}\n"


def _reported(sweep: Sweep, epochs: str) -> str:
    if all(config.select == "accuracy" for config in sweep.configs):
        return f"each replicate's best validation accuracy over its {epochs} epochs"
    return f"each replicate's validation accuracy at the epoch, of its {epochs}, of the least validation loss"


def _replicates(sweep: Sweep) -> str:
    """Which seeds, and on how many folds."""
    seeds = dict.fromkeys(str(one.seed) for one in sweep.replicates)
    each = len(sweep.replicates) // len(seeds)
    return f"seeds {', '.join(seeds)}" + (f", each on {each} folds" if each > 1 else "")


def _title(number: int, published: bool) -> str:
    which = {
        2: "CLIP ViT-L/14" if published else "further pairs",
        3: "batch size 32" if published else "other batch sizes",
    }
    return TITLES[number].format(which=which.get(number))


def _absent(number: int) -> str:
    how = {
        1: "`--ablation 0 --batch-size 512`",
        2: "a third of `--pairs`",
        3: "`--batch-size 32`",
        4: "`--ablation 1 2`",
    }
    return f"No such configuration in this sweep; {how[number]} would add some.\n"


def _table(lines: Sequence[Line], summary: dict[str, pd.Series], published: bool) -> str:
    header = ["row", "vision", "text", "fine-tuned", "batch size", "D", "lr"]
    header += ["published"] if published else []
    tests = [name for name in TESTED if any(f"{name}_mean" in row for row in summary.values())]
    header += ["ours: best epoch", "last epoch", *(TESTED[name] for name in tests), "n", "note"]
    body = []
    for place, line in enumerate(lines, start=1):
        cells = [
            line.label or str(place),
            line.vision or "–",
            line.text or "–",
            "yes" if line.finetuned else "no",
        ]
        cells += [str(line.batch_size), str(line.D), short(line.lr)]
        cells += [line.published or "–"] if published else []
        row = summary.get(line.config.id)
        if row is not None and row["n"]:
            cells += [accuracy_cell(row), f"{row['val_acc_last_mean']:.3f}"]
            cells += [accuracy_cell(row, name) for name in tests] + [str(row["n"])]
        else:
            cells += ["–", "–", *("–" for _ in tests), "0"]
        body.append([*cells, "; ".join(filter(None, [line.note, _why_not(line, row)]))])
    if not any(cells[-1] for cells in body):
        header, body = header[:-1], [cells[:-1] for cells in body]
    return markdown(header, body)


def accuracy_cell(row: pd.Series, score: str = "val_acc_best") -> str:
    """A summary's score for a person: mean ± standard deviation, marked if the trial was stopped."""
    mean = f"{row[f'{score}_mean']:.3f}"
    spread = "" if row["n"] == 1 else f" ± {row[f'{score}_std']:.3f}"
    # What was stopped is no rival of what was trained to its end.
    mark = "" if row["epochs_run"] == row["epochs"] else f" ({row['epochs_run']:.0f} of {row['epochs']} epochs)"
    return mean + spread + mark


def _why_not(line: Line, row: pd.Series | None) -> str:
    if row is None:
        return "not in this sweep"
    status = str(row["status"])
    return "" if status.startswith((FINISHED, STOPPED)) else status.replace("|", "\\|")  # the cell says how far it came
