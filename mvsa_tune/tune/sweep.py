"""Carry out what a sweep's command line requests: print its plan, or run it, confirm a search's finalists, report."""

from argparse import Namespace
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from mvsa_tune.config import Config
from mvsa_tune.data.splits import Split, unvalidated
from mvsa_tune.errors import InputError, counted, some
from mvsa_tune.formats import clock
from mvsa_tune.machine import available_memory
from mvsa_tune.tune.plan import Plan, make_plan, split_and_replicates, whole_seconds, with_encoders, without
from mvsa_tune.tune.space import Search


def outline(plan: Plan) -> list[str]:
    """Return the lines of a plan that need neither torch nor an encoder."""
    return [
        *(f"{'data':<10}{line}" for line in plan.dataset.description()),
        f"split     {_sizes(plan.split)}",
        *_unvalidated(plan),
        *_trials(plan),
        f"stopping  {_stopping(plan)}",
        _machine(plan),
    ]


def opening(plan: Plan, folder: Path) -> list[str]:
    """Return the lines that a sweep begins with; what it takes is added when it has been measured."""
    epochs = f"{plan.epochs} epochs{' at most (ASHA)' * bool(plan.milestones)}"
    return [*_unvalidated(plan), f"{_trials(plan)[-1]}, {epochs}", f"{_machine(plan)}; results in {folder}/"]


def _unvalidated(plan: Plan) -> list[str]:
    note = unvalidated(plan.split, np.array(plan.dataset.labels, dtype=np.int64), plan.dataset.classes)
    return [f"warning   {note}"] if note else []


def _machine(plan: Plan) -> str:
    place = plan.placement
    share = f"{place.cpus} CPU thread{'s' * (place.cpus > 1)}{f' and {place.gpus:g} GPU' if place.gpus else ''} each"
    where = counted(len(place.nodes), "node") if place.nodes else "machine"
    return f"{where:<10}{place.concurrent} trial{'s' * (place.concurrent > 1)} at once on {place.device}, {share}"


def cost_lines(plan: Plan) -> Iterator[str]:
    """Yield the lines of a plan with costs: what it leaves out, memory and time, and a line for each configuration.

    A search shows the corners of its space.
    """
    total = len(plan.configs)
    if plan.skipped:
        names = some(list(plan.skipped))
        yield f"left out  {counted(len(plan.skipped), 'sample')}, unreadable: {names}; leaves {_sizes(plan.split)}"
    if plan.not_run:
        yield f"left out  {len(plan.not_run):,} of {total:,} configurations, for the reasons below"
    unknown = total - len(plan.costs)
    without = f"; not counting {unknown} configurations whose encoders have not been loaded" if unknown else ""
    yield f"memory    about {plan.memory / 2**20:,.0f} MiB for each worker, besides Python and torch{without}"
    yield f"time      {_time(plan)}"
    yield ""
    width = max(len(config.name) for config in plan.configs)
    for config in plan.configs:
        cost, reason = plan.costs.get(config.id), plan.not_run.get(config.id)
        parameters, seconds = (f"{cost.parameters:,}", f"about {clock(cost.seconds)}") if cost else ("?", "")
        remarks = "; ".join(filter(None, [seconds, reason and f"left out: {reason}"]))
        yield f"{config.name:<{width}}  {parameters:>9} parameters × {len(plan.replicates)}  {remarks}"


def _sizes(split: Split) -> str:
    """Return the sizes of a split's parts: `kfold:5, 5 folds: 3,199 to 3,201 samples to train, …`."""
    spans = []
    for part, verb in {"train": "samples to train", "validation": "to validate", "test": "to test"}.items():
        sizes = sorted(len(rows) for rows in getattr(split, part).values())
        if sizes[-1]:
            spans.append(f"{sizes[0]:,}{f' to {sizes[-1]:,}' if sizes[-1] > sizes[0] else ''} {verb}")
    folds = ", one fold for each seed" if split.by_seed else f", {len(split.train)} folds" * (len(split.train) > 1)
    return f"{split.name}{folds}: {', '.join(spans)}"


