"""Configurations with different seeds: own intervals, comparisons on the seeds that both have, none without."""

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from mvsa_tune.cli import main
from mvsa_tune.config import Replicate
from mvsa_tune.errors import InputError
from mvsa_tune.report.tables import table_rows, tables_markdown
from mvsa_tune.results.store import Store
from mvsa_tune.stats.analysis import analyse, verdict
from mvsa_tune.stats.compare import compare
from mvsa_tune.stats.error_analysis import write_errors
from mvsa_tune.stats.importance import importances
from mvsa_tune.stats.intervals import accuracy
from mvsa_tune.stats.questions import questions
from mvsa_tune.stats.selection import winner
from mvsa_tune.stats.tests import MCNEMAR, PAIRED_T, REDRAWN_T, Comparisons, holm
from mvsa_tune.training.result import take
from test_analysis import LABELLED, configs, recorded


def of_seeds(*seeds: int) -> list[Replicate]:
    return [Replicate(seed) for seed in seeds]


def of_draws(*seeds: int) -> list[Replicate]:
    return [Replicate(seed, seed) for seed in seeds]


@pytest.mark.long
def test_each_pair_is_tested_on_its_common_seeds() -> None:
    rng = np.random.default_rng(0)
    seeds = [(0, 1, 2), (2, 0, 1, 3, 4), (0, 1, 2), (3, 4), (7, 8), (4, 3, 2, 1, 0)]
    values = [(rng.random((len(own), 40)) < 0.5 + k / 20).astype(float) for k, own in enumerate(seeds)]
    every = Comparisons(values, seeds)
    tested = {}
    for i, j in combinations(range(6), 2):
        common = [seed for seed in seeds[i] if seed in seeds[j]]
        result = every.difference(i, j)
        if not common:
            assert result is None and np.isnan(every.p[i, j]) and np.isnan(every.corrected[i, j])
            continue
        # The degrees of freedom come from all that have these seeds.
        members = [k for k, own in enumerate(seeds) if set(common) <= set(own)]
        shared = [values[k][[seeds[k].index(seed) for seed in common]] for k in members]
        alone = Comparisons(shared)
        expected = alone.difference(members.index(i), members.index(j))
        assert result is not None and expected is not None and result.interval.n == len(common)
        assert result.p == pytest.approx(expected.p) and result.interval.mean == pytest.approx(expected.interval.mean)
        tested[i, j] = result
    corrected = holm([result.p for result in tested.values()])
    assert [result.corrected for result in tested.values()] == pytest.approx(corrected.tolist())
    assert {result.comparisons for result in tested.values()} == {every.count} == {len(tested)} and len(tested) == 8


def test_where_all_have_the_same_seeds_naming_them_changes_nothing() -> None:
    values = [np.random.default_rng(k).random((3, 50)).round() for k in range(5)]
    named, unnamed = Comparisons(values, [(5, 6, 7)] * 5), Comparisons(values)
    np.testing.assert_array_equal(named.p, unnamed.p)
    np.testing.assert_array_equal(named.corrected, unnamed.corrected)
    assert named.difference(0, 4) == unnamed.difference(0, 4)


def test_a_pair_that_shares_one_seed_is_tested_by_mcnemar() -> None:
    values = [(np.random.default_rng(k).random((3, 60)) < 0.6).astype(float) for k in range(3)]
    every = Comparisons(values, [(0, 1, 2), (2, 3, 4), (0, 1, 2)])
    single, several = every.difference(0, 1), every.difference(0, 2)
    assert single is not None and several is not None and (single.test, several.test) == (MCNEMAR, PAIRED_T)
    first, second = values[0][2], values[1][0]
    alone = int(((first == 1) & (second == 0)).sum()), int(((first == 0) & (second == 1)).sum())
    assert single.p == pytest.approx(stats.binomtest(alone[0], sum(alone)).pvalue) and single.interval.n == 1


