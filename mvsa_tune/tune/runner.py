"""Train with Ray Tune what of a plan is missing in a results folder, and write the tables."""

import errno
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from ray import tune
from ray.exceptions import OutOfMemoryError
from ray.tune.search import Searcher

from mvsa_tune import NUMERICS_VERSION
from mvsa_tune.cluster.nodes import check_nodes
from mvsa_tune.cluster.session import joined_ray, local_ray
from mvsa_tune.config import Config
from mvsa_tune.errors import InputError
from mvsa_tune.files import write_text_whole
from mvsa_tune.results.manifest import SweepManifest
from mvsa_tune.results.schema import FAILED
from mvsa_tune.results.store import Store
from mvsa_tune.tune.callbacks import Recorder
from mvsa_tune.tune.loggers import make_logger
from mvsa_tune.tune.mirror import Mirror
from mvsa_tune.tune.plan import Plan, whole_seconds
from mvsa_tune.tune.progress import Progress
from mvsa_tune.tune.scheduler import make_scheduler
from mvsa_tune.tune.todo import count_recorded, expected, first_trials, further_trials, is_left, ordered
from mvsa_tune.tune.trainable import Trial, TrialTrainable

if TYPE_CHECKING:
    from mvsa_tune.finetuning.trainer import FinetuneTask
    from mvsa_tune.training.task import Task

# Exit codes: everything finished; some trials failed; interrupted with trials left.
DONE, SOME_FAILED, INTERRUPTED = 0, 1, 130
# How often trials that were lost with their nodes are run at most: one may kill its node each time.
ROUNDS = 10


def run_sweep(
    plan: Plan,
    folder: Path,
    *,
    demo: bool = False,
    quiet: bool = False,
    mirror: Mirror | None = None,
    log: str | None = None,
    settings: str = "",
) -> int:
    """Train what of a plan is not recorded in `folder` yet, write its tables, and return the exit code.

    Args:
        plan: what to run.
        folder: the results folder; new, or of a sweep that the plan can be added to.
        demo: whether the data is the built-in demo set, for the tables' heading.
        quiet: print nothing.
        mirror: the copy of the folder, or of one that holds it, to update after each trial.
        log: where trials are logged as well, `mlflow` or `wandb`.
        settings: the file that repeats the sweep, for the folder to keep as `sweep.yaml`.

    Raises:
        InputError: the folder cannot be written, or holds a sweep that this one cannot be added to.
    """
    store = Store(folder)
    for line in store.begin(_describe(plan, demo), plan.dataset, plan.split):
        print(line, file=sys.stderr)
    try:
        if settings:
            write_text_whole(folder / "sweep.yaml", settings)
        return _run(Run(plan, store, mirror, log, quiet))
    finally:
        store.end()


@dataclass
class Run:
    """The run of a plan in a results folder: the arguments of `run_sweep`, and the Ray that is kept for its rounds."""

    plan: Plan
    store: Store
    mirror: Mirror | None
    log: str | None
    quiet: bool
    kept: ExitStack = field(default_factory=ExitStack)
    has_ray: bool = False


def _run(run: Run) -> int:
    plan, store = run.plan, run.store
    statuses = store.statuses()
    todo = [] if plan.search else first_trials(plan, statuses)
    if statuses and not run.quiet:
        added = sum(trial.is_addition for trial in todo)
        rest = f"; {len(todo)} to train" + (f", {added} of them further seeds or folds" if added else "")
        print(f"{count_recorded(plan, store, todo)} recorded in {store.folder}{'' if plan.search else rest}")
    with run.kept:
        interrupted = _train_rounds(run, todo)
    from mvsa_tune.report.write import write_results  # SciPy and statsmodels take a while to import

    analysis, _ = write_results(store)
    if interrupted:
        done = count_recorded(plan, store, [] if plan.search else first_trials(plan, store.statuses()))
        print(f"Stopped: {done} done; {store.folder}/tables.md holds what is done. The same command goes on from here.")
        return INTERRUPTED
    return SOME_FAILED if analysis.summary["status"].str.startswith(FAILED).any() else DONE


def _train_rounds(run: Run, todo: list[Trial]) -> bool:
    """Train these trials, then those of further seeds, round by round; return whether that was interrupted."""
    interrupted = _train(run, todo)
    try:
        while run.plan.further and not interrupted:
            if not (todo := further_trials(run.plan, run.store, quiet=run.quiet)):
                break
            interrupted = _train(run, todo)
    except KeyboardInterrupt:
        return True
    return interrupted


