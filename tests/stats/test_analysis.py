"""The analysis of a sweep: rows put together by hand, SciPy's numbers, and planted truths."""

from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar

from conftest import make_set, result_of
from mvsa_tune.api import Results
from mvsa_tune.config import Config, Replicate
from mvsa_tune.data.dataset import read_dataset
from mvsa_tune.data.splits import Split
from mvsa_tune.errors import InputError
from mvsa_tune.report.ending import ending
from mvsa_tune.report.page import drawings, page
from mvsa_tune.report.tables import table_rows
from mvsa_tune.results.store import Store
from mvsa_tune.stats.analysis import Analysis, analyse, by_seed, positions, validation_ratio, verdict
from mvsa_tune.stats.compare import compare
from mvsa_tune.stats.differences import MCNEMAR, REDRAWN_T, errors
from mvsa_tune.stats.importance import importances
from mvsa_tune.stats.questions import contrasts, questions
from mvsa_tune.training.result import Correctness, join
from test_store import sweep

LABELLED = 40


def recorded(
    folder: Path,
    shares: dict[Config, float],
    seeds: int = 5,
    parts: dict[int, list[int]] | None = None,
    by_seed: bool = False,
    only: dict[Config, list[Replicate]] | None = None,
) -> Store:
    """A sweep whose configurations are correct with a probability.

    `parts` are the validation rows of the folds; `only` the replicates of configurations that do not have all of them.
    """
    dataset = read_dataset(make_set(folder / "set", count=LABELLED))
    parts = parts or {0: list(range(LABELLED))}
    replicates = [Replicate(seed, fold) for seed in range(seeds) for fold in ([seed] if by_seed else parts)]
    rows = {fold: np.array(part) for fold, part in parts.items()}
    rest = {fold: np.setdiff1d(np.arange(LABELLED), part) for fold, part in rows.items()}
    split = Split("made", rest, rows, {fold: part[:0] for fold, part in rows.items()}, by_seed)
    about = sweep(dataset, configs=tuple(shares), replicates=tuple(replicates), split="made", folds=split.fold_digests)
    store = Store(folder / "sweep")
    store.begin(about, dataset, split)
    labels, rng = np.array(dataset.labels), np.random.default_rng(0)
    scored = [rows[replicate.fold][None] for replicate in replicates]
    longest = max(map(len, rows.values()))
    for config, share in shares.items():
        if not share:
            continue  # never trained
        wrong = rng.random((2, len(scored), longest)) > share
        results = {
            replicate: result_of(labels, own, (labels[own] + wrong[:, r : r + 1, : own.shape[1]]) % 3)
            for r, (replicate, own) in enumerate(zip(replicates, scored, strict=True))
        }
        has = (only or {}).get(config, replicates)
        store.add(config, has, join([results[replicate] for replicate in has]), {})
    store.end()
    return store


def configs(**axes: list[object]) -> list[Config]:
    from mvsa_tune.config import product

    return product({"epochs": [2], "pair": ["eye+ear"], **axes})


def answers_to(rows: list[list[int]]) -> Correctness:
    array = np.array(rows, dtype=np.int32)
    right = (array % 2 == 1) & (array >= 0)
    return Correctness(array, right.astype(np.float32), right, right)


def test_folds_of_a_seed_make_one_row_in_the_order_of_the_samples() -> None:
    replicates = [Replicate(seed, fold) for seed in (7, 8) for fold in (0, 1)]
    answers = answers_to([[4, 0, 2], [1, 3, -1], [2, 4, 0], [3, 1, -1]])
    places = positions(answers.rows, replicates, {7: {0, 1}, 8: {0, 1}})
    assert [answers.rows.ravel()[own].tolist() for own in places.values()] == [[0, 1, 2, 3, 4]] * 2
    assert by_seed(answers.best, places, redrawn=False).tolist() == [[0, 1, 0, 1, 0]] * 2
    assert list(positions(answers.rows, replicates, {7: {0, 1}, 8: {0, 1, 2}})) == [7]  # a fold of seed 8 is missing


def test_where_seeds_are_scored_on_others_each_is_its_accuracy() -> None:
    answers = answers_to([[1, 2, 3], [2, 5, -1]])
    part = {0: np.arange(3), 1: np.arange(2)}
    split = Split("made", {0: np.arange(6), 1: np.arange(8)}, part, part, by_seed=True)
    places = positions(answers.rows, [Replicate(0, 0), Replicate(1, 1)], {0: {0}, 1: {1}})
    assert validation_ratio(split) == pytest.approx((3 / 6 + 2 / 8) / 2)
    assert by_seed(answers.best, places, redrawn=True).tolist() == [[pytest.approx(2 / 3)], [0.5]]