def test_each_configuration_has_the_interval_of_all_its_seeds_and_comparisons_of_the_common_ones(
    tmp_path: Path,
) -> None:
    best, few, apart = configs(D=[8, 16, 32])
    only = {best: of_seeds(0, 1, 2, 3, 4), few: of_seeds(1, 2), apart: of_seeds(5, 6)}
    analysis = analyse(recorded(tmp_path, {best: 0.95, few: 0.7, apart: 0.4}, seeds=7, only=only))
    assert [scored.config for scored in analysis.ranked] == [best, few, apart]
    for scored, seeds in zip(analysis.ranked, (range(5), (1, 2), (5, 6)), strict=True):
        assert scored.seeds == tuple(seeds) and scored.cross_fitted == accuracy(scored.values)
        assert scored.cross_fitted is not None and scored.cross_fitted.n == len(seeds)
    assert set(analysis.against_best) == {few.id}
    difference = analysis.against_best[few.id]
    first, second = (scored.values for scored in analysis.ranked[:2])
    assert difference.interval.n == 2 and difference.interval.mean == pytest.approx((first[1:3] - second).mean())
    assert analysis.winner is None and analysis.importance == ()
    words = " ".join(verdict(analysis))
    assert "Not compared, as they share no seed with it: 1." in words and "of the other 1" in words
    summary = analysis.with_intervals().set_index("trial_id")
    assert summary["n"].to_dict() == {best.id: 5, few.id: 2, apart.id: 2}
    assert np.isnan(summary.loc[apart.id, "p"]) and summary.loc[few.id, "p"] == difference.p
    rows = table_rows(analysis).set_index("trial_id")
    assert np.isnan(rows.loc[apart.id, "p"]) and rows.loc[few.id, "p"] == difference.p
    line = next(line for line in tables_markdown(analysis).splitlines() if "| 32 " in line)
    assert "| – " in line and ", p " not in line


@pytest.mark.long
def test_luck_importance_and_questions_use_the_seeds_that_all_have_and_say_so(tmp_path: Path) -> None:
    grid = configs(D=[8, 16], lr=[1e-4, 1e-3])
    only = {grid[0]: of_seeds(4, 0, 1), grid[3]: of_seeds(0, 1, 2)}
    shares = dict(zip(grid, (0.8, 0.7, 0.6, 0.5), strict=True))
    store = recorded(tmp_path, shares, only=only)
    analysis = analyse(store)
    common = [scored.values[[scored.seeds.index(seed) for seed in (0, 1)]] for scored in analysis.ranked]
    ranked = [scored.config for scored in analysis.ranked]
    assert analysis.winner == winner(common) and analysis.importance == importances(ranked, np.stack(common))
    assert analysis.common_seeds == "on the seeds that all configurations have (0, 1)"
    words = "\n".join(verdict(analysis))
    assert f"On the seeds that all configurations have (0, 1) the best is {ranked[analysis.winner.index].name}" in words
    assert all("on the seeds that all of these have (0, 1)" in question.answer for question in analysis.questions)
    plain = {question.text: question.difference for question in questions(ranked, common)}
    assert {question.text: question.difference for question in analysis.questions} == plain and len(plain) == 2
    same = analyse(recorded(tmp_path / "same", shares))
    assert same.common_seeds == "" and "On the seeds" not in "\n".join(verdict(same))


def test_a_seed_counts_where_all_its_folds_are_there(tmp_path: Path) -> None:
    parts = {0: list(range(20)), 1: list(range(20, 40))}
    whole, half, none = configs(D=[8, 16, 32])
    only = {half: [Replicate(0, 0), Replicate(0, 1), Replicate(1, 0)], none: [Replicate(2, 1)]}
    shares = {whole: 0.9, half: 0.8, none: 0.7}
    analysis = analyse(recorded(tmp_path, shares, seeds=3, parts=parts, only=only))
    assert [scored.config for scored in analysis.ranked] == [whole, half] and analysis.comparable
    assert analysis.ranked[1].seeds == (0,) and analysis.ranked[1].values.shape == (1, LABELLED)
    assert analysis.against_best[half.id].test == MCNEMAR
    assert analysis.scored[none.id].seeds == () and analysis.scored[none.id].cross_fitted is None
    assert tables_markdown(analysis)