def _train(run: Run, todo: list[Trial]) -> bool:
    """Train what is left; return whether that was interrupted."""
    rounds = ROUNDS if run.plan.placement.address else 1
    while rounds and is_left(run.plan, todo, run.store):
        rounds -= 1
        interrupted, lost = _fit(run, todo, retries_lost=rounds > 0)
        run.store.tidy()
        if interrupted or not lost:
            return interrupted
        todo = [trial for trial in todo if trial.config.id in lost]
    return False


def _describe(plan: Plan, demo: bool) -> SweepManifest:
    space = {name: str(dimension) for name, dimension in plan.search.space.items()} if plan.search else {}
    fixed = {name: str(value) for name, value in plan.search.fixed.items()} if plan.search else {}
    return SweepManifest(
        data=str(plan.dataset.folder),
        data_fingerprint=plan.dataset.fingerprint,
        layout=plan.dataset.layout,
        classes=plan.dataset.classes,
        label_counts=plan.dataset.label_counts,
        dropped=dict(plan.dataset.dropped),
        reading=dict(plan.dataset.reading),
        demo=demo,
        split=plan.split.name,
        folds=plan.split.fold_digests,
        protocol=plan.protocol,
        replicates=plan.all_replicates,
        configs=() if plan.search else plan.configs,
        space=space | fixed,
        not_run=dict(plan.not_run),
        skipped=dict(plan.skipped),
        vectors={f"{encoder} {modality}": cache.manifest.sha256 for (encoder, modality), cache in plan.caches.items()},
        finetuned=plan.finetuned,
        numerics=NUMERICS_VERSION,
    )


def _fit(run: Run, todo: list[Trial], *, retries_lost: bool) -> tuple[bool, set[str]]:
    """Train; return whether that was interrupted, and the ids of trials that were lost with their nodes."""
    plan, store = run.plan, run.store
    task = plan.task(store.folder)
    scores = store.scores() if plan.asha or plan.search else {}
    searcher = _searcher(plan, store, scores)
    progress = Progress(expected(plan, todo, store), quiet=run.quiet)
    recorder = Recorder(store, plan, progress, run.mirror, retries_lost=retries_lost)
    try:
        _propose_ahead(plan)
        with _costs_beside(plan, todo) as costs, _ray(run), _scratch(store.folder) as scratch:
            progress.weigh(costs.result())
            if plan.costs or plan.placement.device == "cpu":
                progress.expect(_seconds(plan, todo, costs.result()), at_most=bool(plan.milestones))
            tuner = tune.Tuner(
                tune.with_resources(
                    tune.with_parameters(TrialTrainable, task=_for_nodes(plan, task)),
                    {"CPU": plan.placement.cpus, "GPU": plan.placement.gpus, "memory": _declared(plan)},
                ),
                param_space=None if searcher else {"trial": tune.grid_search(ordered(plan, todo, costs.result()))},
                tune_config=tune.TuneConfig(
                    num_samples=-1 if searcher else 1,
                    scheduler=make_scheduler(plan.asha, plan.epochs, _rungs(plan, task, todo, store, scores)),
                    search_alg=searcher,
                    reuse_actors=True,
                    # On a cluster as many as fit: nodes come and go.
                    max_concurrent_trials=None if plan.placement.address else plan.placement.concurrent,
                    trial_name_creator=_trial_name,
                    trial_dirname_creator=_trial_name,
                ),
                run_config=tune.RunConfig(
                    name="tune",
                    storage_path=str(scratch),
                    verbose=0,
                    progress_reporter=tune.CLIReporter(),  # silent; Tune's own choice shows a notebook an empty cell
                    callbacks=[*([make_logger(run.log, store.folder)] if run.log else []), recorder],
                    checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),  # its rows are what lasts
                    failure_config=tune.FailureConfig(max_failures=plan.max_failures),
                ),
            )
            tuner.fit()
    except KeyboardInterrupt:
        # What has finished is recorded, and the caller sees what is left.
        print(file=sys.stderr)  # past the ^C that the terminal shows
        return True, recorder.lost
    except Exception as error:
        if message := _reason(error, recorder.problem, plan, store):
            raise InputError(message) from None
        raise
    finally:
        progress.close()
    return False, recorder.lost