def test_the_best_is_distinguished_from_what_is_far_behind_and_not_from_its_like(tmp_path: Path) -> None:
    best, like, far = configs(D=[8, 16, 32])
    analysis = analyse(recorded(tmp_path, {far: 0.3, like: 0.85, best: 0.85}))
    names = [scored.config for scored in analysis.ranked]
    assert names[2] == far and set(names[:2]) == {best, like}
    assert [scored.config for scored in analysis.may_be_best()] == [names[1]]
    assert analysis.against_best[far.id].adjusted < 0.01 and analysis.against_best[far.id].low > 0
    first = analysis.ranked[0]
    assert (
        first.cross_fitted is not None
        and first.best is not None
        and first.cross_fitted.low < first.cross_fitted.mean < first.best.mean
    )
    assert analysis.winner is not None and analysis.winner.corrected <= first.cross_fitted.mean
    assert analysis.budget[-1] == pytest.approx(first.values.mean()) and len(analysis.budget) == 3
    page = " ".join(verdict(analysis))
    assert f"**{names[0].name}**" in page and "1 of the other 2 may be the best as well (95 %)" in page
    summary = analysis.with_intervals().set_index("trial_id")
    assert (
        summary.loc[far.id, "val_acc_best_low"]
        < summary.loc[far.id, "val_acc_best_mean"]
        < summary.loc[far.id, "val_acc_best_high"]
    )
    assert summary.loc[far.id, "behind_best"] == pytest.approx(
        first.values.mean() - analysis.scored[far.id].values.mean()
    )


def test_one_replicate_is_compared_by_mcnemar(tmp_path: Path) -> None:
    config, other = configs(D=[8, 16])
    analysis = analyse(recorded(tmp_path, {config: 0.9, other: 0.5}, seeds=1))
    less = analysis.against_best[other.id]
    first, second = (np.round(scored.values[0] + 1e-9) for scored in analysis.ranked)
    table = [[0, ((first == 1) & (second == 0)).sum()], [((first == 0) & (second == 1)).sum(), 0]]
    assert less.test == MCNEMAR and less.p == pytest.approx(mcnemar(table, exact=True).pvalue)


