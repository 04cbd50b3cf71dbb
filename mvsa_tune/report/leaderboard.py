"""The pages of a search: its trials, ranked, and its finalists, trained again on fresh seeds."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from mvsa_tune.config import CONFIG_FIELDS, SEARCH_SPACE, Config
from mvsa_tune.data.release import MERGES
from mvsa_tune.dimensions import Range
from mvsa_tune.errors import some
from mvsa_tune.formats import Table, markdown_section, minus, short
from mvsa_tune.report.tables import score_cell, shown_scores, split_warning, tables
from mvsa_tune.results.schema import FAILED, FINISHED, RANKED_BY, STOPPED
from mvsa_tune.results.store import Store
from mvsa_tune.stats.analysis import Analysis, analyse, verdict
from mvsa_tune.stats.summary import ranked, summarise

SHOWN = 20
# Short names of fields.
HEADERS = {
    "pair": "encoders", "batch_size": "batch size", "weight_decay": "weight decay", "label_smoothing": "smoothing",
}  # fmt: skip
LOG = {name for name, dimension in SEARCH_SPACE.items() if isinstance(dimension, Range) and dimension.log}


def confirmed_folder(folder: Path) -> Path:
    """Return the results folder of a search's finalists."""
    return folder / "confirmed"


def finalists(store: Store, count: int) -> list[Config]:
    """Return the best configurations of a search that were trained to their end, at most `count`."""
    configs = {config.id: config for config in store.configs()}
    return [configs[trial] for trial in ranked(summarise(store))["trial_id"][:count]]


def trials(analysis: Analysis) -> pd.DataFrame:
    """Return the trials of a search that have ended, in that order.

    Columns: the fields of `Config`, `pair`, `number` (from 1), `score` (mean cross-fitted accuracy; NaN for a failed
    one), `finished` (trained to the end), `title` (number, name and score), and those of the summary with intervals.
    """
    configs = {config.id: config for config in analysis.store.configs()}
    frame = analysis.with_intervals().reset_index(drop=True)
    frame = frame.assign(
        pair=[config.name.partition(" D=")[0] for config in map(configs.get, frame["trial_id"]) if config],
        number=frame.index + 1,
        score=frame[f"{RANKED_BY}_mean"],
        finished=frame["status"] == FINISHED,
    )
    title = [
        f"trial {row['number']}, {configs[row['trial_id']].name}: "
        + (f"{row['score']:.3f}" if row["n"] else "")
        + ("" if row["finished"] else f" {row['status']}")
        for _, row in frame.iterrows()
    ]
    return frame.assign(title=title)


def dimensions(frame: pd.DataFrame) -> dict[str, str]:
    """Return the columns of `trials` that were searched and differ between its rows, each with its name."""
    fields = ["pair", *(name for name in CONFIG_FIELDS if not name.endswith("_encoder"))]
    return {name: HEADERS.get(name, name) for name in fields if frame[name].nunique() > 1}


def leaderboard(analysis: Analysis) -> str:
    """Return the page of a search as Markdown."""
    store = analysis.store
    merged = MERGES.get(store.manifest.reading.get("merge", ""))
    confirmed = confirmed_analysis(store)
    headline = []
    if confirmed:
        table = markdown_section(finalist_table(analysis, confirmed))
        headline = [table, *verdict(confirmed, of="the finalists"), "## Search"]
    parts = [
        f"# {store.folder.name}: search"
        + (" on the built-in demo set" if store.manifest.demo else "")
        + (f"; {merged}" if merged else ""),
        *headline,
        f"Search space: {', '.join(f'{name} {values}' for name, values in store.manifest.space.items())}.",
        f"{trial_counts(analysis)}.",
        *filter(None, [split_warning(store)]),
        *verdict(analysis, of="the search"),
        markdown_section(trial_table(analysis, SHOWN)),
    ]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def sweep_tables(analysis: Analysis) -> list[Table]:
    """Return the tables of a sweep; of a search its finalists, once they are trained again, and its best trials."""
    if not analysis.store.manifest.space:
        return tables(analysis)
    confirmed = confirmed_analysis(analysis.store)
    first = [finalist_table(analysis, confirmed)] if confirmed else []
    return [*first, trial_table(analysis, SHOWN)]


