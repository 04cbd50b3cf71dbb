"""The comparison of heads: intervals against exact moments and a simulation, Holm's correction against statsmodels."""

from pathlib import Path

import numpy as np
import pytest

import heads_compared
from conftest import make_set
from heads_compared import holm, p_value, resampled
from mvsa_tune.config import Config, Replicate
from mvsa_tune.dataset import read_dataset
from mvsa_tune.errors import InputError
from mvsa_tune.store import Store
from test_store import CONFIGS, outcome, outcome_of, sweep


def crossed(rng: np.random.Generator, seeds: int, samples: int) -> np.ndarray:
    """Differences of mean 0 with an effect of the seed, one of the sample, and noise."""
    return rng.normal(size=(seeds, 1)) / 5 + rng.normal(size=(1, samples)) + rng.normal(size=(seeds, samples))


def test_seeds_and_samples_are_both_drawn_again() -> None:
    differences = crossed(np.random.default_rng(1), 6, 40) + 0.3
    means = resampled(differences, 200_000)
    # E[mean²] = tr(E[pp'] D E[qq'] D'), for shares p of seeds and q of samples from multinomials
    rows, columns = ((np.eye(n) + (1 - 1 / n)) / n**2 for n in differences.shape)
    second = np.trace(rows @ differences @ columns @ differences.T)
    assert means.mean() == pytest.approx(differences.mean(), abs=0.003)
    assert means.var() == pytest.approx(second - differences.mean() ** 2, rel=0.02)


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(2)
    tries = [resampled(crossed(rng, 10, 60), 1000) for _ in range(300)]
    held = np.mean([np.quantile(one, 0.025) <= 0 <= np.quantile(one, 0.975) for one in tries])
    assert 0.91 <= held <= 1
    assert np.mean([p_value(one) < 0.05 for one in tries]) <= 0.09


def test_p_is_the_level_at_which_the_interval_touches_zero() -> None:
    means = np.arange(1000) / 1000 - 0.0095  # ten of them are below 0
    assert p_value(means) == p_value(-means) == pytest.approx(2 * 11 / 1001)
    assert p_value(means + 1) == pytest.approx(2 / 1001) and p_value(np.zeros(10)) == 1


def test_holm_is_holms() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])  # by hand
    multitest = pytest.importorskip("statsmodels.stats.multitest")
    for given in np.random.default_rng(0).uniform(size=(50, 7)) ** 3:
        assert holm(given.tolist()) == pytest.approx(multitest.multipletests(given, method="holm")[1].tolist())


def test_heads_are_compared_on_their_own_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Three heads whose accuracies are known, and a configuration that stands alone."""
    dataset = read_dataset(make_set(tmp_path / "set"))
    seeds = tuple(Replicate(seed) for seed in (1, 2, 3))
    configs = [Config("eye", "ear", head=head, D=8, epochs=2) for head in ("late", "concat", "linear")]
    configs += [Config("eye", "ear", D=16, epochs=2)]
    store = Store(tmp_path / "sweep")
    store.begin(sweep(dataset, configs=tuple(configs), replicates=seeds), dataset)
    rows, labels = np.tile(np.arange(10, 20), (3, 1)), np.array(dataset.labels)
    wrong = {"best": {"late": 2, "concat": 4, "linear": 4}, "last": {"late": 5, "concat": 4, "linear": 3}}
    for config in configs:
        said = {which: np.copy(labels[rows]) for which in wrong}
        for which, counts in wrong.items():
            for seed, line in enumerate(said[which]):
                line[: counts[config.head] + seed] = (line[: counts[config.head] + seed] + 1) % 3
        store.add(config, outcome_of(labels, rows, **said), {})
    assert heads_compared.main(store.folder) == 0
    page = capsys.readouterr().out
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in page.splitlines() if line.startswith("| `")]
    assert [line[:4] for line in lines] == [
        ["`late`", "0.7000 ± 0.1000", "3", "+0.2000"],
        ["`concat`", "0.5000 ± 0.1000", "3", "–"],
        ["`linear`", "0.5000 ± 0.1000", "3", "+0.0000"],
        ["`linear`", "0.6000 ± 0.1000", "3", "+0.1000"],
        ["`concat`", "0.5000 ± 0.1000", "3", "–"],
        ["`late`", "0.4000 ± 0.1000", "3", "-0.1000"],
    ]
    for *_, difference, interval, p in (line for line in lines if line[0] != "`concat`"):
        low, high = map(float, interval.split(" to "))
        assert low <= float(difference) <= high and 0 < float(p) <= 1
    assert lines[2][4:] == ["+0.0000 to +0.0000", "1.000"]  # equal answers


def test_without_another_head_there_is_nothing_to_compare(tmp_path: Path) -> None:
    dataset = read_dataset(make_set(tmp_path / "set"))
    store = Store(tmp_path / "sweep")
    store.begin(sweep(dataset), dataset)
    store.add(CONFIGS[0], outcome([[5, 7], [6, 7]]), {})
    with pytest.raises(InputError, match="no finished `concat` with another head"):
        heads_compared.main(store.folder)
