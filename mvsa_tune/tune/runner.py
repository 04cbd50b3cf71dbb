"""Runs a plan with Ray Tune: placement, scheduler, searcher, resume."""

import errno
import os
import shlex
import shutil
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from ray import tune
from ray.exceptions import OutOfMemoryError
from ray.tune.search import Searcher

from mvsa_tune import NUMERICS_VERSION, machine
from mvsa_tune.cluster.nodes import tell_nodes
from mvsa_tune.cluster.session import joined_ray, local_ray
from mvsa_tune.config import Config
from mvsa_tune.errors import InputError
from mvsa_tune.results.manifest import SweepManifest
from mvsa_tune.results.schema import FINISHED, STOPPED
from mvsa_tune.results.store import Store
from mvsa_tune.tune import trainable
from mvsa_tune.tune.callbacks import Recorder
from mvsa_tune.tune.plan import Plan
from mvsa_tune.tune.progress import Progress
from mvsa_tune.tune.scheduler import make_scheduler

if TYPE_CHECKING:
    from mvsa_tune.finetuning.finetuner import FinetuneTask
    from mvsa_tune.training.task import Task

# Exit codes: everything finished; some trials failed; interrupted with trials left.
DONE, SOME_FAILED, INTERRUPTED = 0, 1, 130
# How often trials that were lost with their nodes are run, at most: one that takes its process along each time must come to an end.
ROUNDS = 10


def run_sweep(
    plan: Plan,
    folder: Path,
    *,
    demo: bool = False,
    quiet: bool = False,
    grows: bool = False,
    show: bool = True,
) -> int:
    """Train what of a plan is not recorded in `folder` yet, and write its tables.

    Args:
        plan: what to run.
        folder: the results folder; new, or of the same sweep.
        demo: whether the data is the built-in demo set, for the tables' heading.
        quiet: print nothing but the tables.
        grows: whether `folder` may hold a sweep of some of the plan's configurations.
        show: whether to print the tables.

    Returns:
        The exit code.

    Raises:
        InputError: the folder cannot be written (from the start, or from some moment on), or belongs to another sweep.
    """
    store = Store(folder)
    for line in store.begin(_describe(plan, demo), plan.dataset, plan.split, grows=grows):
        print(line, file=sys.stderr)
    try:
        return _run(plan, store, quiet=quiet, show=show)
    finally:
        store.end()


def _run(plan: Plan, store: Store, *, quiet: bool, show: bool) -> int:
    recorded = _recorded(plan, store)
    todo = [] if plan.search else [config for config in plan.runnable if config.id not in recorded]
    if recorded and not quiet:
        told = "" if plan.search else f"; {len(todo)} to train"
        print(f"{_counted(plan, recorded)} are recorded in {store.folder}{told}")
    interrupted, rounds = False, ROUNDS if plan.placement.address else 1
    while rounds and _is_left(plan, todo, store):
        rounds -= 1
        interrupted, lost = _fit(plan, todo, store, quiet=quiet, forgiving=rounds > 0)
        store.tidy()
        if interrupted or not lost:
            break
        todo = [config for config in todo if config.id in lost]
    from mvsa_tune.report.write import write_results  # SciPy and statsmodels take a while to import

    analysis, markdown = write_results(store)
    summary = analysis.summary
    failed = int(summary["status"].str.startswith("failed").sum())
    if interrupted:
        print(_interrupted(plan, store))
        return INTERRUPTED
    if show:
        print(markdown)
    if (show and not quiet) or failed:
        print(_closing(store.folder, len(summary), failed))
    return SOME_FAILED if failed else DONE


def _is_left(plan: Plan, todo: list[Config], store: Store) -> bool:
    """Whether there is anything to train."""
    if plan.search:
        return not plan.search.budget.spent(len(store.configs()), sum(store.epochs().values()))
    return bool(todo)


def _recorded(plan: Plan, store: Store) -> set[str]:
    """Ids of the trials that need no training: one that was stopped does, where there is no scheduler to stop it."""
    return set(store.recorded((FINISHED, STOPPED) if plan.asha else (FINISHED,)))


def _counted(plan: Plan, trials: set[str]) -> str:
    return f"{len(trials)} configurations" if plan.search else f"{len(trials)} of {len(plan.configs)} configurations"


def _interrupted(plan: Plan, store: Store) -> str:
    told = _counted(plan, _recorded(plan, store))
    return f"Stopped: {told} are done; {store.folder}/tables.md holds what is done. The same command goes on from here."


def _closing(folder: Path, count: int, failed: int) -> str:
    told = f"{failed} of {count} configurations failed; {folder}/trials.csv says why. " if failed else ""
    place = shlex.quote(str(folder / "tensorboard"))
    return f"{told}Rows, tables, predictions: {folder}/   Curves: tensorboard --logdir {place}"


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
        demo=demo,
        split=plan.split.name,
        split_digest=plan.split.digest,
        protocol=plan.protocol,
        replicates=plan.replicates,
        configs=() if plan.search else plan.configs,
        space=space | fixed,
        not_run=dict(plan.not_run),
        skipped=dict(plan.skipped),
        vectors={f"{encoder} {modality}": cache.manifest.sha256 for (encoder, modality), cache in plan.caches.items()},
        finetuned=plan.finetuned,
        code=f"numerics {NUMERICS_VERSION}",
    )


