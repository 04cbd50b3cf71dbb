"""What a sweep can see: by hand, and against simulated sweeps."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from mvsa_tune.cli import main
from mvsa_tune.stats.analysis import analyse, verdict
from mvsa_tune.stats.best import behind_best
from mvsa_tune.stats.differences import ALPHA, errors
from mvsa_tune.stats.power import TYPICAL, Power, power_of
from mvsa_tune.sweeps import GRID
from simulated import TRUTH, case
from test_analysis import configs, recorded

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


@pytest.mark.parametrize(
    ("power", "lacking", "takes"),
    [
        (replace(MADE, of_samples=0.002, of_seeds=2e-4), "seeds to tell more (3)", "seeds on these samples"),
        (replace(MADE, of_seeds=1e-6), "samples to tell more (400)", "more seeds do not help"),
        (MADE, "samples to tell more (400)", "more seeds do not help"),  # more samples alone neither
        (replace(MADE, seeds=1, of_answers=0.0, of_seeds=0.0), "seeds to tell more (1)", "more seeds, as one"),
    ],
)
def test_what_a_sweep_lacks_is_what_it_takes(power: Power, lacking: str, takes: str) -> None:
    assert power.lacking(0.01) == lacking
    assert takes in power.takes(0.01)


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


def test_a_command_says_what_a_recorded_sweep_can_see(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = recorded(tmp_path, dict(zip(configs(D=[8, 16, 32]), (0.9, 0.8, 0.7), strict=True)))
    power = analyse(store).power
    assert power is not None and (power.seeds, power.samples, power.labelled, power.comparisons) == (5, 40, 40, 2)
    assert main(["power", str(store.folder), "--difference", "0.05"]) == 0
    assert capsys.readouterr().out == f"{power.sees()}\n{power.takes(0.05)}\n"
    assert power.sees() in verdict(analyse(store))[2]
    assert main(["power", str(store.folder), "--difference", "5"]) == 2
    assert "0.01 for a point" in capsys.readouterr().err


def test_a_dry_run_says_what_the_sweep_would_see(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = recorded(tmp_path / "earlier", dict(zip(configs(D=[8, 16, 32]), (0.9, 0.8, 0.7), strict=True)))
    known = analyse(store).power
    assert known is not None
    flags = ["--data", tiny, "--pairs", "eye+ear", "--D", 4, 8, "--epochs", 2, "--dry-run"]
    for source, variances in ([], TYPICAL), (["--like", store.folder], known):
        assert GRID.main([*map(str, flags), "--seeds", "7", *map(str, source)]) == 0
        expected = replace(variances, seeds=7, samples=4, labelled=40, comparisons=1)
        assert expected.sees() in capsys.readouterr().out