def _trials(plan: Plan) -> list[str]:
    names = ", ".join(dict.fromkeys(str(replicate.seed) for replicate in plan.replicates))
    folds = "" if plan.split.by_seed or len(plan.split.train) == 1 else f" on {len(plan.split.train)} folds"
    several = len(plan.replicates) > 1
    seeds = f"{len(plan.replicates)} replicate{'s' * several} (seed{'s' * (',' in names)} {names}{folds})"
    if plan.further:
        first, last = plan.seed_counts
        seeds = f"{first} to {last} seeds{folds}, where they decide"
    if plan.search is None:
        count = len(plan.configs)
        configs = "1 configuration with" if count == 1 else f"{count} configurations, each with"
        return [f"trials    {configs} {seeds}"]
    dimensions = [f"space     {name} {dimension}" for name, dimension in plan.search.space.items()]
    return [*dimensions, f"trials    {plan.search.budget}, proposed by TPE, each with {seeds}"]


def _stopping(plan: Plan) -> str:
    if plan.asha is None or not plan.milestones:
        return f"none: every trial is trained for {plan.epochs} epochs"
    rungs = ", ".join(map(str, plan.milestones))
    best = f"the best 1 in {plan.asha.reduction_factor:g} of the trials that have come as far"
    return f"ASHA: after {rungs} of {plan.epochs} epochs a trial goes on only if it is among {best}"


def _time(plan: Plan) -> str:
    if plan.search:
        seconds = sorted(cost.seconds for cost in plan.costs.values())
        return f"from {clock(seconds[0])} to {clock(seconds[-1])} a trial" if seconds else "unknown"
    text = "nothing can run yet"
    if plan.runnable:
        text = f"about {_total(plan, plan.runnable)}{' at most' * bool(plan.milestones)}"
        text += ", for the first seeds" * bool(plan.further)
    measured = [config for config in plan.configs if config.id in plan.costs]
    return f"{text}; about {_total(plan, measured)} with those left out" if plan.not_run and measured else text


def _total(plan: Plan, configs: Sequence[Config]) -> str:
    return clock(whole_seconds(plan, [plan.costs[config.id].seconds for config in configs]))


def carry_out(
    options: Namespace, requested: Callable[[Namespace], Sequence[Config] | Search], *, show: bool = True
) -> int:
    """Run what flags ask for in the folder `--name` of `--results`, or with `--dry-run` print the plan.

    Args:
        options: the flags of `flags.parse_sweep`.
        requested: returns the configurations of a grid, or the search, that they ask for.
        show: whether to print the answer, or with `--quiet` the path of the results folder.

    Returns:
        The exit code.

    Raises:
        InputError: the plan needs more memory than there is, encoders cannot be loaded, or the folder cannot be used.
    """
    if options.log and find_spec(options.log) is None:
        raise InputError(f"--log {options.log}: it is not installed: pip install {options.log}")
    plan, folder = make_plan(options, requested(options)), options.results / options.name
    if options.dry_run:
        _print(outline(plan))
    elif not options.quiet:
        _print(opening(plan, folder))
    if plan.finetuning:
        plan = with_encoders(plan, options)
    if plan.finetuning or options.dry_run or (plan.placement.nodes and not plan.placement.memory):
        from mvsa_tune.tune.estimate import estimate  # imports torch

        plan = replace(plan, costs=estimate(plan))
    _check_memory(plan, is_run=not options.dry_run)
    if options.dry_run:
        _print([*cost_lines(plan), *_power(plan, options.like)])
        return 0
    from mvsa_tune.tune.mirror import Mirror
    from mvsa_tune.tune.runner import INTERRUPTED, run_sweep  # imports Ray

    with Mirror(folder, options.storage) if options.storage else nullcontext() as mirror:
        run = partial(run_sweep, demo=options.demo, quiet=options.quiet, mirror=mirror, log=options.log)
        code = run(plan, folder, settings=options.yaml)
        if plan.search and code != INTERRUPTED:
            code = max(code, confirm(plan, folder, options, run))
        if options.report and code != INTERRUPTED:
            from mvsa_tune.report.write import report  # imports SciPy

            report(folder, quiet=True)
    if show and code != INTERRUPTED:
        _print([str(folder)] if options.quiet else ["", _ending(folder)])
    return code


