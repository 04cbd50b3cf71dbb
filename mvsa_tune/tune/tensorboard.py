"""TensorBoard logs: a folder for each trial, with its curves over replicates and its line on the HParams page."""

import re
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mvsa_tune.config import CONFIG_FIELDS, Config
from mvsa_tune.files import short_name, write_whole
from mvsa_tune.training import metrics
from mvsa_tune.training.result import TrialResult

# The Custom Scalars page: each curve's mean with its spread as a band, all trials in one chart.
CURVES = {"val_acc": "validation accuracy", "val_loss": "validation loss", "train_loss": "training loss"}
BANDS = {title: ["Margin", [f"mean/{c}", f"spread/{c}_low", f"spread/{c}_high"]] for c, title in CURVES.items()}


def write_trial(folder: Path, config: Config, result: TrialResult, fields: Sequence[str] = CONFIG_FIELDS) -> None:
    """Write a trial's log below `folder`, whole or not at all, in place of any earlier one of the same trial.

    It has curves, scores, and the configuration's `fields` for the HParams page. Raise OSError if it cannot be written.
    """
    from tensorboard.compat.proto.summary_pb2 import Summary
    from torch.utils.tensorboard import FileWriter
    from torch.utils.tensorboard.summary import custom_scalars, hparams, text

    chosen = {name: "none" if (value := getattr(config, name)) is None else value for name in fields}
    epochs, scores = scalars(result)
    epochs[-1] |= scores
    folder.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".tensorboard-", dir=folder.parent) as temporary:  # /tmp may be full
        writer = FileWriter(temporary, max_queue=0)
        bands = custom_scalars({"mean ± standard deviation over replicates": BANDS})
        for page in (bands, *hparams(chosen, scores), text("configuration", config.name)):
            writer.add_summary(page, 0)
        for epoch, points in enumerate(epochs, start=1):
            values = [Summary.Value(tag=tag, simple_value=value) for tag, value in points.items()]
            writer.add_summary(Summary(value=values), epoch)
        writer.flush()  # raises what the writer's thread has met
        writer.close()
        (written,) = Path(temporary).iterdir()
        name = short_name(re.sub(r"[^\w.+=() -]", "_", config.name), config.id)  # without what a path may not hold
        log = folder / name / written.name
        write_whole(log, lambda file: file.write(written.read_bytes()))
    for earlier in set(log.parent.iterdir()) - {log}:
        earlier.unlink()


def scalars(result: TrialResult) -> tuple[list[dict[str, float]], dict[str, float]]:
    """Return by tag, for each epoch, mean, mean − std and mean + std over replicates; and the trial's scores."""
    best, replicates = result.at_best(result.accuracy), result.accuracy.shape[1]
    arrays: list[Any] = [result.accuracy, result.val_loss, result.train_loss]
    ddof = int(replicates > 1)  # the spread of a single replicate is 0
    curves: dict[str, Any] = {}
    for name, values in zip(CURVES, arrays, strict=True):
        mean, std = values.mean(axis=1, dtype=float), values.std(axis=1, ddof=ddof, dtype=float)
        curves |= {f"mean/{name}": mean, f"spread/{name}_low": mean - std, f"spread/{name}_high": mean + std}
    scores = {
        "acc_best_mean": best.mean(),
        "acc_best_std": best.std(ddof=ddof),
        "acc_last_mean": result.accuracy[-1].mean(),
        "f1_macro_best_mean": metrics.f1_macro(result.at_best(result.confusion)).mean(),
        "loss_last_mean": result.val_loss[-1].mean(),
    }
    epochs = [{tag: float(curve[epoch]) for tag, curve in curves.items()} for epoch in range(result.epochs)]
    return epochs, {f"validation/{name}": float(score) for name, score in scores.items()}


def varying(configs: Sequence[Config], searched: Sequence[str] = ()) -> list[str]:
    """Return the fields that differ or are searched, for the HParams page; all fields of a single configuration."""
    values = {name: {getattr(config, name) for config in configs} for name in CONFIG_FIELDS}
    differ = [name for name in CONFIG_FIELDS if name in searched or len(values[name]) > 1]
    return differ or list(CONFIG_FIELDS)
