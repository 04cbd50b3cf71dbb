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

from mvsa_tune.cluster.resources import Placement, place
from mvsa_tune.cluster.session import Node
from mvsa_tune.config import Config, Replicate, product
from mvsa_tune.data.dataset import Dataset, read_dataset
from mvsa_tune.data.splits import Split, reference_split
from mvsa_tune.embeddings.cache import default_folder, find_caches
from mvsa_tune.errors import InputError
from mvsa_tune.machine import cpu_count, keep_freed_memory
from mvsa_tune.models.heads import HEADS
from mvsa_tune.training.trainer import Samples, StackTrainer
from mvsa_tune.tune.costs import memory_bytes, trial_seconds
from mvsa_tune.tune.describe import clock
from mvsa_tune.tune.plan import Plan


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
    cpus: int,
    gpus: int,
    trials: int,
    asked: tuple[int | None, float | None],
    placed: Placement,
) -> None:
    assert place(trials, *asked, [Node("this machine", cpus, gpus, 2**33)]) == placed
    assert placed.concurrent * placed.cpus <= cpus and placed.concurrent * placed.gpus <= gpus


def test_more_than_the_machine_has_is_refused() -> None:
    machine = [Node("this machine", 4, 1, 2**33)]
    with pytest.raises(InputError, match="this machine has 1 GPUs; no trial could ever start"):
        place(1, None, 2, machine)
    with pytest.raises(InputError, match="this machine has 4 CPUs; no trial could ever start"):
        place(1, 5, None, machine)


CLUSTER = [Node("a", 8, 0, 2**34), Node("b", 4, 2, 2**33), Node("c", 2, 0, 2**32)]


@pytest.mark.parametrize(
    ("trials", "asked", "share", "gpus", "at_once"),
    [
        (100, (None, 0), 1, 0, 14),  # every CPU of every node
        (3, (None, 0), 4, 0, 3),  # two on a, one on b: no node is asked for more than it has
        (100, (4, 0), 4, 0, 3),  # c is too small for any
        (100, (None, None), 1, 0.5, 4),  # b alone has GPUs, two CPUs for each
        (100, (None, 0.25), 1, 0.25, 4),  # of its eight quarters as many as it has CPUs
        (100, (2, 1), 2, 1, 2),
    ],
)
def test_a_trial_lies_on_one_node(
    trials: int, asked: tuple[int | None, float | None], share: int, gpus: float, at_once: int
) -> None:
    placed = place(trials, *asked, CLUSTER, "auto")
    assert (placed.cpus, placed.gpus, placed.concurrent) == (share, gpus, at_once)


def test_what_no_node_can_hold_is_refused_with_what_there_is() -> None:
    with pytest.raises(
        InputError, match=r"9 CPUs and 0 GPUs, which no node .* \(a 8 CPUs, 0 GPUs, b 4 CPUs, 2 GPUs, c"
    ):
        place(1, 9, 0, CLUSTER, "auto")
    with pytest.raises(InputError, match="5 CPUs and 1 GPUs, which no node"):  # a has the CPUs, b the GPU
        place(1, 5, 1, CLUSTER, "auto")
    with pytest.raises(InputError, match="1 CPUs and 4 GPUs"):
        place(1, None, 4, CLUSTER, "auto")
    placed = place(1, 4, 0, CLUSTER, "auto")
    placed.check_memory(2**34)
    with pytest.raises(InputError, match=r"needs about 16.00 GiB .* \(16.0, 8.0 GiB\)"):
        placed.check_memory(2**34 + 1)


def make(dataset: Dataset, configs: list[Config]) -> Plan:
    caches, missing = find_caches(dataset, default_folder(dataset.folder), configs)
    assert not missing
    split = reference_split(dataset.labels)
    return Plan(dataset, split, (Replicate(42), Replicate(43)), tuple(configs), caches, {}, {}, Placement(1, 0, 1))


def test_the_estimate_grows_with_the_work(demo: Dataset) -> None:
    configs = product({"pair": ["demo-pixels+demo-words"], "D": [64], "batch_size": [32]})
    short = make(demo, [dataclasses.replace(configs[0], epochs=10)])
    long = make(demo, [dataclasses.replace(configs[0], epochs=100)])
    ratio = sum(trial_seconds(long, long.configs).values()) / sum(trial_seconds(short, short.configs).values())
    assert 3 < ratio < 30  # ten, but for the noise of the machine


def stack_megabytes(config: Config) -> float:
    """What a stack's training adds to a fresh process's memory at its highest, as a worker runs it, vectors aside."""
    torch.set_num_threads(1)
    keep_freed_memory()

    def train(one: Config, count: int) -> None:
        vectors = {"image": torch.randn(count, 640), "text": torch.randn(count, 192)}
        samples = Samples(vectors, torch.arange(count) % 3, 3)
        rows = torch.arange(count).expand(5, -1)
        cut = count * 5 // 7
        trainer = StackTrainer(one, [Replicate(seed) for seed in range(5)], samples, rows[:, :cut], rows[:, cut:])
        trainer.train_epoch()
        trainer.evaluate(trainer.validation)

    train(dataclasses.replace(config, D=8), 14)  # what the libraries take once
    before = psutil.Process().memory_info().rss / 1e6
    train(config, 1400)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6 - before - 4 * 1400 * (640 + 192) / 1e6


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in KiB on Linux alone")
@pytest.mark.long
def test_memory_is_estimated_for_every_head(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is measured is from half to 1.4 of it: half for `linear`, whose vectors get no gradients, and which is small."""
    some = Config("eye", "ear", D=128)
    configs = [dataclasses.replace(some, head=head) for head in HEADS]
    configs += [dataclasses.replace(some, head=head, precision="bf16") for head in ("co-attention",)]
    configs += [
        dataclasses.replace(some, head="merged-attention", batch_size=64)
    ]  # more are scored than trained on at once
    planned = make(read_dataset(tiny), configs[:1])
    split = Split("some", {0: np.arange(1000)}, {0: np.arange(1000, 1400)}, {0: np.arange(0)})
    monkeypatch.setattr(Plan, "widths", lambda plan, config: {"image": 640, "text": 192})
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["pytest", "psutil", "mvsa_tune.tune.describe"])  # what this file imports, once
    with context.Pool(1, maxtasksperchild=1) as pool:
        measured = pool.map(stack_megabytes, configs, chunksize=1)
    vectors = 4 * len(planned.dataset.labels) * (640 + 192)
    five = tuple(Replicate(seed) for seed in range(5))
    for config, megabytes in zip(configs, measured, strict=True):
        one = dataclasses.replace(planned, configs=(config,), split=split, replicates=five)
        ratio = megabytes / ((memory_bytes(one) - vectors) / 1e6)
        assert 0.4 < ratio < 1.2, (config.name, megabytes)


def test_the_machine_has_the_cpus_it_may_use() -> None:
    assert 1 <= cpu_count() <= (os.cpu_count() or 1)


@pytest.mark.parametrize(
    ("seconds", "text"), [(3.4, "3 s"), (99, "99 s"), (100, "1 min 40 s"), (3599, "59 min 59 s"), (7500, "2 h 05 min")]
)
def test_durations_are_written_for_people(seconds: float, text: str) -> None:
    assert clock(seconds) == text
