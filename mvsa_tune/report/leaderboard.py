"""The page of a search: its trials, ranked, and its finalists, trained again on fresh seeds."""

from pathlib import Path

import pandas as pd

from mvsa_tune.config import CONFIG_FIELDS, Config
from mvsa_tune.data.release import MERGES
from mvsa_tune.errors import some
from mvsa_tune.formats import markdown, short
from mvsa_tune.report.tables import score_cell, shown_scores
from mvsa_tune.results.schema import FAILED, STOPPED
from mvsa_tune.results.store import Store
from mvsa_tune.stats.analysis import Analysis, analyse, verdict
from mvsa_tune.stats.summary import ranked, summarise

SHOWN = 20
# Fields that every row shows, and short names for the headings of these and others.
HEADERS = {
    "image_encoder": "vision", "text_encoder": "text", "batch_size": "batch size", "weight_decay": "weight decay",
    "label_smoothing": "smoothing",
}  # fmt: skip


def confirmed_folder(folder: Path) -> Path:
    """Return the results folder of a search's finalists."""
    return folder / "confirmed"


def finalists(store: Store, count: int) -> list[Config]:
    """Return the best configurations of a search that were trained to their end, at most `count`."""
    configs = {config.id: config for config in store.configs()}
    return [configs[trial] for trial in ranked(summarise(store))["trial_id"][:count]]


def leaderboard(analysis: Analysis) -> str:
    """Return the page of a search."""
    store, summary = analysis.store, analysis.with_intervals()
    best = ranked(summary)
    stopped, failed = (int(summary["status"].str.startswith(status).sum()) for status in (STOPPED, FAILED))
    counts = f"{len(best)} trained to the end, {stopped} stopped early, {failed} failed"
    merged = MERGES.get(store.manifest.reading.get("merge", ""))
    again = confirmed_analysis(store)
    headline = (
        ["## Finalists, on fresh seeds", *verdict(again, of="the finalists"), *_finalists(best, again), "## Search"]
        if again
        else []
    )
    parts = [
        f"# {store.folder.name}: search"
        + (" on the built-in demo set" if store.manifest.demo else "")
        + (f"; {merged}" if merged else ""),
        *headline,
        f"Search space: {', '.join(f'{name} {values}' for name, values in store.manifest.space.items())}.",
        f"{len(summary)} trials: {counts}; {sum(store.epochs().values()):,} epochs in total.",
        *verdict(analysis, of="the search"),
        f"## The best {min(SHOWN, len(best))} of the trials that were trained to the end",
        _trials(best.head(SHOWN)),
    ]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def confirmed_analysis(store: Store) -> Analysis | None:
    """Return the analysis of a search's finalists; None before one is trained again to its end."""
    folder = confirmed_folder(store.folder)
    analysis = analyse(Store(folder)) if (folder / "trials.csv").exists() else None
    return analysis if analysis and analysis.ranked else None


def _finalists(best: pd.DataFrame, confirmed: Analysis) -> list[str]:
    """Return an explanation and a table of the finalists' accuracy, in the search and on fresh seeds."""
    fresh = confirmed.with_intervals().set_index("trial_id")
    names = {config.id: config.name for config in confirmed.store.configs()}
    score, *others = shown_scores(fresh)
    tests = [column for column in others if column.tested]
    body = []
    for _, row in best[best["trial_id"].isin(fresh.index)].iterrows():
        again = fresh.loc[row["trial_id"]]
        change = f"{again[f'{score.name}_mean'] - row[f'{score.name}_mean']:+.3f}" if again["n"] else "–"
        cell = score_cell(score, again) if again["n"] else str(again["status"])
        cells = [names[row["trial_id"]], score_cell(score, row), str(row["n"]), cell, str(again["n"]), change]
        body.append([*cells, *(score_cell(column, again) for column in tests)])
    seeds = some(list(dict.fromkeys(str(replicate.seed) for replicate in confirmed.store.manifest.replicates)))
    explanation = (
        "The search's number is the best of many and therefore biased upwards. The confirmed one is of new seeds "
        f"({seeds}), every epoch trained. Both are validation accuracies at each replicate's best epoch: mean ± "
        "standard deviation over n replicates [95 % interval]."
    )
    header = ["finalist", "in the search", "n", "confirmed", "n", "change", *(column.header for column in tests)]
    return [explanation, markdown(header, body)]


def _trials(best: pd.DataFrame) -> str:
    fields = [name for name in CONFIG_FIELDS if name in HEADERS or best[name].nunique() > 1]
    scores = shown_scores(best)
    header = ["rank", *(HEADERS.get(name, name) for name in fields), *(column.header for column in scores), "n"]
    body = []
    for rank, (_, row) in enumerate(best.iterrows(), start=1):
        values = ("–" if pd.isna(row[name]) else short(row[name]) for name in fields)
        body.append([str(rank), *values, *(score_cell(column, row) for column in scores), str(row["n"])])
    return markdown(header, body)
