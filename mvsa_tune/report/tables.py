"""The reference's tables, with our numbers beside the published ones and what they are worth: `tables.md`, `tables.csv`, `tables.tex`."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pandas as pd

from mvsa_tune.errors import some
from mvsa_tune.formats import Table, markdown_section, short
from mvsa_tune.protocols import PROTOCOLS
from mvsa_tune.report.lines import Line, own_lines, published_lines
from mvsa_tune.results.manifest import SweepManifest
from mvsa_tune.results.schema import FINISHED, STOPPED
from mvsa_tune.results.store import Store
from mvsa_tune.stats.analysis import Analysis, Scored, verdict
from mvsa_tune.stats.intervals import Interval
from mvsa_tune.stats.tests import ALPHA, Difference

# The published numbers belong to MVSA-Single: 1,193 negative, 419 neutral, 2,388 positive labelled samples.
REFERENCE_COUNTS = (1193, 419, 2388)
REFERENCE_SPLIT = "reference"
TITLES = {
    1: "Both modalities, batch size 512",
    2: "Both modalities, batch size 512, {which}",
    3: "Both modalities, {which}",
    4: "One modality",
}
OTHERS = 5
# What is shown of the test samples, where a split has any.
TESTED = {"test_acc_best": "test accuracy", "test_f1_weighted_best": "test F1 (weighted)"}


def tables_markdown(analysis: Analysis) -> str:
    """Write the tables of a sweep, what is best first."""
    found = tables(analysis)
    published = any("published" in table.header for table in found)
    parts = [_heading(analysis, published), *(f"{line}\n" for line in verdict(analysis))]
    return "\n".join([*parts, *map(markdown_section, found)])


def tables(analysis: Analysis) -> list[Table]:
    """The four tables of a sweep, as texts.

    A sweep that holds published configurations, on the reference's data and split, gets the reference's rows, all of them; those that
    are not in the sweep or could not run say why. Its other configurations follow in a table of their own. Any other sweep's are sorted by the same rule: both
    modalities at batch size 512 in table 1 (the first two pairs) and 2 (further pairs), at other batch sizes in 3,
    one modality in 4.
    """
    published, lines = _lines(analysis.store)
    made = []
    for number in TITLES:
        title = f"Table {number}. {_title(number, published)}"
        mine = [line for line in lines if line.table == number]
        made.append(_table(title, mine, analysis, published) if mine else Table(title, (), (), _absent(number)))
    if others := [line for line in lines if line.table == OTHERS]:
        made.append(_table("Other configurations of this sweep", others, analysis, False))
    return made


def tables_csv(analysis: Analysis) -> pd.DataFrame:
    """The same lines as numbers: a row a line, every interval's ends, and the difference from the best of its table."""
    records = []
    _, lines = _lines(analysis.store)
    for number in sorted({line.table for line in lines}):
        mine = [line for line in lines if line.table == number]
        less = _less_than_best(mine, analysis)
        records += [_record(line, analysis, less) for line in mine]
    return pd.DataFrame(records)


def _lines(store: Store) -> tuple[bool, list[Line]]:
    """Whether there are the reference's lines, and all lines."""
    sweep = store.manifest
    comparable = not sweep.demo and sweep.label_counts == REFERENCE_COUNTS and sweep.split == REFERENCE_SPLIT
    configs = store.configs()
    published = published_lines(sweep.configs[0].precision) if comparable and sweep.configs else []
    published = published if any(line.config in configs for line in published) else []
    own = own_lines([config for config in configs if config not in {line.config for line in published}])
    return bool(published), published + ([replace(line, table=OTHERS) for line in own] if published else own)