def _fit(plan: Plan, todo: list[Config], store: Store, *, quiet: bool, forgiving: bool) -> tuple[bool, set[str]]:
    """Train configurations; return whether it was interrupted, and the trials that were lost with their nodes."""
    scores = store.scores() if plan.asha or plan.search else {}
    rungs = {**scores, **plan.task(store.folder).scores_gone_past(todo)} if plan.asha else {}
    searcher = _searcher(plan, store, scores)
    progress = Progress(_expected(plan, todo, store), quiet=quiet)
    recorder = Recorder(store, plan, progress, forgiving=forgiving)
    try:
        _propose_ahead(plan)
        with _costs_beside(plan, todo) as costs, _ray(plan), _scratch(store.folder) as scratch:
            machine.listen()  # Ray has set a handler of its own
            progress.weigh(costs.result())
            tuner = tune.Tuner(
                tune.with_resources(
                    tune.with_parameters(trainable.TrialTrainable, task=_task(plan, store.folder)),
                    {"CPU": plan.placement.cpus, "GPU": plan.placement.gpus, "memory": _declared(plan)},
                ),
                param_space=None if searcher else {"config": tune.grid_search(_ordered(plan, todo, costs.result()))},
                tune_config=tune.TuneConfig(
                    num_samples=-1 if searcher else 1,
                    scheduler=make_scheduler(plan.asha, plan.epochs, rungs),
                    search_alg=searcher,
                    reuse_actors=True,
                    # On a cluster as many as fit: nodes come and go.
                    max_concurrent_trials=None if plan.placement.address else plan.placement.concurrent,
                    trial_name_creator=lambda trial: trainable.config_of(trial.config).id,
                    trial_dirname_creator=lambda trial: trainable.config_of(trial.config).id,
                ),
                run_config=tune.RunConfig(
                    name="tune",
                    storage_path=str(scratch),
                    verbose=0,
                    callbacks=[recorder],
                    failure_config=tune.FailureConfig(max_failures=plan.max_failures),
                ),
            )
            tuner.fit()
    except KeyboardInterrupt:
        # What is finished is recorded, and the caller sees what is left.
        print(file=sys.stderr)  # past the ^C that the terminal shows
        return True, recorder.lost
    except Exception as error:
        problem = recorder.problem or next(filter(_is_disk_error, _causes(error)), None)
        if isinstance(problem, OSError):
            raise InputError(
                f"{store.folder} cannot be written any more ({problem.strerror}): the rows up to here are whole; mend that, and "
                "the same command goes on"
            ) from None
        if any(
            isinstance(one, OutOfMemoryError) for one in _causes(error)
        ):  # which Tune does not take as a trial's failure
            raise InputError(
                "the machine had too little memory left, and Ray ended a trial: the rows up to here are whole, and the same "
                f"command goes on; --cpus-per-trial {2 * plan.placement.cpus} lets half as many trials run at once"
            ) from None
        raise
    finally:
        progress.close()
    return False, recorder.lost


def _expected(plan: Plan, todo: list[Config], store: Store) -> int | None:
    """How many trials there will be, where that is known."""
    if plan.search is None:
        return len(todo)
    trials = plan.search.budget.trials
    return None if trials is None else trials - len(store.configs())


def _searcher(plan: Plan, store: Store, scores: Mapping[str, NDArray[np.float64]]) -> Searcher | None:
    if plan.search is None:
        return None
    from mvsa_tune.tune.searcher import Recorded, TpeSearcher  # Optuna takes a while to import

    epochs = store.epochs()
    recorded = [
        Recorded(config, scores[config.id][-1] if config.id in scores else None, epochs[config.id])
        for config in store.configs()
    ]
    return TpeSearcher(plan.search, recorded)


def _ordered(plan: Plan, todo: list[Config], costs: Mapping[str, float]) -> list[str]:
    """The order in which trials start: the longest first, so that no worker is left with a long one at the end.

    With ASHA by id, which is as good as random: it compares what comes later with what came before.
    """
    ordered = sorted(todo, key=lambda config: config.id if plan.asha else -costs[config.id])
    return [trainable.tune_config(config)["config"] for config in ordered]


def _task(plan: Plan, folder: Path) -> "Task | FinetuneTask":
    task = plan.task(folder)
    return replace(task, driver=tell_nodes(plan.caches.values(), task.files)) if plan.placement.address else task


@contextmanager
def _costs_beside(plan: Plan, todo: list[Config]) -> Iterator[Future[Mapping[str, float]]]:
    """What trials cost against each other, of a search nothing: worked out while Ray starts, which is mostly waiting. It imports torch."""
    with ThreadPoolExecutor(1) as beside:
        yield beside.submit(_work, plan, [] if plan.search else todo)


def _work(plan: Plan, configs: list[Config]) -> Mapping[str, float]:
    from mvsa_tune.tune.estimate import relative_work  # imports torch

    return relative_work(plan, configs)


def _ray(plan: Plan) -> AbstractContextManager[None]:
    place = plan.placement
    return joined_ray(place.address) if place.address else local_ray(place.cpus * place.concurrent)


def _propose_ahead(plan: Plan) -> None:
    """On a cluster let a search have some trials waiting: with Tune's one at a time its workers start one after another."""
    if plan.search and plan.placement.address:
        os.environ.setdefault("TUNE_MAX_PENDING_TRIALS_PG", str(max(2, plan.placement.concurrent // 4)))


def _declared(plan: Plan) -> int:
    """Bytes of memory that Ray keeps free for a trial; none on one machine, where as many run as there are CPUs for."""
    return plan.trial_memory if plan.placement.address else 0


@contextmanager
def _scratch(folder: Path) -> Iterator[Path]:
    """Where Tune keeps its own books for the time of a sweep. What lasts is the store; what a kill left here is removed."""
    place = (folder / ".tune").absolute()
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """An exception, and those that it comes from."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _is_disk_error(error: BaseException) -> bool:
    """Whether it is that of a full or read-only disk."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EROFS, errno.EDQUOT, errno.EIO)
