"""A search's trials, ranked, and its finalists, trained again: both numbers, because the first is biased upwards."""

from pathlib import Path

import pandas as pd

from mvsa_tune.config import CONFIG_FIELDS, Config
from mvsa_tune.formats import markdown, short
from mvsa_tune.report.tables import TESTED, accuracy_cell, ends
from mvsa_tune.results.store import Store
from mvsa_tune.stats.analysis import Analysis, verdict
from mvsa_tune.stats.summary import ranked, summarise

SHOWN = 20
# Columns that are narrow enough to be read by their short names.
HEADERS = {"image_encoder": "vision", "text_encoder": "text", "batch_size": "batch size", "weight_decay": "weight decay",
           "label_smoothing": "smoothing"}  # fmt: skip


def confirmed_folder(folder: Path) -> Path:
    """Where the sweep of a search's finalists lies."""
    return folder / "confirmed"


def finalists(store: Store, count: int) -> list[Config]:
    """The best configurations of a search that were trained to their end."""
    configs = {config.id: config for config in store.configs()}
    return [configs[trial] for trial in ranked(summarise(store))["trial_id"][:count]]


def leaderboard(analysis: Analysis) -> str:
    """The page of a search."""
    store, summary = analysis.store, analysis.summary
    best = ranked(summary)
    stopped = int(summary["status"].str.startswith("stopped").sum())
    failed = int(summary["status"].str.startswith("failed").sum())
    epochs = sum(store.epochs().values())
    space = ", ".join(f"{name} {values}" for name, values in store.manifest.space.items())
    counts = f"{len(best)} trained to the end, {stopped} stopped early, {failed} failed; {epochs:,} epochs in all"
    title = f"# {store.folder.name}: search" + (" on the built-in demo set" if store.manifest.demo else "")
    parts = [
        f"{title}\n\nSpace: {space}.\n\n{len(summary)} trials: {counts}.\n",
        *(f"{line}\n" for line in verdict(analysis)),
    ]
    confirmed = confirmed_folder(store.folder)
    if (confirmed / "trials.csv").exists():
        parts.append(_finalists(store, best, Store(confirmed)))
    parts.append(
        f"## The {min(SHOWN, len(best))} best of those trained to the end\n\n{_trials(best.head(SHOWN), analysis)}"
    )
    return "\n".join(parts)


def _finalists(store: Store, best: pd.DataFrame, confirmed: Store) -> str:
    again = summarise(confirmed).set_index("trial_id")
    tests = [name for name in TESTED if f"{name}_mean" in again]
    body = []
    for _, row in best[best["trial_id"].isin(again.index)].iterrows():
        fresh = again.loc[row["trial_id"]]
        change = f"{fresh['val_acc_best_mean'] - row['val_acc_best_mean']:+.3f}" if fresh["n"] else "–"
        cell = accuracy_cell(fresh) if fresh["n"] else str(fresh["status"])
        numbers = [accuracy_cell(row), str(row["n"]), cell, str(fresh["n"]), change]
        numbers += [accuracy_cell(fresh, name) if fresh["n"] else "–" for name in tests]
        body.append([next(c.name for c in store.configs() if c.id == row["trial_id"]), *numbers])
    seeds = list(dict.fromkeys(str(one.seed) for one in confirmed.manifest.replicates))
    explanation = (
        "The search's number is the best of many and reads high; the confirmed one comes from "
        f"{len(seeds)} seeds ({seeds[0]} to {seeds[-1]}) that the search has not seen, every epoch trained. Both are each "
        "replicate's validation accuracy at its best epoch, mean ± standard deviation over n."
    )
    header = ["finalist", "in the search", "n", "confirmed", "n", "change", *(TESTED[name] for name in tests)]
    return f"## Finalists\n\n{explanation}\n\n{markdown(header, body)}"


def _trials(best: pd.DataFrame, analysis: Analysis) -> str:
    fields = [name for name in CONFIG_FIELDS if name in HEADERS or best[name].nunique() > 1]
    header = ["rank", *(HEADERS.get(name, name) for name in fields), "cross-fitted", "best epoch", "last epoch", "n"]
    body = []
    for rank, (_, row) in enumerate(best.iterrows(), start=1):
        cross = f"{row['val_acc_cross_mean']:.3f}{ends(analysis.scored[row['trial_id']].cross)}"
        numbers = [cross, accuracy_cell(row), f"{row['val_acc_last_mean']:.3f}", str(row["n"])]
        body.append([str(rank), *(short(row[name]) for name in fields), *numbers])
    return markdown(header, body)
