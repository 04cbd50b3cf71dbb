"""One line per configuration of a sweep, their ranking, and the choice of one of them."""

import pandas as pd

from mvsa_tune.config import CONFIG_FIELDS, Config
from mvsa_tune.errors import InputError, some
from mvsa_tune.results.schema import FINISHED, RANKED_BY, SCORES, STOPPED
from mvsa_tune.results.store import Store


def summarise(store: Store) -> pd.DataFrame:
    """Return one row per configuration of the sweep, in its order.

    Columns: `sweep`, `trial_id`, the configuration, `status` (`finished`, `stopped at epoch E`, why it failed or could not run,
    or `not run yet`), `n` (replicates that finished or were stopped), for each score (those on test samples if the split has any)
    its `_mean`, `_std` (n − 1; empty for n = 1), `_min` and `_max` over them, `best_epoch_median`, `epochs_run`, and `seconds`
    of the whole trial.
    """
    rows, configs = store.rows(), store.configs()
    trials = rows.groupby("trial_id")
    statuses = {trial: _status(group) for trial, group in trials}
    summary = pd.DataFrame(
        [
            {
                "sweep": store.folder.name,
                "trial_id": config.id,
                **{name: getattr(config, name) for name in CONFIG_FIELDS},
                "status": statuses.get(config.id, store.manifest.not_run.get(config.id, "not run yet")),
            }
            for config in configs
        ],
        columns=["sweep", "trial_id", *CONFIG_FIELDS, "status"],
    )
    columns = [column for column in SCORES if not column.tested or rows[column.name].notna().any()]
    scores = {f"{column.name}_{how}": (column.name, how) for column in columns for how in column.statistics}
    done = rows[rows["status"].isin([FINISHED, STOPPED])].groupby("trial_id").agg(n=("seed", "size"), **scores)
    cost = trials.agg(epochs_run=("epochs_run", "max"), seconds=("seconds", "sum"))
    return summary.join(done, on="trial_id").join(cost, on="trial_id").fillna({"n": 0, "seconds": 0}).astype({"n": int})


def ranked(summary: pd.DataFrame) -> pd.DataFrame:
    """Return the finished configurations by mean cross-fitted accuracy, the best first, the earlier one of equals first."""
    finished = summary[summary["status"] == FINISHED]
    return finished.sort_values(f"{RANKED_BY}_mean", ascending=False, kind="stable", ignore_index=True)


def best(summary: pd.DataFrame) -> pd.Series | None:
    """Return the first of `ranked`; None if it is empty."""
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


def _status(rows: pd.DataFrame) -> str:
    failures = rows.loc[~rows["status"].isin([FINISHED, STOPPED]), "status"]
    if not failures.empty:
        return str(failures.iloc[0])
    stopped = rows.loc[rows["status"] == STOPPED, "epochs_run"]
    return FINISHED if stopped.empty else f"{STOPPED} at epoch {stopped.min():.0f}"
