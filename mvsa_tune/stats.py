"""Rows → one line a configuration."""

import pandas as pd

from mvsa_tune.config import CONFIG_FIELDS
from mvsa_tune.store import FINISHED, Store

SCORES = ("val_acc_best", "val_acc_last", "val_f1_macro_best", "val_f1_weighted_best", "val_loss_last")


def summarise(store: Store) -> pd.DataFrame:
    """One row a configuration of the sweep, in its order.

    Columns: `sweep, trial_id`, the configuration, `status` (`finished`, the reason it failed or could not run, or
    `not run yet`), `n` (finished replicates), for each score its `_mean`, `_std` (n − 1; empty for n = 1), `_min` and
    `_max` over them, `best_epoch_median` and `seconds` (the whole trial's).
    """
    rows = store.rows()
    lines = []
    for config in store.sweep.configs:
        mine = rows[rows["trial_id"] == config.id]
        done = mine[mine["status"] == FINISHED]
        line: dict[str, object] = {"sweep": store.folder.name, "trial_id": config.id}
        line |= {name: getattr(config, name) for name in CONFIG_FIELDS}
        line |= {"status": _status(mine, store.sweep.not_run.get(config.id)), "n": len(done)}
        for score in SCORES:
            values = done[score].astype(float)
            line |= {f"{score}_{how}": getattr(values, how)() for how in ("mean", "std", "min", "max")}
        line |= {"best_epoch_median": done["best_epoch"].median(), "seconds": mine["seconds"].sum()}
        lines.append(line)
    return pd.DataFrame(lines)


def best(summary: pd.DataFrame) -> pd.Series | None:
    """The finished configuration of the best mean validation accuracy, the earlier one of equals; None without any."""
    finished = summary[summary["status"] == FINISHED]
    return None if finished.empty else finished.loc[finished["val_acc_best_mean"].idxmax()]


def _status(rows: pd.DataFrame, not_run: str | None) -> str:
    if rows.empty:
        return not_run or "not run yet"
    failures = rows.loc[rows["status"] != FINISHED, "status"]
    return FINISHED if failures.empty else str(failures.iloc[0])
