"""Runs a plan with Ray Tune and records every trial as it ends."""

import platform
import re
import shlex
import subprocess
import sys
import tempfile
from dataclasses import asdict
from datetime import datetime, timezone
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch
from ray import tune

from mvsa_tune import __version__, tables, tensorboard, trainable
from mvsa_tune.cluster import local_ray
from mvsa_tune.config import MODALITIES, Config
from mvsa_tune.dataset import LABELS
from mvsa_tune.files import write_text_whole, write_whole
from mvsa_tune.plan import Plan, trial_seconds
from mvsa_tune.progress import Progress
from mvsa_tune.stats import summarise
from mvsa_tune.store import Store, Sweep
from mvsa_tune.training import Outcome

# Exit codes: everything finished; some trials failed; interrupted with trials left.
DONE, SOME_FAILED, INTERRUPTED = 0, 1, 130


def run_sweep(plan: Plan, folder: Path, *, demo: bool = False, quiet: bool = False) -> int:
    """Train what of a plan is not recorded in `folder` yet, and write its tables.

    Args:
        plan: what to run.
        folder: the results folder; new, or of the same sweep.
        demo: whether the data is the built-in demo set, for the tables' heading.
        quiet: print nothing but the tables.

    Returns:
        The exit code.

    Raises:
        InputError: the folder cannot be written or belongs to another sweep.
    """
    store = Store(folder)
    store.begin(_describe(plan, demo), plan.dataset)
    try:
        return _run(plan, store, quiet=quiet)
    finally:
        store.end()


def _run(plan: Plan, store: Store, *, quiet: bool) -> int:
    folder = store.folder
    finished = store.finished()
    todo = [config for config in plan.runnable if config.id not in finished]
    if finished and not quiet:
        print(f"{len(finished)} of {len(plan.configs)} configurations are recorded in {folder}; {len(todo)} to train")
    ended: set[str] = set()
    if todo:
        ended = _fit(plan, todo, store, quiet=quiet)
        store.tidy()
    summary = summarise(store)
    write_whole(folder / "summary.csv", lambda file: summary.to_csv(file, index=False, lineterminator="\n"))
    markdown = tables.tables_markdown(store, summary)
    write_text_whole(folder / "tables.md", markdown)
    left = len([config for config in todo if config.id not in ended])
    failed = int(summary["status"].str.startswith("failed").sum())
    if not left:
        print(markdown)
    if left or failed or not quiet:
        print(_closing(folder, len(plan.configs), left, failed))
    return INTERRUPTED if left else SOME_FAILED if failed else DONE


def _closing(folder: Path, count: int, left: int, failed: int) -> str:
    if left:
        return (
            f"Stopped: {count - left} of {count} configurations are done, {left} are left; {folder}/tables.md holds what is "
            "done. The same command goes on from here."
        )
    told = f"{failed} of {count} configurations failed; {folder}/trials.csv says why. " if failed else ""
    place = shlex.quote(str(folder / "tensorboard"))
    return f"{told}Rows, tables, predictions: {folder}/   Curves: tensorboard --logdir {place}"


def _describe(plan: Plan, demo: bool) -> Sweep:
    return Sweep(
        data=str(plan.dataset.folder),
        data_fingerprint=plan.dataset.fingerprint,
        label_counts=tuple(np.bincount(plan.dataset.labels, minlength=len(LABELS)).tolist()),
        demo=demo,
        split=plan.split.name,
        replicates=plan.replicates,
        configs=plan.configs,
        not_run=dict(plan.not_run),
        skipped=dict(plan.skipped),
        vectors={f"{encoder} {modality}": cache.manifest.sha256 for (encoder, modality), cache in plan.caches.items()},
    )


