"""Configurations with different seeds: each counts with all of its own; draws are compared where they are shared."""

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
from mvsa_tune.stats.differences import REDRAWN_T, errors
from mvsa_tune.stats.error_analysis import write_errors
from mvsa_tune.stats.importance import importances
from mvsa_tune.stats.intervals import accuracy
from mvsa_tune.stats.questions import questions
from mvsa_tune.stats.selection import winner
from mvsa_tune.training.result import take
from test_analysis import LABELLED, configs, recorded


def of_seeds(*seeds: int) -> list[Replicate]:
    return [Replicate(seed) for seed in seeds]


def of_draws(*seeds: int) -> list[Replicate]:
    return [Replicate(seed, seed) for seed in seeds]


def test_each_configuration_is_compared_with_all_its_seeds(tmp_path: Path) -> None:
    best, few, apart = configs(D=[8, 16, 32])
    only = {best: of_seeds(0, 1, 2, 3, 4), few: of_seeds(1, 2), apart: of_seeds(5, 6)}
    analysis = analyse(recorded(tmp_path, {best: 0.95, few: 0.7, apart: 0.4}, seeds=7, only=only))
    assert [scored.config for scored in analysis.ranked] == [best, few, apart]
    for scored, seeds in zip(analysis.ranked, (range(5), (1, 2), (5, 6)), strict=True):
        assert scored.seeds == tuple(seeds) and scored.cross_fitted == accuracy(scored.values)
        assert scored.cross_fitted is not None and scored.cross_fitted.n == len(seeds)
    assert set(analysis.against_best) == {few.id, apart.id}
    values = [scored.values for scored in analysis.ranked]
    gap, error, _ = errors(values).pairs
    difference = analysis.against_best[few.id]
    assert (difference.mean, difference.error) == (pytest.approx(gap[0, 1]), pytest.approx(error[0, 1]))
    assert difference.mean == pytest.approx(values[0].mean() - values[1].mean()) and analysis.importance == ()
    summary = analysis.with_intervals().set_index("trial_id")
    assert summary["n"].to_dict() == {best.id: 5, few.id: 2, apart.id: 2}
    rows = table_rows(analysis).set_index("trial_id")
    assert summary.loc[few.id, "p"] == rows.loc[few.id, "p"] == difference.p


@pytest.mark.long
def test_luck_and_importance_use_the_seeds_that_all_have_and_say_so(tmp_path: Path) -> None:
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
    plain = questions(ranked, errors([scored.values for scored in analysis.ranked]))  # with all seeds of each
    assert analysis.questions == plain and len(plain) == 2
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
    assert set(analysis.against_best) == {half.id}
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
    assert difference.adjusted == pytest.approx(difference.p, abs=0.02)
    assert analysis.scored[single.id].cross_fitted is None and "share too few draws" in " ".join(verdict(analysis))


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
