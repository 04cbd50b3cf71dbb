"""Rows → one line a configuration; intervals."""

import math

import pandas as pd

from mvsa_tune.config import CONFIG_FIELDS, Config
from mvsa_tune.errors import InputError, some
from mvsa_tune.results.schema import FINISHED, RANKED_BY, SCORES, STOPPED
from mvsa_tune.results.store import Store


def summarise(store: Store) -> pd.DataFrame:
    """One row a configuration of the sweep, in its order.

    Columns: `sweep, trial_id`, the configuration, `status` (`finished`, `stopped at epoch E`, the reason it failed or could
    not run, or `not run yet`), `n` (replicates finished or stopped), for each score its `_mean`, `_std` (n − 1; empty for
    n = 1), `_min` and `_max` over them (those on test samples where the split has any), `best_epoch_median`, `epochs_run` and `seconds` (the whole trial's).
    """
    rows = store.rows()
    lines = []
    scores = [column for column in SCORES if not column.tested or rows[column.name].notna().any()]
    groups = dict(iter(rows.groupby("trial_id")))
    for config in store.configs():
        mine = groups.get(config.id, rows.iloc[:0])
        done = mine[mine["status"].isin([FINISHED, STOPPED])]
        line: dict[str, object] = {"sweep": store.folder.name, "trial_id": config.id}
        line |= {name: getattr(config, name) for name in CONFIG_FIELDS}
        line |= {"status": _status(mine, store.manifest.not_run.get(config.id)), "n": len(done)}
        for column in scores:
            values = done[column.name].astype(float)
            line |= {f"{column.name}_{statistic}": getattr(values, statistic)() for statistic in column.statistics}
        line |= {"epochs_run": mine["epochs_run"].max(), "seconds": mine["seconds"].sum()}
        lines.append(line)
    return pd.DataFrame(lines)


def ranked(summary: pd.DataFrame) -> pd.DataFrame:
    """The finished configurations by mean cross-fitted accuracy, the best first, the earlier one of equals first."""
    finished = summary[summary["status"] == FINISHED]
    return finished.sort_values(f"{RANKED_BY}_mean", ascending=False, kind="stable", ignore_index=True)


def best(summary: pd.DataFrame) -> pd.Series | None:
    """The first of `ranked`; None without any."""
    finished = ranked(summary)
    return None if finished.empty else finished.iloc[0]


def choose(store: Store, which: str) -> Config:
    """Return the finished configuration with the id `which`, or the best one for `best`.

    Raises:
        InputError: there is no sweep, or no such configuration that was trained to its end.
    """
    if not store.manifest.replicates:
        raise InputError(f"damaged {store.folder}/sweep.json: it names no replicates")
    finished = store.recorded()
    if which == "best" and (first := best(summarise(store))) is not None:
        which = str(first["trial_id"])
    if which not in finished:
        known = f"finished are {some(finished)}" if finished else "none is"
        raise InputError(f"--config {which}: no finished configuration of {store.folder}; {known}")
    return next(config for config in store.configs() if config.id == which)


def wilson(share: float, n: int) -> list[float]:
    """95 % score interval of a share of n (Wilson 1927)."""
    z = 1.959963984540054
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return [centre - half, centre + half]


def _status(rows: pd.DataFrame, not_run: str | None) -> str:
    if rows.empty:
        return not_run or "not run yet"
    failures = rows.loc[~rows["status"].isin([FINISHED, STOPPED]), "status"]
    if not failures.empty:
        return str(failures.iloc[0])
    stopped = rows.loc[rows["status"] == STOPPED, "epochs_run"]
    return FINISHED if stopped.empty else f"{STOPPED} at epoch {stopped.min():.0f}"
