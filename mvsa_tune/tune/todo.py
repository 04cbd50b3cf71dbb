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

    Configurations that were stopped or have failed get none.
    """
    from mvsa_tune.stats.allocation import allocate  # these import SciPy
    from mvsa_tune.stats.analysis import analyse

    replicates = (*plan.replicates, *plan.further)
    seeds, first = (list(dict.fromkeys(r.seed for r in of)) for of in (replicates, plan.replicates))
    finished = {scored.config.id: scored for scored in analyse(store).ranked}
    among = [finished[config.id] for config in plan.runnable if config.id in finished]
    accuracies = []
    for scored in among:
        by_seed = dict(zip(scored.seeds, scored.values.mean(axis=1), strict=True))
        accuracies.append(np.array([by_seed[seed] for seed in takewhile(by_seed.__contains__, seeds)]))
    if not among:
        return []
    allocation, statuses, trials = allocate(accuracies, len(first), len(seeds)), store.statuses(), []
    for scored, count in zip(among, allocation.seeds, strict=True):
        wanted = [replicate for replicate in replicates if replicate.seed in seeds[:count]]
        if lacking := missing(statuses[scored.config.id], wanted, stopped_counts=True):
            trials.append(Trial(scored.config, lacking, is_addition=True))
    if not quiet:
        loss = f"taking the best now would lose {100 * allocation.regret:.2f} points on average"
        goal = f"the goal is {100 * allocation.goal:.2f}"
        more = f"{len(trials)} of {len(among)} configurations get more" if trials else "no more are needed"
        print(f"Seeds: {loss}, {goal}: {more}", flush=True)
    return trials


def is_left(plan: Plan, todo: list[Trial], store: Store) -> bool:
    """Return whether there is anything to train."""
    if plan.search:
        return not plan.search.budget.spent(len(store.configs()), sum(store.epochs().values()))
    return bool(todo)


def recorded(plan: Plan, store: Store, todo: list[Trial]) -> str:
    """Write how many configurations have all that the plan asks for."""
    if plan.search:
        return f"{len(store.recorded((FINISHED, STOPPED) if plan.asha else (FINISHED,)))} configurations are"
    return f"{len(plan.runnable) - len(todo)} of {len(plan.configs)} configurations are"
