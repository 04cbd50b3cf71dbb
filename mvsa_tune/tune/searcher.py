"""Optuna's TPE as a searcher of Ray Tune, started from the recorded trials."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial
from ray.tune.search import Searcher

from mvsa_tune.config import Config, Replicate
from mvsa_tune.dimensions import Choice, Dimension
from mvsa_tune.tune.space import Search, make_config, point_of
from mvsa_tune.tune.trainable import METRIC, RESOURCE, Trial

# Proposals in a row that are known already, after which points are drawn at random; and after which the space counts as
# used up.
TPE_REPEATS, REPEATS = 20, 200


@dataclass(frozen=True)
class Recorded:
    """A recorded trial: its configuration, its score (None if it failed) and the epochs that it was trained for."""

    config: Config
    score: float | None
    epochs: int


class TpeSearcher(Searcher):  # type: ignore[misc]
    """Proposes configurations that are neither recorded nor running, by tree-structured Parzen estimators (TPE).

    A proposal depends on the search's seed, on the trials that have ended, in their order, and on those that run, on
    nothing else. So a search that runs one trial at a time proposes the same every time, interrupted or not.

    Tune's own `OptunaSearch` cannot both learn from trials that it has not proposed and avoid proposing them.
    """

    def __init__(self, search: Search, recorded: list[Recorded], replicates: tuple[Replicate, ...]) -> None:
        super().__init__(metric=METRIC, mode="max")
        self.search = search
        self.replicates = replicates
        self.distributions = {name: distribution(dimension) for name, dimension in search.space.items()}
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.study = optuna.create_study(direction="maximize")
        self.known = {trial.config.id: trial.score for trial in recorded}
        self.epochs = {trial.config.id: trial.epochs for trial in recorded}
        self.study.add_trials([self._frozen(trial) for trial in recorded if trial.score is not None])
        self.running: dict[str, tuple[optuna.Trial, Config]] = {}

    def _frozen(self, trial: Recorded) -> FrozenTrial:
        point = point_of(trial.config, self.search.space)
        return create_trial(value=trial.score, params=point, distributions=self.distributions)

    def suggest(self, trial_id: str) -> Any:
        """Return the next trial as Tune takes it; `FINISHED` when the budget is spent or the space is used up."""
        running = {config.id for _, config in self.running.values()}
        if self.search.budget.spent(len(self.known) + len(running), sum(self.epochs.values())):
            return Searcher.FINISHED
        seed = int(np.random.SeedSequence([self.search.seed, len(self.epochs)]).generate_state(1)[0])
        self.study.sampler = optuna.samplers.TPESampler(seed=seed, constant_liar=True)
        for repeat in range(REPEATS):
            if repeat == TPE_REPEATS:
                self.study.sampler = optuna.samplers.RandomSampler(seed)
            proposal = self.study.ask(self.distributions)
            config = make_config(proposal.params, self.search.fixed)
            if config.id not in self.known and config.id not in running:
                self.running[trial_id] = proposal, config
                self.epochs[config.id] = 0
                return Trial(config, self.replicates).to_tune()
            self.study.tell(proposal, state=TrialState.FAIL)
        # What is still running may be all that is left.
        return None if running else Searcher.FINISHED

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Count the epochs trained."""
        self._count(trial_id, result)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Learn a trial's score, or that it failed."""
        self._count(trial_id, result or {})
        proposal, config = self.running.pop(trial_id)
        score = None if error or not result else float(result[METRIC])
        self.known[config.id] = score
        # The configuration's point in place of the proposed one, which was rounded: the rows hold no other.
        self.study.tell(proposal, state=TrialState.FAIL)
        if score is not None:
            self.study.add_trial(self._frozen(Recorded(config, score, self.epochs[config.id])))

    def _count(self, trial_id: str, result: Mapping[str, Any]) -> None:
        config_id = self.running[trial_id][1].id
        self.epochs[config_id] = max(self.epochs[config_id], result.get(RESOURCE, 0))

    def save(self, checkpoint_path: str) -> None:
        """Do nothing: a search resumes from its rows."""

    def restore(self, checkpoint_path: str) -> None:
        """Do nothing: a search resumes from its rows."""


def distribution(dimension: Dimension) -> BaseDistribution:
    """Return a dimension as Optuna's distribution."""
    if isinstance(dimension, Choice):
        return CategoricalDistribution(dimension.values)
    if isinstance(dimension.low, int) and isinstance(dimension.high, int):
        return IntDistribution(dimension.low, dimension.high, log=dimension.log)
    return FloatDistribution(dimension.low, dimension.high, log=dimension.log)
