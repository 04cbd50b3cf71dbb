from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler

from mvsa_tune.config import Asha, Config, Replicate
from mvsa_tune.errors import InputError
from mvsa_tune.tune.scheduler import RecordedAsha, make_scheduler
from mvsa_tune.tune.trainable import METRIC, RESOURCE, Trial

CURVES = {
    f"{number:010x}": np.maximum.accumulate(np.random.default_rng(number).uniform(size=50)) for number in range(30)
}
NOBODY: Any = None


def live(scheduler: ASHAScheduler, asha: Asha, curves: dict[str, np.ndarray]) -> dict[str, int]:
    """Run trials one after another; return the epoch at which each ended."""
    ended = {}
    for trial_id, curve in curves.items():
        trial: Any = SimpleNamespace(trial_id=trial_id, config=None)
        scheduler.on_trial_add(NOBODY, trial)
        for epoch in [*asha.milestones(50), 50]:
            result = {RESOURCE: epoch, METRIC: curve[epoch - 1]}
            ended[trial_id] = epoch
            if scheduler.on_trial_result(NOBODY, trial, result) == TrialScheduler.STOP:
                break
        scheduler.on_trial_complete(NOBODY, trial, result)
    return ended


@pytest.mark.parametrize("brackets", [1, 2])
def test_rungs_rebuilt_from_what_is_recorded_are_those_that_were(brackets: int) -> None:
    asha = Asha(grace_period=2, reduction_factor=2, brackets=brackets)
    scheduler = RecordedAsha(asha, 50, {})
    ended = live(scheduler, asha, CURVES)
    assert len(set(ended.values())) > 2  # some stopped, some went on
    recorded = {trial: curve[: ended[trial]] for trial, curve in CURVES.items()}
    assert RecordedAsha(asha, 50, recorded).rungs() == scheduler.rungs()


def test_a_sweep_cut_in_two_decides_as_one_in_a_piece() -> None:
    asha = Asha(grace_period=2, reduction_factor=3)
    whole = live(RecordedAsha(asha, 50, {}), asha, CURVES)
    names = list(CURVES)
    first = live(RecordedAsha(asha, 50, {}), asha, {name: CURVES[name] for name in names[:11]})
    recorded = {name: CURVES[name][: first[name]] for name in names[:11]}
    second = live(RecordedAsha(asha, 50, recorded), asha, {name: CURVES[name] for name in names[11:]})
    assert first | second == whole
    # without the rungs of the first part it would have decided otherwise
    forgetful = live(RecordedAsha(asha, 50, {}), asha, {name: CURVES[name] for name in names[11:]})
    assert first | forgetful != whole


def test_the_decisions_are_those_of_tunes_asha() -> None:
    asha = Asha(grace_period=2, reduction_factor=3)
    plain = ASHAScheduler(time_attr=RESOURCE, metric=METRIC, mode="max", max_t=50, grace_period=2, reduction_factor=3)
    assert live(plain, asha, CURVES) == live(RecordedAsha(asha, 50, {}), asha, CURVES)


def test_a_configurations_bracket_is_the_same_after_a_restart_and_all_are_used() -> None:
    asha, used = Asha(grace_period=2, reduction_factor=2, brackets=3), set()
    for D in range(4, 40):
        config = Config(image_encoder="eye", text_encoder="ear", D=D)
        places = []
        for number in range(2):
            np.random.seed(number)
            scheduler = RecordedAsha(asha, 50, {})
            trial: Any = SimpleNamespace(trial_id=f"t{number}", config=Trial(config, (Replicate(42),)).to_tune())
            scheduler.on_trial_add(NOBODY, trial)
            places.append(scheduler._brackets.index(scheduler._trial_info[trial.trial_id]))
        assert places[0] == places[1]
        used.add(places[0])
    assert used == {0, 1, 2}


def test_seeds_added_to_a_configuration_are_never_stopped_and_enter_no_rung() -> None:
    asha = Asha(grace_period=2, reduction_factor=3)
    scheduler = RecordedAsha(asha, 50, CURVES)
    before = scheduler.rungs()
    added = Trial(Config(image_encoder="eye", text_encoder="ear"), (Replicate(42),), is_addition=True)
    trial: Any = SimpleNamespace(trial_id="t", config=added.to_tune())
    scheduler.on_trial_add(NOBODY, trial)
    for epoch in (2, 6, 18, 49):
        report = {RESOURCE: epoch, METRIC: -1.0}
        assert scheduler.on_trial_result(NOBODY, trial, report) == TrialScheduler.CONTINUE
    scheduler.on_trial_complete(NOBODY, trial, report)
    assert scheduler.rungs() == before


@pytest.mark.parametrize(
    ("asha", "epochs", "expected"),
    [
        (Asha(10, 3.0), 100, (10, 30, 90)),
        (Asha(1, 4.0), 16, (1, 4)),
        (Asha(3, 2.5), 20, (3, 8, 19)),
        (Asha(10, 3.0), 10, ()),
    ],
)
def test_trials_report_where_the_scheduler_looks_and_nowhere_else(
    asha: Asha, epochs: int, expected: tuple[int, ...]
) -> None:
    assert asha.milestones(epochs) == expected
    scheduler = make_scheduler(asha, epochs, {})
    if expected:
        looked = sorted(milestone for milestone in scheduler.rungs()[0] if milestone < epochs)
        assert tuple(int(np.ceil(milestone)) for milestone in looked) == expected
    else:
        assert isinstance(scheduler, FIFOScheduler)


def test_settings_that_cannot_work_are_refused() -> None:
    for wrong in ({"grace_period": 0}, {"reduction_factor": 1.0}, {"brackets": 0}):
        with pytest.raises(InputError, match="--"):
            Asha(**wrong)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="--brackets 4"):
        Asha(10, 3.0, brackets=4).milestones(100)