def test_draws_of_the_samples_are_compared_on_common_seeds(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    parts = {seed: sorted(rng.choice(LABELLED, 10, replace=False).tolist()) for seed in range(5)}
    best, few, single = configs(D=[8, 16, 32])
    only = {few: of_draws(0, 1, 3), single: of_draws(4)}
    analysis = analyse(
        recorded(tmp_path, {best: 0.95, few: 0.4, single: 0.4}, seeds=5, parts=parts, by_seed=True, only=only)
    )
    assert analysis.ranked[0].config == best and set(analysis.against_best) == {few.id}
    values = {scored.config: scored.values[:, 0] for scored in analysis.ranked}
    gap = values[best][[0, 1, 3]] - values[few]
    t = gap.mean() / np.sqrt(gap.var(ddof=1) * (1 / 3 + 10 / 30))
    difference = analysis.against_best[few.id]
    assert difference.test == REDRAWN_T and difference.p == pytest.approx(2 * stats.t.sf(t, 2))
    assert difference.comparisons == 1 and difference.corrected == difference.p
    assert analysis.scored[single.id].cross_fitted is None and "share no seed" in " ".join(verdict(analysis))


def test_two_sweeps_are_compared_trial_by_trial_on_common_seeds(tmp_path: Path) -> None:
    first_config, other = configs(D=[8, 16])
    first = recorded(tmp_path / "a", {first_config: 0.5, other: 0.6}, only={other: of_seeds(0, 1)})
    second = recorded(
        tmp_path / "b", {first_config: 0.9, other: 0.8}, only={first_config: of_seeds(3, 4, 0), other: of_seeds(2, 3)}
    )
    page = compare(first, second)
    lines = {line.split("|")[1].strip(): line for line in page.splitlines() if line.startswith("|")}
    left, right = (analyse(store).scored[first_config.id].values for store in (first, second))
    assert f"{right.mean() - left[[3, 4, 0]].mean():+.4f}" in lines[first_config.name]
    assert lines[other.name].count("–") == 6 and "(each pair those that both have)" in page
    alone = recorded(tmp_path / "c", {other: 0.8}, only={other: of_seeds(2, 3)})
    with pytest.raises(InputError, match=r"share no seed \(0, 1 and 2, 3\)"):
        compare(recorded(tmp_path / "d", {other: 0.6}, only={other: of_seeds(0, 1)}), alone)


def test_modalities_are_compared_on_the_replicates_that_all_three_have(tmp_path: Path) -> None:
    parts = {seed: list(range(3 * seed, 5 * seed + 10)) for seed in range(4)}  # 10 to 16 samples
    both, text, image = configs(ablation=[0, 1, 2])
    shares = {both: 0.8, text: 0.7, image: 0.6}
    only = {both: of_draws(0, 1, 2, 3), text: of_draws(1, 2, 0), image: of_draws(2, 1)}
    store = recorded(tmp_path / "a", shares, seeds=4, parts=parts, by_seed=True, only=only)
    page = write_errors(store, both)
    assert "means over the 2 replicates that all three have" in page
    labels, correct, sizes = store.samples()["label"].to_numpy(), {}, []
    for config in shares:
        result, has = store.result(config.id), store.replicates(config.id)
        own = [has.index(replicate) for replicate in of_draws(1, 2)]
        correct[config] = ((result.best == labels[result.rows]) & (result.rows >= 0))[own][:, :14]
        sizes.append((result.rows[own] >= 0).sum())
    agree = correct[text] & correct[image]
    line = next(line for line in page.split("alone\n")[-1].splitlines() if line.startswith("| both "))
    cells = [f"{agree.sum() / 2:.1f}", f"{agree.sum() / sizes[0]:.3f}", f"{correct[both][agree].mean():.3f}"]
    assert [cell.strip() for cell in line.split("|")[2:5]] == cells and set(sizes) == {26}
    apart = recorded(tmp_path / "b", shares, only={text: of_seeds(0), image: of_seeds(1)})
    assert "have no seed in common" in write_errors(apart, both)


def test_a_sweep_that_grew_has_the_numbers_of_one_that_did_not(tmp_path: Path) -> None:
    grid = configs(D=[8, 16, 32, 64])
    shares = dict(zip(grid, (0.9, 0.8, 0.7, 0.6), strict=True))
    whole = recorded(tmp_path / "whole", shares)
    grown = recorded(tmp_path / "grown", shares, only=dict.fromkeys(grid, of_seeds(0, 1, 2)))
    again = Store(grown.folder)
    for config in grid:
        again.add(config, of_seeds(3, 4), take(whole.result(config.id), [3, 4]), {})
    first, second = (analyse(Store(store.folder)).with_intervals() for store in (whole, grown))
    numbers = first.select_dtypes("number").drop(columns="seconds")
    np.testing.assert_array_equal(numbers, second[numbers.columns])


def test_the_commands_take_a_sweep_with_different_seeds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    grid = configs(D=[8, 16], lr=[1e-4, 1e-3])
    shares = dict(zip(grid, (0.9, 0.8, 0.7, 0.6), strict=True))
    store = recorded(tmp_path, shares, only={grid[0]: of_seeds(0, 1), grid[1]: of_seeds(3)})
    assert main(["report", str(store.folder)]) == 0 and main(["errors", str(store.folder)]) == 0
    assert "replicates, each at its best epoch" in capsys.readouterr().out
