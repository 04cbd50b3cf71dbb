"""What a sweep can see: by hand, and against simulated sweeps."""

import math

import numpy as np
import pytest
from scipy import stats

from mvsa_tune.stats.best import behind_best
from mvsa_tune.stats.differences import ALPHA, errors
from mvsa_tune.stats.power import Power, power_of
from simulated import TRUTH, case

MADE = Power(seeds=3, samples=400, labelled=4000, comparisons=1, of_samples=0.05, of_answers=0.03, of_seeds=1e-4)


def test_the_smallest_difference_is_that_of_a_two_sided_test_with_power_0_8() -> None:
    variance = (0.05 + 0.03 / 3) / 400 + 1e-4 / 3
    assert MADE.smallest() == pytest.approx((1.959964 + 0.841621) * math.sqrt(variance), rel=1e-5)


def test_what_a_difference_takes_is_just_enough() -> None:
    for difference in (0.04, 0.035):
        seeds, samples = MADE.seeds_for(difference), MADE.samples_for(difference)
        assert seeds is not None and samples is not None
        assert MADE.smallest(seeds=seeds) <= difference < MADE.smallest(seeds=seeds - 1)
        assert MADE.smallest(samples=samples) <= difference < MADE.smallest(samples=samples - 1)
    assert MADE.seeds_for(0.01) is None  # 400 samples do not show it
    assert "more seeds do not help (3.1 points at best)" in MADE.takes(0.01)
    assert "already" in MADE.takes(0.2) and "With 3 seeds on 400 samples" in MADE.sees()


@pytest.mark.long
def test_simulated_sweeps_find_it_8_times_in_10() -> None:
    rng, found = np.random.default_rng(1), []
    sweeps = [case(rng, np.full(5, TRUTH), 5, 400).correct.astype(float) for _ in range(20)]
    smallest = [power.smallest() for values in sweeps if (power := power_of(errors(list(values)), 400))]
    truth = np.array([TRUTH] + [TRUTH - float(np.median(smallest))] * 4)
    for _ in range(100):
        values = case(rng, truth, 5, 400).correct.astype(float)
        order = np.argsort(-values.mean(axis=(1, 2)))
        differences = behind_best(errors(list(values[order])))
        found += [d.adjusted < ALPHA for d, k in zip(differences, order, strict=True) if k]
    assert stats.binom.ppf(0.001, 100, 0.8) / 100 < np.mean(found) < 0.97


def test_a_single_configuration_has_no_power() -> None:
    assert power_of(errors([np.ones((3, 10))]), 10) is None
