"""TensorBoard logs: a folder for each trial, with its curves over replicates and its line on the HParams page.

A running trial's log is appended to. Fine-tuning trains replicates one after another, so the mean over those that have
reached an epoch changes when another one does: the log then says that it starts again at that epoch, as after a
restart, and TensorBoard forgets what it has from there on.
"""

import re
import time
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mvsa_tune.config import CONFIG_FIELDS, Config
from mvsa_tune.files import short_name, write_whole
from mvsa_tune.training import metrics
from mvsa_tune.training.result import Curves, TrialResult

if TYPE_CHECKING:
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary

# The Custom Scalars page: each curve's mean with its spread as a band, all trials in one chart.
CURVES = {"val_acc": "validation accuracy", "val_loss": "validation loss", "train_loss": "training loss"}
BANDS = {title: ["Margin", [f"mean/{c}", f"spread/{c}_low", f"spread/{c}_high"]] for c, title in CURVES.items()}
# The scores of a trial: the one that configurations are ranked by, and others. TensorBoard opens the first two groups
# of tags, by the alphabet: of `mean`, `score` and `spread` the last one stays folded.
SCORES = tuple(
    f"score/{name}"
    for name in (
        "acc_cross_mean", "acc_best_mean", "acc_best_std", "acc_last_mean", "f1_macro_best_mean", "loss_last_mean",
    )
)  # fmt: skip

Points = dict[str, float]  # by tag


class TrialLog:
    """A trial's log below a folder, in place of any earlier one of the same trial once something is written.

    All methods raise OSError if it cannot be written.
    """

    def __init__(self, folder: Path, config: Config, fields: Sequence[str] = CONFIG_FIELDS) -> None:
        """Write nothing yet; `fields` of the configuration go to the HParams page."""
        name = short_name(re.sub(r"[^\w.+=() -]", "_", config.name), config.id)  # without what a path may not hold
        self.path = folder / name / f"events.out.tfevents.{time.time_ns()}"
        self.config, self.fields = config, fields
        self.points: list[Points] = []  # that are written, by epoch
        self.begun = False

    def update(self, curves: Curves) -> None:
        """Write what is new in the curves of a trial that runs."""
        self._write(self._new_points(curves))

    def end(self, result: TrialResult) -> None:
        """Write what is new in the result, and the scores."""
        scores = _event(result.epochs, summary=_scalars(scores_of(result)))
        self._write([*self._new_points(Curves.of(result)), scores, _end(failed=bool(result.diverged.any()))])

    def fail(self) -> None:
        """Write that the trial has failed, if there is a log of it."""
        if self.begun:
            self._write([_end(failed=True)])

    def _new_points(self, curves: Curves) -> "list[Event]":
        points = points_of(curves)
        both = list(zip(points, self.points, strict=False))
        same = next((epoch for epoch, (new, old) in enumerate(both) if new != old), len(both))
        if same == len(points):  # a trial that is tried again has not come as far as before
            return []
        events = [_restart(same + 1)] if same < len(self.points) else []
        trained_at = np.nan_to_num(curves.trained_at, nan=np.inf).min(axis=1)  # by the first of its replicates
        for epoch, at in enumerate(trained_at[same:], start=same + 1):
            known = float(at) if np.isfinite(at) else time.time()
            events.append(_event(epoch, known, summary=_scalars(points[epoch - 1])))
        self.points = points
        return events

    def _write(self, events: "list[Event]") -> None:
        if self.begun:
            with self.path.open("ab") as file:
                file.write(_records(events))
            return
        # A TensorBoard that runs may show an earlier log, which it forgets by the restart.
        head = [_event(0, file_version="brain.Event:2"), _restart(0), *_pages(self.config, self.fields)]
        write_whole(self.path, lambda file: file.write(_records([*head, *events])))
        self.begun = True
        for earlier in set(self.path.parent.iterdir()) - {self.path}:
            earlier.unlink()


