from typing import Any

import numpy as np
import pytest
from ray.tune.search import Searcher

from mvsa_tune.config import Config, Replicate
from mvsa_tune.dimensions import Choice, Range
from mvsa_tune.tune.searcher import Recorded, TpeSearcher
from mvsa_tune.tune.space import PAIR, Budget, Search, make_config
from mvsa_tune.tune.trainable import METRIC, RESOURCE, Trial

SPACE = {PAIR: Choice(("eye+ear",)), "lr": Range(1e-5, 1e-1, log=True), "dropout": Range(0.0, 0.5)}


def searcher_of(search: Search, recorded: list[Recorded]) -> TpeSearcher:
    return TpeSearcher(search, recorded, (Replicate(42),))


def configuration(suggested: Any) -> Config:
    trial = Trial.from_tune(suggested)
    assert trial.replicates == (Replicate(42),) and not trial.is_addition
    return trial.config


def value(config: Any) -> float:
    """A landscape whose top is at lr 1e-3 and dropout 0.4."""
    return float(1 - abs(np.log10(config.lr) + 3) / 4 - abs(config.dropout - 0.4))


def run(searcher: TpeSearcher, most: int = 1000) -> list[Any]:
    """Serve trials one at a time until the searcher is finished; return the configurations."""
    served = []
    for number in range(most):
        suggested = searcher.suggest(f"t{number}")
        if suggested == Searcher.FINISHED:
            break
        config = configuration(suggested)
        served.append(config)
        searcher.on_trial_complete(f"t{number}", {METRIC: value(config), RESOURCE: 10})
    return served


def test_the_budget_ends_the_search() -> None:
    assert len(run(searcher_of(Search(SPACE, {}, Budget(trials=7), 0), []))) == 7
    assert len(run(searcher_of(Search(SPACE, {}, Budget(total_epochs=45), 0), []))) == 5


def test_it_learns_where_the_good_ones_are() -> None:
    found = [value(config) for config in run(searcher_of(Search(SPACE, {}, Budget(trials=60), 0), []))]
    assert np.mean(found[40:]) > np.mean(found[:10]) + 0.1


def test_recorded_trials_count_are_learned_from_and_not_served_again() -> None:
    first = run(searcher_of(Search(SPACE, {}, Budget(trials=40), 0), []))
    recorded = [Recorded(config, value(config), 10) for config in first]
    second = run(searcher_of(Search(SPACE, {}, Budget(trials=60), 0), recorded))
    assert len(second) == 20 and not set(second) & set(first)
    # no random beginning: it knows forty trials
    assert np.mean([value(config) for config in second]) > np.mean([value(config) for config in first[:10]]) + 0.1


def test_a_small_space_is_served_once_and_then_it_ends() -> None:
    small = {PAIR: Choice(("eye+ear",)), "D": Range(4, 9)}
    served = run(
        searcher_of(
            Search(small, {}, Budget(trials=50), 0), [Recorded(make_config({PAIR: "eye+ear", "D": 5}, {}), None, 3)]
        )
    )
    assert sorted(config.D for config in served) == [4, 6, 7, 8, 9]


def test_two_at_once_are_never_the_same() -> None:
    searcher = searcher_of(Search({PAIR: Choice(("eye+ear",)), "D": Range(4, 5)}, {}, Budget(trials=9), 0), [])
    first, second = (configuration(searcher.suggest(name)) for name in ("a", "b"))
    assert {first.D, second.D} == {4, 5}
    assert searcher.suggest("c") is None  # one of the two may yet free its place
    for name in ("a", "b"):
        searcher.on_trial_complete(name, {METRIC: 0.5, RESOURCE: 1})
    assert searcher.suggest("c") == Searcher.FINISHED


def test_a_failed_trial_teaches_nothing_and_is_not_served_again() -> None:
    searcher = searcher_of(Search(SPACE, {}, Budget(trials=2), 0), [])
    failed = configuration(searcher.suggest("a"))
    searcher.on_trial_result("a", {METRIC: 0.0})
    searcher.on_trial_complete("a", error=True)
    assert searcher.known == {failed.id: None} and configuration(searcher.suggest("b")) != failed


@pytest.mark.parametrize("number", [1, 2])
def test_the_same_seed_searches_the_same(number: int) -> None:
    one, other = (run(searcher_of(Search(SPACE, {}, Budget(trials=15), number), [])) for _ in range(2))
    assert one == other and one != run(searcher_of(Search(SPACE, {}, Budget(trials=15), 9), []))


def test_a_search_that_goes_on_from_its_records_proposes_what_it_would_have_proposed() -> None:
    whole = run(searcher_of(Search(SPACE, {}, Budget(trials=25), 0), []))
    for count in (3, 17):
        recorded = [Recorded(config, value(config), 10) for config in whole[:count]]
        assert run(searcher_of(Search(SPACE, {}, Budget(trials=25), 0), recorded)) == whole[count:]
