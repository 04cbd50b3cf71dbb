"""Carries out what a sweep's command line asks for: print the plan, or run it, confirm a search's finalists, report."""

from argparse import Namespace
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path

import psutil

from mvsa_tune.config import Config
from mvsa_tune.errors import InputError
from mvsa_tune.tune.describe import cost_lines, outline
from mvsa_tune.tune.plan import Plan, make_plan, split_and_replicates, with_encoders, without
from mvsa_tune.tune.space import Search


def carry_out(options: Namespace, requested: Callable[[Namespace], Sequence[Config] | Search]) -> int:
    """Run what flags ask for in the folder `--name` of `--results`, or with `--dry-run` print the plan.

    Args:
        options: the flags of `flags.parse_sweep`.
        requested: returns the configurations of a grid, or the search, that they ask for.

    Returns:
        The exit code.

    Raises:
        InputError: the plan needs more memory than there is, encoders cannot be loaded, or the folder cannot be used.
    """
    plan = make_plan(options, requested(options))
    if options.dry_run:
        _print(outline(plan))
    if plan.finetuning:
        plan = with_encoders(plan, options)
    if plan.finetuning or plan.placement.nodes or options.dry_run:
        from mvsa_tune.tune.estimate import estimate  # imports torch

        plan = replace(plan, costs=estimate(plan))
        _check_memory(plan, is_run=not options.dry_run)
    if options.dry_run:
        _print(cost_lines(plan))
        return 0
    from mvsa_tune.tune.mirror import Mirror
    from mvsa_tune.tune.runner import INTERRUPTED, run_sweep  # imports Ray

    folder = options.results / options.name
    with Mirror(folder, options.storage) if options.storage else nullcontext() as mirror:
        run = partial(run_sweep, demo=options.demo, quiet=options.quiet, show=not plan.search, mirror=mirror)
        code = run(plan, folder)
        if plan.search and code != INTERRUPTED:
            code = max(code, confirm(plan, folder, options, run))
        if options.report and code != INTERRUPTED:
            from mvsa_tune.report.write import report  # imports SciPy

            report(folder, quiet=options.quiet)
    return code


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
        free, flag, at_once = psutil.virtual_memory().available, "--cpus-per-trial", place.concurrent
    if (need := plan.memory * at_once) > free:
        raise InputError(
            f"{at_once} trials at once need about {need / 2**30:.1f} GiB of memory, and {free / 2**30:.1f} are free: "
            f"run fewer with a larger {flag}, or smaller ones with --accumulation, --frozen or --gradient-checkpointing"
        )


def confirm(plan: Plan, folder: Path, options: Namespace, run: Callable[[Plan, Path], int]) -> int:
    """Train a search's finalists again, to the end and on fresh seeds, and print the tables; return the exit code.

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
    else:
        print("No trial was trained to its end: there is nothing to confirm.")
    if code != INTERRUPTED:
        print(write_results(Store(folder))[1])
    return code
