"""TensorBoard logs: a folder a trial, with its curves over replicates and its line on the HParams page."""

import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from mvsa_tune.config import CONFIG_FIELDS, Config
from mvsa_tune.files import write_whole
from mvsa_tune.training import metrics
from mvsa_tune.training.result import TrialResult

# The Custom Scalars page: each curve's mean with its spread as a band, all trials in one chart.
CHARTS = {"validation accuracy": "val_acc", "validation loss": "val_loss", "training loss": "train_loss"}
LAYOUT = {
    "mean ± standard deviation over replicates": {
        title: ["Margin", [f"mean/{curve}", f"spread/{curve}_low", f"spread/{curve}_high"]]
        for title, curve in CHARTS.items()
    }
}


def write_trial(folder: Path, config: Config, outcome: TrialResult, fields: Sequence[str] = CONFIG_FIELDS) -> None:
    """Write a trial's log below `folder`, whole or not at all, in place of any earlier one of the same trial.

    Per curve and epoch: `mean/CURVE`, and `spread/CURVE_low` and `_high`, the mean less and plus one standard deviation
    over replicates. On the HParams page the configuration's `fields`, and its scores under `validation/`.

    Raises:
        OSError: it cannot be written.
    """
    from tensorboard.compat.proto.summary_pb2 import Summary
    from torch.utils.tensorboard.summary import custom_scalars, hparams

    curves: dict[str, NDArray[Any]] = {
        "val_acc": outcome.accuracy, "val_loss": outcome.val_loss, "train_loss": outcome.train_loss,
    }  # fmt: skip
    series = {tag: one for name, values in curves.items() for tag, one in mean_and_spread(name, values).items()}
    chosen = {name: getattr(config, name) for name in fields}
    chosen = {name: "none" if value is None else value for name, value in chosen.items()}
    scores = _scores(outcome)
    # Torch's SummaryWriter would write the same from a thread of its own, whose errors nobody can catch.
    summaries = [(0, custom_scalars(LAYOUT))]
    for epoch in range(outcome.epochs):
        points = [Summary.Value(tag=tag, simple_value=one[epoch]) for tag, one in series.items()]
        summaries.append((epoch + 1, Summary(value=points)))
    summaries += [(0, one) for one in hparams(chosen, scores)]
    totals = [Summary.Value(tag=tag, simple_value=value) for tag, value in scores.items()]
    summaries.append((outcome.epochs, Summary(value=totals)))
    place = folder / folder_name(config)
    log = place / f"events.out.tfevents.{time.time_ns()}"
    write_whole(log, lambda file: _write_events(file, summaries))
    for earlier in set(place.iterdir()) - {log}:
        earlier.unlink()


def _write_events(file: BinaryIO, summaries: Sequence[tuple[int, Any]]) -> None:
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.summary.writer.record_writer import RecordWriter

    records, now = RecordWriter(file), time.time()
    records.write(Event(wall_time=now, file_version="brain.Event:2").SerializeToString())
    for step, summary in summaries:
        records.write(Event(wall_time=now, step=step, summary=summary).SerializeToString())


def varying(configs: Sequence[Config]) -> list[str]:
    """The fields in which configurations differ: what their HParams page should show. All of them for a single one."""
    differ = [name for name in CONFIG_FIELDS if len({getattr(config, name) for config in configs}) > 1]
    return differ or list(CONFIG_FIELDS)


def mean_and_spread(curve: str, values: NDArray[np.floating]) -> dict[str, NDArray[np.float64]]:
    """A curve `(E, R)` → by tag, `(E,)` each: mean, mean − std, mean + std over replicates (0 for one replicate)."""
    mean = values.mean(axis=1, dtype=np.float64)
    spread = values.std(axis=1, ddof=1, dtype=np.float64) if values.shape[1] > 1 else np.zeros_like(mean)
    return {f"mean/{curve}": mean, f"spread/{curve}_low": mean - spread, f"spread/{curve}_high": mean + spread}


def folder_name(config: Config) -> str:
    """The trial's name, with what a path may not hold replaced."""
    return re.sub(r"[^\w.+=() -]", "_", config.name)


def _scores(outcome: TrialResult) -> dict[str, float]:
    best = outcome.at_best(outcome.accuracy)
    scores = {
        "acc_best_mean": best.mean(),
        "acc_best_std": best.std(ddof=1) if len(best) > 1 else 0.0,
        "acc_last_mean": outcome.accuracy[-1].mean(),
        "f1_macro_best_mean": metrics.f1_macro(outcome.at_best(outcome.confusion)).mean(),
        "loss_last_mean": outcome.val_loss[-1].mean(),
    }
    return {f"validation/{name}": float(value) for name, value in scores.items()}
