"""What of a plan is left to train in a results folder, as trials."""

from collections.abc import Mapping
from itertools import takewhile

import numpy as np

from mvsa_tune.config import Replicate
from mvsa_tune.results.schema import FAILED, FINISHED, STOPPED
from mvsa_tune.results.store import Store, missing
from mvsa_tune.tune.plan import Plan
from mvsa_tune.tune.trainable import Trial


def first_trials(plan: Plan, statuses: Mapping[str, Mapping[Replicate, str]]) -> list[Trial]:
    """Return what of a grid is not recorded yet: a trial for each configuration that lacks replicates.

    Of the plan's further seeds these are only the ones that failed, which are tried again.
    """
    trials = []
    for config in plan.runnable:
        recorded = statuses.get(config.id, {})
        again = [replicate for replicate in plan.further if recorded.get(replicate, "").startswith(FAILED)]
        if replicates := missing(recorded, [*plan.replicates, *again], stopped_counts=plan.asha is not None):
            trials.append(Trial(config, replicates, is_addition=FINISHED in recorded.values()))
    return trials


def further_trials(plan: Plan, store: Store, *, quiet: bool) -> list[Trial]:
    """Return the trials of further seeds, for the configurations between which they decide; say how many and why.

    All that the folder ranks is compared, but only the plan's configurations are trained. What was stopped or has
    failed is not ranked.
    """
    from mvsa_tune.stats.allocation import allocate, expected_losses  # SciPy takes a while to import
    from mvsa_tune.stats.analysis import analyse

    analysis, (first, last) = analyse(store), plan.seed_counts
    seeds = list(dict.fromkeys(replicate.seed for replicate in plan.all_replicates))
    runnable = {config.id for config in plan.runnable}
    among, accuracies = [], []
    for scored in sorted(analysis.ranked, key=lambda scored: scored.config.id):
        by_seed = dict(zip(scored.seeds, scored.values.mean(axis=1), strict=True))
        of_seeds = [by_seed[seed] for seed in takewhile(by_seed.__contains__, seeds)]
        if len(of_seeds) >= first:
            among.append(scored.config)
            accuracies.append(np.array(of_seeds))
    if len(among) < 2:
        return []
    limits = [last if c.id in runnable else len(of) for c, of in zip(among, accuracies, strict=True)]
    statuses, trials = store.statuses(), []
    for config, count in zip(among, allocate(accuracies, first, last, limits), strict=True):
        wanted = [replicate for replicate in plan.all_replicates if replicate.seed in seeds[:count]]
        if config.id in runnable and (lacking := missing(statuses[config.id], wanted, stopped_counts=True)):
            trials.append(Trial(config, lacking, is_addition=True))
    if not quiet:
        loss, goal = expected_losses(accuracies, last)
        enough = "enough" if loss.sum() <= goal else "no more are allowed"
        more = f"{len(trials)} of {len(among)} get more" if trials else enough
        out = len(analysis.summary) - len(among)
        left_out = f"; {out} did not finish" if out else ""
        text = f"choosing now loses {100 * loss.sum():.2f} points on average (goal {100 * goal:.2f})"
        print(f"Seeds     {text}: {more}{left_out}", flush=True)
    return trials


def is_left(plan: Plan, todo: list[Trial], store: Store) -> bool:
    """Return whether there is anything to train."""
    if plan.search:
        return not plan.search.budget.spent(len(store.configs()), sum(store.epochs().values()))
    return bool(todo)


def count_recorded(plan: Plan, store: Store, todo: list[Trial]) -> str:
    """Write how many configurations have all that the plan asks for."""
    if plan.search:
        return f"{len(store.recorded((FINISHED, STOPPED) if plan.asha else (FINISHED,)))} configurations are"
    are = "are, with their first seeds," if plan.further else "are"
    return f"{len(plan.runnable) - len(todo)} of {len(plan.configs)} configurations {are}"


def expected(plan: Plan, todo: list[Trial], store: Store) -> int | None:
    """Return how many trials there will be, where that is known."""
    if plan.search is None:
        return len(todo)
    trials = plan.search.budget.trials
    return None if trials is None else trials - len(store.configs())


def ordered(plan: Plan, todo: list[Trial], costs: Mapping[str, float]) -> list[str]:
    """Return the trials in the order in which they start: the longest first, so that none is left alone at the end.

    With ASHA by id, which is as good as random: it compares what comes later with what came before.
    """

    def key(trial: Trial) -> tuple[float, str]:
        return (0.0 if plan.asha else -costs[trial.config.id] * len(trial.replicates), trial.config.id)

    return [trial.to_tune()["trial"] for trial in sorted(todo, key=key)]
