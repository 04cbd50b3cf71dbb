"""Differences: against scipy's and statsmodels' tests, and how often they find what is not there."""

from itertools import combinations

import numpy as np
import pytest
from scipy import stats

from mvsa_tune.errors import InputError
from mvsa_tune.stats.intervals import Crossed
from mvsa_tune.stats.tests import MCNEMAR, PAIRED_T, Comparisons, Difference, family, holm, p_values
from simulated import case


def answers(seed: int, *shape: int, share: float = 0.7) -> np.ndarray:
    return np.random.default_rng(seed).random(shape) < share


def difference(first: np.ndarray, second: np.ndarray) -> Difference:
    return family([Crossed(first.astype(float) - second)])[0]


def test_one_replicate_is_tested_by_mcnemar() -> None:
    a, b = answers(0, 1, 60), answers(1, 1, 60, share=0.5)
    found = difference(a, b)
    only_a, only_b = int((a & ~b).sum()), int((~a & b).sum())
    assert found.test == MCNEMAR and found.p == pytest.approx(stats.binomtest(only_a, only_a + only_b).pvalue)
    assert found.interval.mean == pytest.approx(a.mean() - b.mean())
    assert difference(answers(0, 2, 60), answers(1, 2, 60)).test == PAIRED_T


def test_where_samples_are_all_that_varies_the_test_is_the_paired_t() -> None:
    """Replicates that all answer alike: N differences, and scipy's t of them."""
    a, b = (np.tile(answers(seed, 1, 80), (4, 1)) for seed in (2, 3))
    assert difference(a, b).p == pytest.approx(stats.ttest_rel(a[0].astype(float), b[0].astype(float)).pvalue)


def test_where_replicates_are_all_that_varies_the_test_is_the_paired_t() -> None:
    """All samples alike within a replicate: R differences, and scipy's t of them."""
    a, b = (np.random.default_rng(seed).random((6, 1)) * np.ones((6, 30)) for seed in (4, 5))
    assert difference(a, b).p == pytest.approx(stats.ttest_rel(a[:, 0], b[:, 0]).pvalue)


def test_the_interval_and_p_say_the_same() -> None:
    rng, agree = np.random.default_rng(6), []
    for _ in range(60):
        one = case(rng, np.array([0.76, 0.79]), 5, 400).right
        found = difference(*one)
        agree.append((found.p < 0.05) != (found.interval.low <= 0 <= found.interval.high))
    assert np.mean(agree) > 0.97


def test_equal_answers_do_not_differ() -> None:
    for seeds in (1, 3):
        one = answers(8, seeds, 50)
        found = difference(one, one)
        assert (found.interval.low, found.interval.high, found.p) == (0, 0, 1)


def test_p_is_holms_over_the_comparisons_made() -> None:
    configs = [answers(seed, 3, 100, share=0.5 + seed / 50) for seed in range(5)]
    found = family([Crossed(other.astype(float) - configs[0]) for other in configs[1:]])
    p = np.array(p_values([Crossed(other.astype(float) - configs[0]) for other in configs[1:]]))
    order = np.argsort(p)
    expected = np.minimum(1, np.maximum.accumulate(p[order] * [4, 3, 2, 1]))
    assert [found[k].corrected for k in order] == pytest.approx(expected.tolist())
    assert {one.comparisons for one in found} == {4} and family([]) == []


@pytest.mark.parametrize("seeds", [1, 3])
def test_all_pairs_at_once_are_what_each_is_alone(seeds: int) -> None:
    """One replicate's p is McNemar's of statsmodels, several replicates' that of the differences one by one."""
    configs = [answers(seed, seeds, 100, share=0.5 + seed / 20) for seed in range(5)] + [
        answers(0, seeds, 100, share=0.5)
    ]
    pairs = list(combinations(range(6), 2))
    every = Comparisons([array.astype(float) for array in configs])
    alone = p_values([Crossed(configs[i].astype(float) - configs[j]) for i, j in pairs])
    upper = np.triu_indices(6, 1)
    assert every.p[upper].tolist() == pytest.approx(alone) and every.count == 15
    assert every.corrected[upper].tolist() == pytest.approx(holm(alone).tolist())
    for (i, j), p in zip(pairs, alone, strict=True):
        there, back = every.difference(i, j), every.difference(j, i)
        assert there is not None and back is not None
        assert there.p == back.p == pytest.approx(p) and there.comparisons == 15
        assert (
            there.interval.mean
            == pytest.approx(configs[i].mean() - configs[j].mean())
            == pytest.approx(-back.interval.mean)
        )
        assert there.test == (MCNEMAR if seeds == 1 else PAIRED_T)
        assert (there.interval.low, there.interval.high) == pytest.approx(
            (-back.interval.high, -back.interval.low), abs=0.01
        )
    same = every.difference(0, 5)  # the same answers
    assert same is not None and same.p == 1


@pytest.mark.parametrize(("seeds", "samples"), [(1, 200), (5, 400)])
def test_where_nothing_differs_little_is_found(seeds: int, samples: int) -> None:
    """Five equal configurations: a false find in at most 6 %, within what 250 cases give in all but one of 10,000 tries.

    One replicate each: equal networks (no effect of the seed), which is what McNemar's test is of.
    """
    rng, fixed, chosen = np.random.default_rng(9), 0, 0
    for _ in range(250):
        one = case(rng, np.full(5, 0.76), seeds, samples, seed_std=0.008 if seeds > 1 else 0).right
        less = {(i, j): Crossed(one[i].astype(float) - one[j]) for i, j in combinations(range(5), 2)}
        p = dict(zip(less, p_values(list(less.values())), strict=True))
        fixed += min(p_values([less[0, other] for other in range(1, 5)])) * 4 < 0.05  # Holm's first step
        if min(p.values()) * 10 < 0.05:  # else his method finds nothing
            best = int(one.mean(axis=(1, 2)).argmax())
            chosen += min(less for pair, less in zip(p, holm(list(p.values())), strict=True) if best in pair) < 0.05
    most = stats.binom.ppf(0.9999, 250, 0.06)
    assert fixed <= most and chosen <= most


def test_what_was_scored_on_other_seeds_is_refused() -> None:
    with pytest.raises(InputError, match="same seeds and samples"):
        Comparisons([answers(0, 2, 10).astype(float), answers(0, 3, 10).astype(float)])
