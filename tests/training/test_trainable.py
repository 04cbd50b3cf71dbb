"""A trial as Tune sees it: what it reports, and when."""

import dataclasses
import itertools
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from mvsa_tune.config import Config, Replicate
from mvsa_tune.data.dataset import read_dataset
from mvsa_tune.data.splits import reference_split
from mvsa_tune.embeddings.cache import default_folder, open_cache
from mvsa_tune.training.task import Task, load_vectors
from mvsa_tune.tune.trainable import (
    CURVES,
    METRIC,
    PROGRESS,
    RESOURCE,
    RESULT,
    DivergedError,
    Trial,
    TrialTrainable,
)

REPLICATES = (Replicate(1), Replicate(2))
CONFIG = Config(image_encoder="eye", text_encoder="ear", D=4, lr=0.01, batch_size=8, epochs=5)


@pytest.fixture
def task(tiny: Path) -> Task:
    dataset = read_dataset(tiny)
    caches = {}
    for encoder, modality in (("eye", "image"), ("ear", "text")):
        cache = open_cache(dataset, default_folder(tiny), encoder, modality)
        assert cache is not None
        caches[encoder, modality] = cache
    return Task(
        caches,
        labels=np.array(dataset.labels),
        classes=3,
        split=reference_split(dataset.labels),
        replicates=REPLICATES,
        device="cpu",
        threads=1,
        milestones=(2, 4, 7),
    )


def trial(config: Config, task: Task) -> TrialTrainable:
    trainable = object.__new__(TrialTrainable)  # what Ray makes in a worker, without the worker
    trainable.config = Trial(config, REPLICATES).to_tune()
    trainable.setup(trainable.config, task)
    return trainable


def test_a_trial_reports_at_the_milestones_and_at_its_end(task: Task) -> None:
    trainable = trial(CONFIG, task)
    reports = [trainable.step() for _ in range(3)]
    assert [report[RESOURCE] for report in reports] == [2, 4, 5]
    assert [report["done"] for report in reports] == [False, False, True]
    whole = task.build(CONFIG, task.replicates).fit()
    assert [report[METRIC] for report in reports] == [whole.scores[epoch - 1] for epoch in (2, 4, 5)]


def test_a_trial_that_takes_long_reports_its_curves_in_between_to_the_same_numbers(
    task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mvsa_tune.tune.trainable.REPORT_SECONDS", 0.0)  # after each epoch
    trainable, before = trial(CONFIG, task), time.time()
    reports = list(itertools.takewhile(lambda report: not report.get("done"), iter(trainable.step, None)))
    between = [report for report in reports if PROGRESS in report]
    assert [report[PROGRESS] for report in between] == [0.2, 0.6] and all(RESOURCE not in r for r in between)
    whole = task.build(CONFIG, task.replicates).fit()
    for epochs, report in zip((1, 3), between, strict=True):
        np.testing.assert_array_equal(report[CURVES].accuracy, whole.accuracy[:epochs])
        np.testing.assert_array_equal(report[CURVES].val_loss, whole.val_loss[:epochs].astype(float))
    times = between[-1][CURVES].trained_at
    assert times.shape == (3, 2) and before < times[0, 0] < times[1, 0] < times[2, 0] < time.time()
    assert [report[METRIC] for report in reports if RESULT in report] == [whole.scores[epoch - 1] for epoch in (2, 4)]


def test_the_next_trial_of_a_worker_starts_afresh(task: Task) -> None:
    trainable = trial(CONFIG, task)
    first = trainable.step()
    assert trainable.reset_config(Trial(CONFIG, REPLICATES).to_tune())
    np.testing.assert_array_equal(trainable.step()[RESULT].val_loss, first[RESULT].val_loss)


def test_a_loss_that_is_not_finite_is_no_result_of_any_rung_and_then_an_error(task: Task) -> None:
    trainable = trial(Config(image_encoder="eye", text_encoder="ear", D=4, lr=1e38, batch_size=8, epochs=5), task)
    report = trainable.step()
    assert RESOURCE not in report and report[METRIC] == 0.0 and report[RESULT].diverged.all()
    with pytest.raises(DivergedError, match="the loss of 2 of 2 replicates was not finite, first in epoch 1"):
        trainable.step()
    trainable.reset_config(Trial(CONFIG, REPLICATES).to_tune())
    assert trainable.step()[RESOURCE] == 2


def test_l2_normalisation_gives_every_vector_length_one_and_leaves_the_cache_raw(task: Task) -> None:
    raw, scaled = (
        task.build(dataclasses.replace(CONFIG, normalise=how), task.replicates).samples.vectors
        for how in ("none", "l2")
    )
    for modality, vectors in raw.items():
        torch.testing.assert_close(scaled[modality], vectors / vectors.norm(dim=1, keepdim=True))
        assert vectors.norm(dim=1).std() > 0.1


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_what_is_too_large_for_memory_trains_from_its_file_to_the_same_bits(
    task: Task, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = dataclasses.replace(CONFIG, precision=precision)
    for cache in task.caches.values():  # as float16, which training has to convert
        np.save(cache.path, np.load(cache.path, allow_pickle=False).astype(np.float16))
    trained = []
    for limit in (2**30, 0):
        monkeypatch.setattr("mvsa_tune.training.trainer.IN_MEMORY", limit)
        load_vectors.cache_clear()
        trainer = task.build(config, task.replicates)
        assert (trainer.vectors["image"].dtype == torch.float16) == (limit == 0)
        if sys.platform == "linux":  # without neighbours read along, where rows come from all over the file
            assert {"rr" in flags for flags in mapped_with(task.caches["eye", "image"].path)} == (
                {True} if limit == 0 else set()
            )
        trained.append(trainer.fit())
    load_vectors.cache_clear()
    for name in ("train_loss", "val_loss", "confusion"):
        np.testing.assert_array_equal(getattr(trained[0], name), getattr(trained[1], name))


def mapped_with(path: Path) -> list[list[str]]:
    """The kernel's flags of this process's maps of a file."""
    blocks = Path("/proc/self/smaps").read_text().split("VmFlags:")
    return [flags.split("\n")[0].split() for block, flags in itertools.pairwise(blocks) if str(path.resolve()) in block]


def test_workers_share_a_cache_of_float32_with_its_file(task: Task) -> None:
    vectors = load_vectors(task.caches["eye", "image"].path, 40, "cpu", "none")
    with task.caches["eye", "image"].path.open("r+b") as file:
        file.seek(-4 * 6 * 4, 2)  # the last four rows of six are of unlabelled samples
        file.seek(-4, 1)
        file.write(np.float32(123).tobytes())
    assert vectors[-1, -1] == 123
    load_vectors.cache_clear()