def _ending(folder: Path) -> str:
    from mvsa_tune.report.ending import ending  # these import SciPy
    from mvsa_tune.results.store import Store
    from mvsa_tune.stats.analysis import analyse

    return ending(analyse(Store(folder)))


def _power(plan: Plan, like: Path | None) -> list[str]:
    """Return what differences the plan can see, by the variances of an earlier sweep or by typical ones."""
    from mvsa_tune.results.store import Store  # these import SciPy
    from mvsa_tune.stats.analysis import analyse
    from mvsa_tune.stats.power import TYPICAL

    if plan.split.by_seed or len(plan.configs) < 2:
        return []
    known = analyse(Store(like)).power if like else TYPICAL
    if known is None:
        raise InputError(f"--like {like}: it needs two finished configurations on the same validation samples")
    samples = sum(len(rows) for rows in plan.split.validation.values())
    power = replace(
        known,
        seeds=plan.seed_counts.first,
        samples=samples,
        labelled=len(plan.dataset.labels),
        comparisons=len(plan.configs) - 1,
    )
    source = f"by the variances of {like}" if like else "by typical variances; --like results/NAME takes a sweep's own"
    return [f"power     {power.sees()} ({source})", f"          {power.takes(0.01)}"]


def _print(lines: Iterable[str]) -> None:
    for line in lines:
        print(line, flush=True)


def _check_memory(plan: Plan, *, is_run: bool) -> None:
    """InputError where memory is too small: on a cluster trials would wait, on one machine Ray would end them."""
    place = plan.placement
    if place.nodes:
        place.check_memory(plan.trial_memory)
    if place.nodes or not (plan.finetuning and is_run):
        return
    if place.gpus:
        import torch

        free, flag, at_once = torch.cuda.mem_get_info()[0], "--gpus-per-trial", max(1, int(1 / place.gpus))
    else:
        free, flag, at_once = available_memory(), "--cpus-per-trial", place.concurrent
    if (need := plan.memory * at_once) > free:
        raise InputError(
            f"{at_once} trials at once need about {need / 2**30:.1f} GiB of memory, and {free / 2**30:.1f} are free: "
            f"run fewer with a larger {flag}, or smaller ones with --accumulation, --frozen or --gradient-checkpointing"
        )


def confirm(plan: Plan, folder: Path, options: Namespace, run: Callable[[Plan, Path], int]) -> int:
    """Train a search's finalists again, to the end and on fresh seeds; write the tables and return the exit code.

    Args:
        plan: the search's.
        folder: the search's results; the finalists' go into a folder in it.
        options: the flags of `flags.add_search_flags`.
        run: runs a plan in a folder and returns the exit code.
    """
    from mvsa_tune.report.leaderboard import confirmed_folder, finalists
    from mvsa_tune.report.write import write_results
    from mvsa_tune.results.store import Store
    from mvsa_tune.tune.runner import INTERRUPTED

    confirmed = confirmed_folder(folder)
    earlier = Store(confirmed).manifest.configs if (confirmed / "sweep.json").exists() else ()
    configs = tuple(dict.fromkeys([*earlier, *finalists(Store(folder), options.finalists)]))
    code = 1
    if configs:
        if not options.quiet:
            print(f"\nTraining the {len(configs)} finalists again, on {options.confirm_seeds} fresh seeds.")
        first = max(replicate.seed for replicate in Store(folder).manifest.replicates) + 1
        seeds = range(first, first + options.confirm_seeds)
        split, replicates = split_and_replicates(options.split, plan.dataset, seeds)
        split = without(split, plan.dataset, plan.skipped)
        final = replace(plan, configs=configs, split=split, replicates=replicates, asha=None, search=None)
        code = run(final, confirmed)
    if code != INTERRUPTED:
        write_results(Store(folder))
    return code