def test_draws_of_the_samples_are_compared_by_the_corrected_t(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    parts = {seed: sorted(rng.choice(LABELLED, 10, replace=False).tolist()) for seed in range(4)}
    config, other = configs(D=[8, 16])
    analysis = analyse(recorded(tmp_path, {config: 0.95, other: 0.4}, seeds=4, parts=parts, by_seed=True))
    assert not analysis.comparable and analysis.winner is None and analysis.questions == ()
    gap = (analysis.ranked[0].values - analysis.ranked[1].values)[:, 0]
    t = gap.mean() / np.sqrt(gap.var(ddof=1) * (1 / 4 + 10 / 30))
    less = analysis.against_best[other.id]
    assert less.test == REDRAWN_T and less.p == pytest.approx(2 * stats.t.sf(t, 3))
    interval = analysis.ranked[0].cross_fitted
    assert interval is not None and "other draws" in interval.holds_for


def test_the_answer_says_of_how_many_seeds_and_folds_it_is_where_the_table_counts_replicates(tmp_path: Path) -> None:
    parts = {0: list(range(20)), 1: list(range(20, LABELLED))}
    shares = dict(zip(configs(D=[8, 16]), (0.9, 0.7), strict=True))
    for folds, said, count in ((parts, "3 seeds × 2 folds", 6), (None, "3 seeds", 3)):
        analysis = analyse(recorded(tmp_path / said, shares, seeds=3, parts=folds))
        assert f"; {said})" in verdict(analysis)[0] and f"; {said})" in page(analysis, drawings(analysis), None)
        assert f"; {said})" in repr(Results(analysis.store.folder))
        text = ending(analysis)
        assert f"({said})" in text.splitlines()[1] and set(analysis.summary["n"]) == {count}
        assert "(n " not in text


def test_folds_are_one_cross_validation_a_seed(tmp_path: Path) -> None:
    parts = {0: list(range(20)), 1: list(range(20, 40))}
    analysis = analyse(recorded(tmp_path, dict.fromkeys(configs(D=[8, 16]), 0.8), seeds=3, parts=parts))
    assert analysis.comparable and analysis.ranked[0].values.shape == (3, 40)


def test_questions_compare_configurations_that_differ_in_one_respect() -> None:
    grid = configs(D=[8, 16], batch_size=[32, 512], ablation=[0, 1])[:-1]
    contrast_of = {contrast.text: contrast for contrast in contrasts(grid)}
    assert set(contrast_of) == {"Batch size 32 or 512?", "Does fusion beat the text alone?", "D 8 or 16?"}
    for text, fields in {"Batch size 32 or 512?": ["batch_size"], "D 8 or 16?": ["D"]}.items():
        assert len(contrast_of[text].pairs) == 3
        for i, j in contrast_of[text].pairs:
            assert [name for name, value in vars(grid[i]).items() if getattr(grid[j], name) != value] == fields
    assert all(
        grid[i].ablation == 0 and grid[j].ablation == 1
        for i, j in contrast_of["Does fusion beat the text alone?"].pairs
    )


def test_sharing_a_batchnorm_is_asked_of_both_modalities_alone() -> None:
    grid = configs(D=[8, 16], head=["concat", "concat-shared-norm"], ablation=[0, 1, 2])
    (asked,) = [contrast for contrast in contrasts(grid) if "head" in contrast.first]
    assert asked.text == "What did sharing one BatchNorm cost?" and len(asked.pairs) == 2
    for i, j in asked.pairs:
        assert (grid[i].head, grid[j].head) == ("concat", "concat-shared-norm") and grid[i].ablation == 0


def test_many_values_are_each_compared_with_the_reference() -> None:
    heads = ["linear", "late", "concat", "gated", "bilinear"]
    compared = contrasts(configs(head=heads, D=[8]))
    assert {(contrast.first, contrast.second) for contrast in compared} == {
        (f"head {name}", "head concat") for name in heads if name != "concat"
    }
    assert not list(contrasts(configs(lr=[10.0**-n for n in range(1, 20)])))


def test_a_planted_difference_is_answered_and_no_difference_is_not() -> None:
    grid, rng = configs(D=[8, 16], batch_size=[32, 512]), np.random.default_rng(3)
    values = [(rng.random((5, 400)) < (0.85 if config.batch_size == 32 else 0.7)).astype(float) for config in grid]
    answers = {question.text: question.answer for question in questions(grid, errors(values))}
    assert answers["Batch size 32 or 512?"].startswith("Batch size 32 is better than batch size 512")
    assert answers["D 8 or 16?"].startswith("They cannot be distinguished") and "over 2 pairs" in answers["D 8 or 16?"]


def test_importance_finds_what_matters_and_says_how_sure_it_is() -> None:
    grid, rng = configs(D=[8, 16, 32], lr=[1e-4, 1e-3], dropout=[0.1, 0.3]), np.random.default_rng(4)
    values = np.stack([(rng.random((5, 200)) < (0.8 if config.lr == 1e-3 else 0.6)) for config in grid]).astype(float)
    shares = importances(grid, values)
    assert (
        shares[0].name == "lr"
        and shares[0].mean > 0.7
        and {importance.name for importance in shares} == {"lr", "D", "dropout"}
    )
    assert all(share.low <= share.mean <= share.high and share.std >= 0 for share in shares)
    assert sum(share.mean for share in shares) == pytest.approx(1) and importances(grid[:3], values[:3]) == ()
    assert importances(grid, values) == shares


def test_the_csv_holds_the_tables_numbers(tmp_path: Path) -> None:
    shares = dict(zip(configs(D=[8, 16, 32]), (0.9, 0.6, 0.3), strict=True))
    analysis = analyse(recorded(tmp_path, shares))
    numbers, summary = (frame.set_index("trial_id") for frame in (table_rows(analysis), analysis.summary))
    for trial, scored in analysis.scored.items():
        line = numbers.loc[trial]
        assert scored.best is not None and line["val_acc_best_mean"] == summary.loc[trial, "val_acc_best_mean"]
        assert (line["val_acc_best_low"], line["val_acc_best_high"]) == (scored.best.low, scored.best.high)
        assert line["val_acc_best_mean"] == pytest.approx(scored.best.mean, abs=1e-12)
        assert line["behind_best"] == pytest.approx(analysis.ranked[0].values.mean() - scored.values.mean())
    assert numbers["p_best"].dropna().between(0, 1).all() and numbers["p_best"].notna().sum() == 2


def test_two_sweeps_are_compared_on_what_both_have(tmp_path: Path) -> None:
    config, other, third = configs(D=[8, 16, 32])
    first = recorded(tmp_path / "a", {config: 0.5, other: 0.6})
    second = recorded(tmp_path / "b", {config: 0.9, third: 0.2}, seeds=7)
    page = compare(first, second)
    line = next(line for line in page.splitlines() if line.startswith(f"| {config.name} "))
    left, right = (analyse(store).scored[config.id].values for store in (first, second))
    assert f"{right[:5].mean() - left.mean():+.4f}" in line
    assert f"−{right[:5].mean() - left.mean():.4f}" in compare(second, first)
    assert (
        "the best of each" in page and third.name not in page and "seeds 0, 1, 2, 3, 4, 40 validation samples" in page
    )


def test_sweeps_that_cannot_be_compared_say_why(tmp_path: Path) -> None:
    shares = {configs()[0]: 0.5}
    whole = recorded(tmp_path / "a", shares)
    part = recorded(tmp_path / "b", shares, parts={0: list(range(10))})
    with pytest.raises(InputError, match=r"scored on other samples: 40 and 10, 10 of them the same"):
        compare(whole, part)
    empty = recorded(tmp_path / "c", dict.fromkeys(shares, 0.0))
    with pytest.raises(InputError, match="no configuration that was trained to its end"):
        compare(whole, empty)
    assert isinstance(analyse(empty), Analysis) and verdict(analyse(empty)) == []
