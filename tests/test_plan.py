import dataclasses
import os

import pytest
import torch

from mvsa_tune import plan
from mvsa_tune.cache import default_folder
from mvsa_tune.config import Config, Replicate, product
from mvsa_tune.dataset import Dataset
from mvsa_tune.describe import clock
from mvsa_tune.errors import InputError
from mvsa_tune.plan import Placement, Plan, find_caches, place, trial_seconds
from mvsa_tune.splits import documents_split


def machine(monkeypatch: pytest.MonkeyPatch, cpus: int, gpus: int) -> None:
    monkeypatch.setattr(plan, "cpu_count", lambda: cpus)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)


@pytest.mark.parametrize(
    ("cpus", "gpus", "trials", "asked", "placed"),
    [
        (2, 0, 20, (None, None), Placement(1, 0, 2)),
        (8, 0, 2, (None, None), Placement(4, 0, 2)),  # fewer trials than CPUs: more threads each
        (8, 0, 20, (4, None), Placement(4, 0, 2)),
        (1, 0, 20, (None, None), Placement(1, 0, 1)),
        (16, 1, 24, (None, None), Placement(4, 0.25, 4)),  # four share a GPU
        (16, 8, 24, (None, None), Placement(1, 0.5, 16)),
        (4, 4, 24, (None, None), Placement(1, 1.0, 4)),
        (16, 1, 24, (None, 0.5), Placement(8, 0.5, 2)),
        (16, 8, 24, (None, 2), Placement(4, 2, 4)),
        (16, 2, 24, (None, 0), Placement(1, 0, 16)),  # CPUs alone, though there are GPUs
    ],
)
def test_a_trial_gets_its_share_of_the_machine(
    monkeypatch: pytest.MonkeyPatch,
    cpus: int,
    gpus: int,
    trials: int,
    asked: tuple[int | None, float | None],
    placed: Placement,
) -> None:
    machine(monkeypatch, cpus, gpus)
    assert place(trials, *asked) == placed
    assert placed.concurrent * placed.cpus <= cpus and placed.concurrent * placed.gpus <= gpus


def test_more_than_the_machine_has_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, 4, 1)
    with pytest.raises(InputError, match="this machine has 1 GPUs; no trial could ever start"):
        place(1, None, 2)
    with pytest.raises(InputError, match="this machine has 4 CPUs; no trial could ever start"):
        place(1, 5, None)


def make(dataset: Dataset, configs: list[Config]) -> Plan:
    caches, missing = find_caches(dataset, default_folder(dataset.folder), configs)
    assert not missing
    split = documents_split(dataset.labels)
    return Plan(dataset, split, (Replicate(42), Replicate(43)), tuple(configs), caches, {}, {}, Placement(1, 0, 1))


def test_the_estimate_grows_with_the_work(demo: Dataset) -> None:
    configs = product({"pair": ["demo-pixels+demo-words"], "D": [64], "batch_size": [32]})
    short = make(demo, [dataclasses.replace(configs[0], epochs=10)])
    long = make(demo, [dataclasses.replace(configs[0], epochs=100)])
    ratio = sum(trial_seconds(long, long.configs).values()) / sum(trial_seconds(short, short.configs).values())
    assert 3 < ratio < 30  # ten, but for the noise of the machine


def test_the_machine_has_the_cpus_it_may_use() -> None:
    assert 1 <= plan.cpu_count() <= (os.cpu_count() or 1)


@pytest.mark.parametrize(
    ("seconds", "text"), [(3.4, "3 s"), (99, "99 s"), (100, "1 min 40 s"), (3599, "59 min 59 s"), (7500, "2 h 05 min")]
)
def test_durations_are_written_for_people(seconds: float, text: str) -> None:
    assert clock(seconds) == text