def trial_counts(analysis: Analysis) -> str:
    """Return how many trials there are, of which kinds, and their epochs."""
    of_kind = [f"{len(ranked(analysis.summary))} trained to the end"]
    for kind, text in ((STOPPED, "stopped early"), (FAILED, "failed")):
        of_kind.append(f"{analysis.summary['status'].str.startswith(kind).sum()} {text}")
    count, epochs = len(analysis.summary), sum(analysis.store.epochs().values())
    return f"{count} trial{'s' * (count != 1)}: {', '.join(of_kind)}; {epochs:,} epochs in total"


def confirmed_analysis(store: Store) -> Analysis | None:
    """Return the analysis of a search's finalists; None before one is trained again to its end."""
    folder = confirmed_folder(store.folder)
    analysis = analyse(Store(folder)) if (folder / "trials.csv").exists() else None
    return analysis if analysis and analysis.ranked else None


def finalist_table(analysis: Analysis, confirmed: Analysis) -> Table:
    """Return a table of the finalists' accuracy, in the search and on fresh seeds."""
    fresh, best = confirmed.with_intervals().set_index("trial_id"), ranked(analysis.with_intervals())
    names = {config.id: config.name for config in confirmed.store.configs()}
    score, *others = shown_scores(fresh)
    more = [column for column in others if column.tested or column.name == RANKED_BY]
    body = []
    for _, row in best[best["trial_id"].isin(fresh.index)].iterrows():
        again = fresh.loc[row["trial_id"]]
        change = minus(f"{again[f'{score.name}_mean'] - row[f'{score.name}_mean']:+.3f}") if again["n"] else "–"
        cell = score_cell(score, again) if again["n"] else str(again["status"])
        cells = [names[row["trial_id"]], score_cell(score, row), str(row["n"]), cell, str(again["n"]), change]
        body.append([*cells, *(score_cell(column, again) for column in more)])
    seeds = some(list(dict.fromkeys(str(replicate.seed) for replicate in confirmed.store.manifest.replicates)))
    note = (
        "The search's number is the best of many and therefore biased upwards. The confirmed one is of new seeds "
        f"({seeds}), every epoch trained. Both are validation accuracies at each replicate's best epoch: mean ± "
        "standard deviation over n replicates [95 % interval]. Cross-fitting, by which configurations are ranked, "
        "takes away the bias of choosing the epoch."
    )
    header = [
        "finalist",
        "in the search",
        "n",
        "confirmed",
        "n",
        "change",
        *(f"confirmed, {column.header}" for column in more),
    ]
    return Table("Finalists, on fresh seeds", header, body, note)


def trial_table(analysis: Analysis, most: int | None = None) -> Table:
    """Return a table of the trials trained to the end, the best first, at most `most`; without a limit of all."""
    ended = trials(analysis)
    fields, scores = dimensions(ended), sorted(shown_scores(ended), key=lambda column: column.name != RANKED_BY)
    best = ended[ended["finished"]].sort_values("score", ascending=False, kind="stable").head(most)
    others, title = ended[:0], f"The best {len(best)} of the trials that were trained to the end"
    if most is None:
        others, title = ended[~ended["finished"]].sort_values(["epochs_run", "score"], ascending=False), ""
    headers = [column.header for column in scores]
    body = []
    for rank, (_, row) in enumerate(pd.concat([best, others]).iterrows(), start=1):
        values = ("–" if pd.isna(row[name]) else short(row[name]) for name in fields)
        first, *more = (score_cell(column, row) for column in scores)
        cells = [str(rank) if row["finished"] else "–", first, *values, *more, str(row["n"]), str(row["number"])]
        body.append([*cells, "" if row["finished"] else str(row["status"])][: None if len(others) else -1])
    header = ["rank", headers[0], *fields.values(), *headers[1:], "n", "trial", *(["note"] if len(others) else [])]
    return Table(title, header, body)


def short_names(configs: Sequence[Config]) -> dict[str, str]:
    """Return each configuration's name by its id, without the words that all of them share."""
    words = {config.id: config.name.split() for config in configs}
    shared = set.intersection(*map(set, words.values())) if len(words) > 1 else set()
    return {trial: " ".join([word for word in name if word not in shared] or name) for trial, name in words.items()}
