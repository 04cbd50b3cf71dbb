"""MLflow and Weights & Biases: one run a trial, through the callbacks that Ray has for them. Neither is required.

Where the runs go is set by their own variables: MLFLOW_TRACKING_URI, by default a store in the results folder; and
WANDB_PROJECT, WANDB_MODE and WANDB_API_KEY.
"""

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.logger import LoggerCallback

from mvsa_tune.config import Config
from mvsa_tune.errors import InputError
from mvsa_tune.training.result import Curves, TrialResult
from mvsa_tune.tune.tensorboard import CURVES as SHOWN
from mvsa_tune.tune.tensorboard import points_of, scores_of
from mvsa_tune.tune.trainable import CURVES, RESULT, Trial


def make_logger(name: str, folder: Path) -> "EpochLogger":
    """Return the callback that logs the trials of the sweep in a results folder to `mlflow` or `wandb`.

    Raises:
        InputError: the logger cannot be used as it is set up.
    """
    try:
        logger = _mlflow(folder) if name == "mlflow" else _wandb(folder)
        logger.setup()
    except Exception as error:  # of the logger's own kinds
        raise InputError(f"--log {name}: {error}") from None
    return EpochLogger(logger, folder)


def _mlflow(folder: Path) -> LoggerCallback:
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    from ray.air.integrations.mlflow import MLflowLoggerCallback

    store = f"sqlite:///{folder.absolute() / 'mlflow.db'}"  # by SQLAlchemy and Alembic, which Optuna needs, too
    return MLflowLoggerCallback(os.environ.get("MLFLOW_TRACKING_URI", store), experiment_name=folder.name)


def _wandb(folder: Path) -> LoggerCallback:
    from ray.air.integrations.wandb import WandbLoggerCallback

    project = os.environ.get("WANDB_PROJECT", "mvsa-tune")
    return WandbLoggerCallback(project, group=folder.name, dir=str(folder.absolute()))


@dataclass(frozen=True)
class ShownTrial:
    """What Ray's loggers read of a trial."""

    trial_id: str
    local_path: str  # where W&B works
    experiment_dir_name: str
    settings: Config

    @property
    def config(self) -> dict[str, Any]:
        """The fields of the configuration."""
        return asdict(self.settings)

    def __str__(self) -> str:
        return self.settings.name


class EpochLogger(tune.Callback):  # type: ignore[misc]
    """Hands each epoch that all replicates have reached to a logger of Ray's, once, as a report of plain numbers."""

    def __init__(self, logger: LoggerCallback, folder: Path) -> None:
        self.logger, self.folder = logger, folder
        self.epochs: dict[ShownTrial, int] = {}  # that are logged of each trial

    def __getstate__(self) -> dict[str, Any]:
        """Return nothing, as the `Recorder` does."""
        return {}

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Begin a run; a trial that is tried again goes on with its own."""
        shown = self._shown(trial)
        if shown not in self.epochs:
            self.epochs[shown] = 0
            self.logger.log_trial_start(shown)

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """Log what is new: it comes before the recorder, which takes the curves out of the report."""
        shown, whole = self._shown(trial), result.get(RESULT)
        curves = result[CURVES] if whole is None else Curves.of(whole)
        points, count = points_of(curves), int(curves.present.all(axis=1).sum())
        for epoch in range(self.epochs[shown] + 1, count + 1):
            values = {name: points[epoch - 1][f"mean/{name}"] for name in SHOWN}
            if isinstance(whole, TrialResult) and epoch == count and result.get("done"):
                values |= scores_of(whole)
            self.logger.log_trial_result(iteration, shown, {"training_iteration": epoch, **values})
        self.epochs[shown] = max(count, self.epochs[shown])

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """End the run of a trial that has finished or was stopped."""
        self.logger.log_trial_end(self._shown(trial))

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """End the run of a trial that has failed."""
        self.logger.log_trial_end(self._shown(trial), failed=True)

    def on_experiment_end(self, trials: list[Any], **info: Any) -> None:
        """Wait for what is still to be written."""
        self.logger.on_experiment_end(trials, **info)

    def _shown(self, trial: Any) -> Any:
        config = Trial.from_tune(trial.config).config
        return ShownTrial(config.id, str(self.folder.absolute()), self.folder.name, config)
