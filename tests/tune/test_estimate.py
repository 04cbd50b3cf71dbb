"""Estimates of memory and time."""

import dataclasses
import multiprocessing
import os
import resource
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

from mvsa_tune.cluster.resources import Placement
from mvsa_tune.config import Config, Replicate, product
from mvsa_tune.data.dataset import Dataset, read_dataset
from mvsa_tune.data.splits import Split, reference_split
from mvsa_tune.embeddings.cache import default_folder, find_caches
from mvsa_tune.formats import clock
from mvsa_tune.machine import cpu_count, keep_freed_memory
from mvsa_tune.models.heads import HEADS
from mvsa_tune.training.trainer import Samples, StackTrainer
from mvsa_tune.tune.estimate import estimate, relative_work
from mvsa_tune.tune.plan import Plan


def make(dataset: Dataset, configs: list[Config]) -> Plan:
    caches, missing = find_caches(dataset, default_folder(dataset.folder), configs)
    assert not missing
    widths = {key: cache.manifest.width for key, cache in caches.items()}
    replicates, split = (Replicate(42), Replicate(43)), reference_split(dataset.labels)
    return Plan(dataset, split, replicates, tuple(configs), Placement(1, 0, 1), caches, widths)


def test_the_estimate_grows_with_the_work(demo: Dataset) -> None:
    configs = product({"pair": ["demo-pixels+demo-words"], "D": [64], "batch_size": [32]})
    short, long = (dataclasses.replace(configs[0], epochs=epochs) for epochs in (10, 100))
    ratio = estimate(make(demo, [long]))[long.id].seconds / estimate(make(demo, [short]))[short.id].seconds
    assert 3 < ratio < 30  # ten, but for the noise of the machine


def test_a_worker_holds_all_vectors_and_its_largest_trial(demo: Dataset) -> None:
    configs = product({"pair": ["demo-pixels+demo-words"], "D": [8, 64]})
    plan = make(demo, configs)
    plan = dataclasses.replace(plan, costs=estimate(plan))
    small, large = (plan.costs[config.id] for config in configs)
    assert small.memory < large.memory and small.parameters < large.parameters
    assert plan.memory == 4 * 600 * (192 + 128) + large.memory


def test_trials_are_ordered_without_measuring_them(demo: Dataset) -> None:
    configs = product({"pair": ["demo-pixels+demo-words"], "D": [8, 64], "batch_size": [512, 32]})
    work = relative_work(make(demo, configs), configs)
    assert sorted(configs, key=lambda config: work[config.id]) == configs


def stack_megabytes(config: Config) -> float:
    """What a stack's training adds to a fresh process's memory at its highest, as a worker runs it, vectors aside."""
    torch.set_num_threads(1)
    keep_freed_memory()

    def train(config: Config, count: int) -> None:
        vectors = {"image": torch.randn(count, 640), "text": torch.randn(count, 192)}
        samples = Samples(vectors, torch.arange(count) % 3, 3)
        rows = torch.arange(count).expand(5, -1)
        cut = count * 5 // 7
        trainer = StackTrainer(config, [Replicate(seed) for seed in range(5)], samples, rows[:, :cut], rows[:, cut:])
        trainer.train_epoch()
        trainer.evaluate(trainer.validation)

    train(dataclasses.replace(config, D=8), 14)  # what the libraries take once
    before = psutil.Process().memory_info().rss / 1e6
    train(config, 1400)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6 - before - 4 * 1400 * (640 + 192) / 1e6


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in KiB on Linux alone")
@pytest.mark.long
def test_memory_is_estimated_for_every_head(tiny: Path) -> None:
    """Measured memory is about that, and half of it for `linear`, whose vectors get no gradients."""
    some = Config("eye", "ear", D=128)
    configs = [dataclasses.replace(some, head=head) for head in HEADS]
    configs += [dataclasses.replace(some, head=head, precision="bf16") for head in ("co-attention",)]
    # More are scored than trained on at once.
    configs += [dataclasses.replace(some, head="merged-attention", batch_size=64)]
    configs += [dataclasses.replace(some, D=1024, batch_size=8)]
    planned = make(read_dataset(tiny), configs[:1])
    split = Split("some", {0: np.arange(1000)}, {0: np.arange(1000, 1400)}, {0: np.arange(0)})
    widths = {("eye", "image"): 640, ("ear", "text"): 192}
    seeds = tuple(Replicate(seed) for seed in range(5))
    costs = estimate(dataclasses.replace(planned, configs=tuple(configs), split=split, replicates=seeds, widths=widths))
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["pytest", "psutil", "mvsa_tune.tune.estimate"])  # what this file imports, once
    with context.Pool(1, maxtasksperchild=1) as pool:
        measured = pool.map(stack_megabytes, configs, chunksize=1)
    for config, megabytes in zip(configs, measured, strict=True):
        ratio = megabytes / (costs[config.id].memory / 1e6)
        assert 0.4 < ratio < 1.2, (config.name, megabytes)


def test_the_machine_has_the_cpus_it_may_use() -> None:
    assert 1 <= cpu_count() <= (os.cpu_count() or 1)


@pytest.mark.parametrize(
    ("seconds", "text"), [(3.4, "3 s"), (99, "99 s"), (100, "1 min 40 s"), (3599, "59 min 59 s"), (7500, "2 h 05 min")]
)
def test_durations_are_written_for_people(seconds: float, text: str) -> None:
    assert clock(seconds) == text