def _reason(error: Exception, problem: OSError | None, plan: Plan, store: Store) -> str:
    """Return a message where a full disk or too little memory ended Tune; empty for anything else, which is a bug."""
    causes = list(_causes(error))
    problem = problem or next((cause for cause in causes if _is_disk_error(cause)), None)  # type: ignore[assignment]
    if problem:
        return (
            f"{store.folder} cannot be written any more ({problem.strerror}): the rows up to here are whole; "
            "mend that, and the same command goes on"
        )
    if any(isinstance(cause, OutOfMemoryError) for cause in causes):  # which Tune does not take as a trial's failure
        return (
            "the machine had too little memory left, and Ray ended a trial: the rows up to here are whole, and the "
            f"same command goes on; --cpus-per-trial {2 * plan.placement.cpus} lets half as many trials run at once"
        )
    return ""


def _trial_name(trial: Any) -> str:
    return Trial.from_tune(trial.config).config.id


def _rungs(
    plan: Plan,
    task: "Task | FinetuneTask",
    todo: list[Trial],
    store: Store,
    scores: Mapping[str, NDArray[np.float64]],
) -> dict[str, NDArray[np.float64]]:
    """Return the recorded scores that the scheduler compares new trials with: of configurations of as many epochs."""
    if not plan.asha:
        return {}
    epochs = {config.id: config.epochs for config in store.configs()}
    recorded = {trial: curve for trial, curve in scores.items() if epochs[trial] == plan.epochs}
    return recorded | task.scores_gone_past([trial.config for trial in todo if not trial.is_addition])


def _searcher(plan: Plan, store: Store, scores: Mapping[str, NDArray[np.float64]]) -> Searcher | None:
    if plan.search is None:
        return None
    from mvsa_tune.tune.searcher import Recorded, TpeSearcher  # Optuna takes a while to import

    epochs = store.epochs()
    recorded = [
        Recorded(config, scores[config.id][-1] if config.id in scores else None, epochs[config.id])
        for config in store.configs()
    ]
    return TpeSearcher(plan.search, recorded, plan.replicates)


def _for_nodes(plan: Plan, task: "Task | FinetuneTask") -> "Task | FinetuneTask":
    """Return the task with what the nodes of a cluster need, once they have been checked; as it is on one machine."""
    return replace(task, driver=check_nodes(task.files)) if plan.placement.address else task


@contextmanager
def _costs_beside(plan: Plan, todo: list[Trial]) -> Iterator[Future[Mapping[str, float]]]:
    """Estimate the trials' costs (of a search none) while Ray starts: it imports torch meanwhile."""
    with ThreadPoolExecutor(1) as beside:
        yield beside.submit(_work, plan, [] if plan.search else [trial.config for trial in todo])


def _work(plan: Plan, configs: list[Config]) -> Mapping[str, float]:
    from mvsa_tune.tune.estimate import trial_seconds  # imports torch

    return trial_seconds(plan, configs)


def _seconds(plan: Plan, todo: list[Trial], costs: Mapping[str, float]) -> float:
    """Return what training these trials takes, from the command to its end; 0 for a search and for rounds of seeds."""
    if plan.search or (plan.further and all(trial.is_addition for trial in todo)):
        return 0.0
    return whole_seconds(plan, [costs[t.config.id] * len(t.replicates) / len(plan.replicates) for t in todo])


def _ray(run: Run) -> AbstractContextManager[None]:
    """Return the Ray to train in; where further seeds may follow, it is kept for them."""
    if run.has_ray:
        return nullcontext()
    placement = run.plan.placement
    ray = joined_ray(placement.address) if placement.address else local_ray(placement.cpus * placement.concurrent)
    if not run.plan.further:
        return ray
    run.kept.enter_context(ray)
    run.has_ray = True
    return nullcontext()


def _propose_ahead(plan: Plan) -> None:
    """Let a search on a cluster have several trials pending: with Tune's one, workers start one after another."""
    if plan.search and plan.placement.address:
        os.environ.setdefault("TUNE_MAX_PENDING_TRIALS_PG", str(max(2, plan.placement.concurrent // 4)))


def _declared(plan: Plan) -> int:
    """Return the bytes of memory that Ray reserves for a trial; 0 on one machine, where the CPUs limit the trials."""
    return plan.trial_memory if plan.placement.address else 0


@contextmanager
def _scratch(folder: Path) -> Iterator[Path]:
    """Make an empty folder for Tune's own files, and remove it in the end: what lasts is the store."""
    scratch = (folder / ".tune").absolute()
    shutil.rmtree(scratch, ignore_errors=True)  # what a kill has left
    scratch.mkdir()
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an exception and its causes."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _is_disk_error(error: BaseException) -> bool:
    """Return whether an exception comes from a full or read-only disk."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EROFS, errno.EDQUOT, errno.EIO)
