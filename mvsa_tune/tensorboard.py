"""TensorBoard logs: a folder a trial, with its curves over replicates and its line on the HParams page."""

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mvsa_tune import metrics
from mvsa_tune.config import MODALITIES, Config
from mvsa_tune.training import Outcome

# Curve → how a person calls it on the Custom Scalars page, where the mean is drawn with its spread.
CHARTS = {"val_acc": "validation accuracy", "val_loss": "validation loss", "train_loss": "training loss"}
HPARAMS = ("head", "D", "lr", "batch_size", "ablation", "epochs", "dropout", "precision")


def write_trial(folder: Path, config: Config, outcome: Outcome) -> None:
    """Write a trial's logs below `folder`, in place of any earlier ones of the same trial.

    Per curve and epoch: `CURVE/mean`, and `/low` and `/high`, the mean less and plus one standard deviation over replicates.
    """
    from torch.utils.tensorboard import SummaryWriter

    place = folder / folder_name(config)
    shutil.rmtree(place, ignore_errors=True)
    with SummaryWriter(str(place)) as writer:
        curves: dict[str, NDArray[Any]] = {
            "val_acc": outcome.accuracy,
            "val_loss": outcome.val_loss,
            "train_loss": outcome.train_loss,
        }
        for name, values in curves.items():
            for part, series in mean_and_spread(values).items():
                for epoch, value in enumerate(series, start=1):
                    writer.add_scalar(f"{name}/{part}", value, epoch)
        writer.add_hparams(_hparams(config), _scores(outcome), run_name=".", global_step=config.epochs)


def write_layout(folder: Path) -> None:
    """Write the Custom Scalars page: each curve's mean with its spread as a band, all trials in one chart."""
    from torch.utils.tensorboard import SummaryWriter

    layout = {
        "mean ± standard deviation over replicates": {
            title: ["Margin", [f"{name}/{part}" for part in ("mean", "low", "high")]] for name, title in CHARTS.items()
        }
    }
    if not any(folder.glob("events.*")):
        with SummaryWriter(str(folder)) as writer:
            writer.add_custom_scalars(layout)


def mean_and_spread(values: NDArray[np.floating]) -> dict[str, NDArray[np.float64]]:
    """`(E, R)` → mean, mean − std and mean + std over replicates, `(E,)` each; the spread of one replicate is 0."""
    mean = values.mean(axis=1, dtype=np.float64)
    spread = values.std(axis=1, ddof=1, dtype=np.float64) if values.shape[1] > 1 else np.zeros_like(mean)
    return {"mean": mean, "low": mean - spread, "high": mean + spread}


def folder_name(config: Config) -> str:
    """The trial's name, with what a path may not hold replaced."""
    return re.sub(r"[^\w.+=() -]", "_", config.name)


def _hparams(config: Config) -> dict[str, str | int | float]:
    encoders = {f"{modality}_encoder": config.encoders.get(modality, "none") for modality in MODALITIES}
    return encoders | {name: getattr(config, name) for name in HPARAMS}


def _scores(outcome: Outcome) -> dict[str, float]:
    best = outcome.accuracy.max(axis=0)
    at_best = outcome.confusion[outcome.best_epoch - 1, np.arange(len(best))]
    scores = {
        "val_acc_best/mean": best.mean(),
        "val_acc_best/std": best.std(ddof=1) if len(best) > 1 else 0.0,
        "val_acc_last/mean": outcome.accuracy[-1].mean(),
        "val_f1_macro_best/mean": metrics.f1_macro(at_best).mean(),
        "val_loss_last/mean": outcome.val_loss[-1].mean(),
        "seconds": outcome.seconds,
    }
    return {f"score/{name}": float(value) for name, value in scores.items()}