def points_of(curves: Curves) -> list[Points]:
    """Return, for each epoch, mean, mean − std and mean + std over the replicates that have been trained for it."""
    arrays, present = (curves.accuracy, curves.val_loss, curves.train_loss), curves.present
    count = present.sum(axis=1)
    columns: dict[str, Any] = {}
    for name, values in zip(CURVES, arrays, strict=True):
        mean = np.where(present, values, 0).sum(axis=1) / count
        squares = np.where(present, values - mean[:, None], 0) ** 2
        std = np.sqrt(squares.sum(axis=1) / np.maximum(count - 1, 1))  # of a single replicate 0
        columns |= {f"mean/{name}": mean, f"spread/{name}_low": mean - std, f"spread/{name}_high": mean + std}
    return [dict(zip(columns, map(float, row), strict=True)) for row in zip(*columns.values(), strict=True)]


def scores_of(result: TrialResult) -> Points:
    """Return the scores of a trial, the one that configurations are ranked by first."""
    best = result.at_best(result.accuracy)
    scores = (
        result.correctness.accuracy.mean(),
        best.mean(),
        best.std(ddof=int(len(best) > 1)),
        result.accuracy[-1].mean(),
        metrics.f1_macro(result.at_best(result.confusion)).mean(),
        result.val_loss[-1].mean(),
    )
    return {name: float(score) for name, score in zip(SCORES, scores, strict=True)}


def varying(configs: Sequence[Config], searched: Sequence[str] = ()) -> list[str]:
    """Return the fields that differ or are searched, for the HParams page; all fields of a single configuration."""
    values = {name: {getattr(config, name) for config in configs} for name in CONFIG_FIELDS}
    differ = [name for name in CONFIG_FIELDS if name in searched or len(values[name]) > 1]
    return differ or list(CONFIG_FIELDS)


def _pages(config: Config, fields: Sequence[str]) -> "list[Event]":
    """Return what a log begins with: bands for the Custom Scalars page, the HParams page's line, the name."""
    from torch.utils.tensorboard.summary import custom_scalars, hparams, text

    values = {name: getattr(config, name) for name in fields}
    chosen = {name: "none" if value is None else value for name, value in values.items()}
    experiment, start, _ = hparams(chosen, dict.fromkeys(SCORES))
    bands = custom_scalars({"mean ± standard deviation over replicates": BANDS})
    return [_event(0, summary=page) for page in (bands, experiment, start, text("configuration", config.name))]


def _end(*, failed: bool) -> "Event":
    """Return the end of a trial, for the HParams page."""
    from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
    from tensorboard.plugins.hparams import metadata
    from tensorboard.plugins.hparams.api_pb2 import Status
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionEndInfo

    status = Status.Value("STATUS_FAILURE" if failed else "STATUS_SUCCESS")
    info = SessionEndInfo(status=status, end_time_secs=time.time())
    data = HParamsPluginData(session_end_info=info, version=metadata.PLUGIN_DATA_VERSION)
    plugin = SummaryMetadata.PluginData(plugin_name=metadata.PLUGIN_NAME, content=data.SerializeToString())
    value = Summary.Value(tag=metadata.SESSION_END_INFO_TAG, metadata=SummaryMetadata(plugin_data=plugin))
    return _event(0, summary=Summary(value=[value]))


def _scalars(points: Points) -> "Summary":
    from tensorboard.compat.proto.summary_pb2 import Summary

    return Summary(value=[Summary.Value(tag=tag, simple_value=value) for tag, value in points.items()])


def _restart(epoch: int) -> "Event":
    """Return what makes TensorBoard forget all from an epoch on."""
    from tensorboard.compat.proto.event_pb2 import SessionLog

    return _event(epoch, session_log=SessionLog(status=SessionLog.START))


def _event(step: int, at: float | None = None, **content: Any) -> "Event":
    from tensorboard.compat.proto.event_pb2 import Event

    return Event(step=step, wall_time=time.time() if at is None else at, **content)


def _records(events: "Sequence[Event]") -> bytes:
    from tensorboard.summary.writer.record_writer import RecordWriter

    content = BytesIO()
    writer = RecordWriter(content)
    for event in events:
        writer.write(event.SerializeToString())
    return content.getvalue()