def _heading(analysis: Analysis, published: bool) -> str:
    store, sweep = analysis.store, analysis.store.manifest
    stopped = int(analysis.summary["status"].str.startswith(STOPPED).sum())
    tested = "test_acc_best_mean" in analysis.summary
    title = f"# {store.folder.name}: {'test' if tested else 'validation'} accuracy"
    if sweep.demo:
        title += " on the built-in demo set (made-up pairs: these numbers say nothing about tweets)"
    epochs = ", ".join(sorted({str(config.epochs) for config in sweep.configs}))
    explanation = (
        f"Protocol {sweep.protocol}: {PROTOCOLS[sweep.protocol].reported}. Ours: {_reported(sweep, epochs)}, mean ± standard "
        f"deviation over n replicates ({_replicates(sweep)}; {sweep.split} split) [95 % interval]. Chosen on the samples it is scored on, it "
        "reads high: the accuracy after the last epoch stands beside it, and the cross-fitted one, which scores each half of the samples at "
        "the epoch that is best on the other, and by which configurations are ranked and compared. Behind the best: points less than the best of the "
        "table, p over seeds and samples, corrected (Holm) for every two of its rows; = where it cannot be told from the best."
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
        explanation += " The reference experiment publish no number for these configurations on this data."
    return f"{title}\n\n{explanation}\n"


def _reported(sweep: SweepManifest, epochs: str) -> str:
    if all(config.select == "accuracy" for config in sweep.configs):
        return f"each replicate's best validation accuracy over its {epochs} epochs"
    return f"each replicate's validation accuracy at the epoch, of its {epochs}, of the least validation loss"


def _replicates(sweep: SweepManifest) -> str:
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
    return f"No such configuration in this sweep; {how[number]} would add some."


def _less_than_best(lines: Sequence[Line], analysis: Analysis) -> dict[str, Difference | None]:
    """By configuration: how much less than the best of these lines, p corrected over every two of them; None for the best itself."""
    ids = {line.config.id for line in lines}
    best = next((one.config.id for one in analysis.ranked if one.config.id in ids), None)
    return {**({best: None} if best else {}), **analysis.behind_best(ids)}


def _table(title: str, lines: Sequence[Line], analysis: Analysis, published: bool) -> Table:
    summary = {row["trial_id"]: row for _, row in analysis.summary.iterrows()}
    tests = [name for name in TESTED if f"{name}_mean" in analysis.summary]
    less = _less_than_best(lines, analysis)
    header = ["row", "vision", "text", "fine-tuned", "batch size", "D", "lr", *(["published"] if published else [])]
    header += ["ours: best epoch", *(["published inside"] if published else []), "last epoch", "cross-fitted"]
    header += ["behind the best", *(TESTED[name] for name in tests), "n", "note"]
    body = []
    for place, line in enumerate(lines, start=1):
        cells = [line.label or str(place), line.vision or "–", line.text or "–", "yes" if line.finetuned else "no"]
        cells += [str(line.batch_size), str(line.D), short(line.lr), *([line.published or "–"] if published else [])]
        row, one = summary.get(line.config.id), analysis.scored.get(line.config.id)
        if row is not None and row["n"] and one:
            cells += [f"{accuracy_cell(row)}{ends(one.best)}", *([_inside(line, one)] if published else [])]
            cells += [
                f"{row['val_acc_last_mean']:.3f}{ends(one.last)}",
                f"{row['val_acc_cross_mean']:.3f}{ends(one.cross)}",
            ]
            cells += [_behind(line.config.id, less), *(accuracy_cell(row, name) for name in tests), str(row["n"])]
        else:
            cells += ["–"] * (4 + len(tests) + published) + ["0"]
        body.append([*cells, "; ".join(filter(None, [line.note, _why_not(line, row)]))])
    if not any(cells[-1] for cells in body):
        header, body = header[:-1], [cells[:-1] for cells in body]
    return Table(title, header, body)


def ends(interval: Interval | None) -> str:
    """An interval's ends for a cell, where there are any."""
    return f" [{interval.low:.3f}, {interval.high:.3f}]" if interval else ""


def _inside(line: Line, one: Scored) -> str:
    if not line.published or one.best is None:
        return "–"
    return "yes" if one.best.low <= float(line.published) <= one.best.high else "no"


def _behind(trial: str, less: Mapping[str, Difference | None]) -> str:
    """`best`, or by how much less, and whether it can be told from the best."""
    if trial not in less:
        return "–"  # a stopped trial is no rival
    found = less[trial]
    if found is None:
        return "best"
    told = "" if found.corrected < ALPHA else " ="
    return f"{100 * found.interval.mean:.1f}, p {found.corrected:.2g}{told}"


def _record(line: Line, analysis: Analysis, less: Mapping[str, Difference | None]) -> dict[str, object]:
    one, trial = analysis.scored.get(line.config.id), line.config.id
    known = analysis.summary.set_index("trial_id")["status"]
    record: dict[str, object] = {
        "table": line.table, "row": line.label, "vision": line.vision, "text": line.text, "finetuned": line.finetuned,
        "batch_size": line.batch_size, "D": line.D, "lr": line.lr, "ablation": line.config.ablation, "trial_id": trial,
        "status": known.get(trial, "not in this sweep"), "published": line.published,
    }  # fmt: skip
    for name in ("best", "last", "cross"):
        found: Interval | None = getattr(one, name) if one else None
        record |= {f"{name}_{part}": getattr(found, part) if found else None for part in ("mean", "std", "low", "high")}
    record["n"] = one.values.shape[0] if one else 0
    record["published_inside"] = _inside(line, one) if one else "–"
    behind = less.get(trial)
    record |= {
        "behind_best": behind.interval.mean if behind else (0.0 if trial in less else None),
        "behind_low": behind.interval.low if behind else None,
        "behind_high": behind.interval.high if behind else None,
        "p": behind.p if behind else None,
        "p_holm": behind.corrected if behind else None,
        "test": behind.test if behind else None,
        "note": line.note,
    }
    return record


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