def _fit(plan: Plan, todo: list[Config], store: Store, *, quiet: bool) -> set[str]:
    """Train configurations; return the ids of those that ended, well or not."""
    costs = trial_seconds(plan, todo)
    progress = Progress(costs, quiet=quiet)
    task = trainable.Task(
        caches=plan.caches,
        labels=np.array(plan.dataset.labels, dtype=np.int64),
        classes=len(LABELS),
        split=plan.split,
        replicates=plan.replicates,
        device=plan.placement.device,
        threads=plan.placement.cpus,
    )
    # The longest first, so that no worker is left with a long one at the end.
    todo = sorted(todo, key=lambda config: -costs[config.id])
    resources = {"CPU": plan.placement.cpus, "GPU": plan.placement.gpus}
    cpus = plan.placement.cpus * plan.placement.concurrent
    try:
        # Tune's own bookkeeping is not what lasts: the store is. It goes when the sweep ends.
        with local_ray(cpus), tempfile.TemporaryDirectory(prefix="mvsa_tune_") as scratch:
            tuner = tune.Tuner(
                tune.with_resources(tune.with_parameters(trainable.StackTrainable, task=task), resources),
                param_space={"config": tune.grid_search([asdict(config) for config in todo])},
                tune_config=tune.TuneConfig(
                    metric=trainable.METRIC,
                    mode="max",
                    reuse_actors=True,
                    max_concurrent_trials=plan.placement.concurrent,
                    trial_name_creator=lambda trial: trainable.config_of(trial.config).id,
                    trial_dirname_creator=lambda trial: trainable.config_of(trial.config).id,
                ),
                run_config=tune.RunConfig(
                    name=store.folder.name,
                    storage_path=scratch,
                    verbose=0,
                    callbacks=[Recorder(store, plan, progress)],
                ),
            )
            tuner.fit()
    except KeyboardInterrupt:
        # What is finished is recorded, and the caller sees what is left.
        print(file=sys.stderr)  # past the ^C that the terminal shows
    finally:
        progress.close()
    return progress.ended


class Recorder(tune.Callback):  # type: ignore[misc]
    """Writes each trial to the store and to TensorBoard as it ends. It runs in the driver: the only writer."""

    def __init__(self, store: Store, plan: Plan, progress: Progress) -> None:
        self.store = store
        self.plan = plan
        self.progress = progress
        self.hparams = tensorboard.varying(plan.configs)

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune saves its callbacks in order to resume them, and a sweep resumes from its rows instead."""
        return {}

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Tell the progress display."""
        self.progress.start(trainable.config_of(trial.config).id)

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """Record the outcome. It is taken out of Tune's result, which Tune would keep in memory and write again."""
        config = trainable.config_of(trial.config)
        outcome: Outcome = result.pop(trainable.OUTCOME)
        # The rows come last: they say that the rest is there.
        tensorboard.write_trial(self.store.folder / "tensorboard", config, outcome, self.hparams)
        self.store.add(config, outcome, provenance(self.plan, config))
        finite = outcome.diverged == 0
        if not finite.all():
            text = f"failed: the loss of {(~finite).sum()} of {len(finite)} replicates was not finite"
            self.progress.finish(config.id, config.name, None, text)
            return
        scores = outcome.accuracy.max(axis=0)
        spread = f" ± {scores.std(ddof=1):.3f}" if len(scores) > 1 else ""
        text = f"{scores.mean():.3f}{spread} (n {len(scores)}) in {outcome.seconds:.1f} s"
        self.progress.finish(config.id, config.name, float(scores.mean()), text)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Record why a trial failed."""
        config = trainable.config_of(trial.config)
        told = re.sub(r"\x1b\[\d+m", "", Path(trial.error_file).read_text(encoding="utf-8"))  # without Ray's colours
        reason = last_line(told)
        write_text_whole(self.store.folder / "failures" / f"{config.id}.txt", told)
        self.store.add_failure(config, reason, provenance(self.plan, config))
        self.progress.finish(config.id, config.name, None, f"failed: {reason}")


def last_line(traceback: str) -> str:
    """Return the line of a traceback that says what went wrong."""
    lines = [line.strip() for line in traceback.splitlines() if line.strip()]
    return lines[-1] if lines else "unknown error"


def provenance(plan: Plan, config: Config) -> dict[str, str]:
    """What a row came from: time, split, data, vectors, code and library versions, command."""
    vectors = {
        f"{modality}_vectors": plan.caches[encoder, modality].manifest.sha256[:12]
        for modality, encoder in config.encoders.items()
    }
    return (
        {f"{modality}_vectors": "" for modality in MODALITIES}
        | vectors
        | {
            "finished_at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "split": plan.split.name,
            "data_fingerprint": plan.dataset.fingerprint[:12],
            "code": code_version(),
            "python": platform.python_version(),
            "torch": torch.__version__,
            "ray": ray.__version__,
            "command": shlex.join(["python", *sys.argv]),
        }
    )


@lru_cache(maxsize=1)
def code_version() -> str:
    """The package's version and, in a checkout, its commit (`-dirty` with uncommitted changes)."""
    command = ["git", "describe", "--always", "--dirty", "--exclude=*"]
    try:
        described = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
    except OSError:  # no git on this machine
        return __version__
    commit = described.stdout.strip()
    return f"{__version__}+{commit}" if commit else __version__
