"""Numbers that must not change by accident: each head, schedule and kind of split, frozen and fine-tuned, a few epochs.

`python tests/training/test_golden.py` writes them anew.
"""

import atexit
import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mvsa_tune import NUMERICS_VERSION
from mvsa_tune.config import SCHEDULES, Config, Replicate
from mvsa_tune.data.dataset import Dataset, Sample
from mvsa_tune.data.splits import Split, make_split
from mvsa_tune.finetuning.trainer import FineTuner, FinetuneTask
from mvsa_tune.models.heads import HEADS
from mvsa_tune.training.result import TrialResult
from mvsa_tune.training.trainer import Samples, StackTrainer

GOLDEN = Path(__file__).parents[1] / "fixtures" / "golden.json"
MEND = (
    "numbers have changed: if that is meant, raise NUMERICS_VERSION, run `python tests/training/test_golden.py` and "
    "say so in CHANGELOG.md; results folders of before are then refused"
)
BASE = Config(image_encoder="eye", text_encoder="ear", D=8, lr=0.01, batch_size=16, epochs=4)
REPLICATES = (Replicate(42, 0), Replicate(7, 1))
SPLITS = ("reference", "kfold:3", "kfold:3:test", "holdout:0.2")
# What differs from BASE, by the name of the case.
TRAININGS: dict[str, dict[str, Any]] = {
    **{f"head {name}": {"head": name} for name in HEADS},
    **{f"head {name}, text alone": {"head": name, "ablation": 1} for name in HEADS},
    **{f"schedule {name}": {"schedule": name, "warmup": 0.1, "epochs": 12, "lr": 0.1} for name in SCHEDULES},
    "regularised": {"weight_decay": 0.1, "label_smoothing": 0.1, "dropout": 0.6, "normalise": "l2", "ablation": 2},
    "bf16": {"precision": "bf16"},
    "select loss": {"select": "loss"},
}
FINETUNINGS: dict[str, dict[str, Any]] = {
    "fine-tuned": {},
    "fine-tuned, half frozen": {"frozen": 0.5, "batchnorm": "updated"},
    "fine-tuned, accumulated": {"accumulation": 2, "ablation": 1},
    "fine-tuned, as the reference does": {"head": "concat-shared-norm", "batchnorm": "updated"},
}


@cache
def dataset() -> Dataset:
    """Sixty samples in three classes; every fifth text is another's. Pictures are of one colour each."""
    folder = Path(mkdtemp())
    atexit.register(shutil.rmtree, folder)
    texts = [f"{chr(97 + row % 26) * 3} {chr(97 + row // 26) * 2} bird" for row in range(60)]
    texts[::5] = ["the same words"] * 3 + texts[15::5]
    samples = [Sample(str(row), row % 3, folder / f"{row}.png", text, "utf-8") for row, text in enumerate(texts)]
    for row, sample in enumerate(samples):
        Image.new("RGB", (40, 40), (4 * row, 255 - 4 * row, 80 * (row % 3))).save(sample.picture)
    return Dataset(folder, tuple(samples))


def frozen(change: dict[str, Any]) -> TrialResult:
    rng = np.random.default_rng(0)
    labels = np.array(dataset().labels)
    # Small fractions of powers of two: the same numbers on every machine.
    vectors = {
        name: rng.integers(-16, 17, (60, width)) / 8 + labels[:, None] / 4
        for name, width in (("image", 6), ("text", 5))
    }
    samples = Samples(
        {name: torch.tensor(v, dtype=torch.float32) for name, v in vectors.items()}, torch.from_numpy(labels), 3
    )
    if change.get("normalise") == "l2":
        samples = replace(samples, vectors={n: torch.nn.functional.normalize(v) for n, v in samples.vectors.items()})
    split = make_split("kfold:3:test", dataset(), (42,))
    parts = [
        [torch.from_numpy(part[replicate.fold]) for replicate in REPLICATES]
        for part in (split.train, split.validation, split.test)
    ]
    return StackTrainer(replace(BASE, **change), REPLICATES, samples, *parts).fit()


def finetuned(change: dict[str, Any], folder: Path) -> TrialResult:
    data = dataset()
    split: Split = make_split("kfold:3:test", data, (42,))
    task = FinetuneTask(
        labels=np.array(data.labels),
        classes=3,
        split=split,
        replicates=REPLICATES,
        device="cpu",
        threads=1,
        sweep=folder / "sweep",
        pictures=tuple(sample.picture for sample in data.samples),
        texts=tuple(sample.text for sample in data.samples),
        weights={},
    )
    names = {"image_encoder": "demo-convolutions", "text_encoder": "demo-tokens", "encoder_lr": 1e-3, "epochs": 2}
    tuner = FineTuner(replace(BASE, **{**names, **change}), task, REPLICATES)
    result = None
    while result is None:
        result = tuner.advance(2)
    return result


def numbers(result: TrialResult) -> dict[str, Any]:
    """What is held: losses of the last epoch, and what the best epoch and the cross-fitted accuracy come to."""
    return {
        "train_loss": result.train_loss[-1].tolist(),
        "val_loss": result.val_loss[-1].tolist(),
        "best_epoch": result.best_epoch.tolist(),
        "cross_fitted": result.correctness.accuracy.tolist(),
    }


def all_numbers(folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, change in TRAININGS.items():
        yield name, numbers(frozen(change))
    for index, (name, change) in enumerate(FINETUNINGS.items()):
        (folder / str(index)).mkdir()
        yield name, numbers(finetuned(change, folder / str(index)))
    for name in SPLITS:
        yield f"split {name}", {"digest": make_split(name, dataset(), (42, 43)).digest}


@pytest.fixture(scope="module")
def golden() -> dict[str, Any]:
    return dict(json.loads(GOLDEN.read_text(encoding="utf-8")))


def check(golden: dict[str, Any], name: str, values: dict[str, Any]) -> None:
    """Hold numbers against the golden ones: accuracies and epochs to the digit, losses up to how CPUs round."""
    assert golden["numerics_version"] == NUMERICS_VERSION, (
        "golden numbers are of another NUMERICS_VERSION: run this file"
    )
    assert name in golden["numbers"], f"no golden numbers of {name}: run `python tests/training/test_golden.py`"
    coarse = 1e-2 if name == "bf16" else 1e-3
    for key, value in golden["numbers"][name].items():
        if key.endswith("loss"):
            np.testing.assert_allclose(values[key], value, rtol=coarse, err_msg=f"{name}, {key}: {MEND}")
        elif name != "bf16":
            assert values[key] == value, f"{name}, {key}: {MEND}"


@pytest.mark.parametrize("name", TRAININGS)
def test_a_frozen_training_gives_the_golden_numbers(golden: dict[str, Any], name: str) -> None:
    check(golden, name, numbers(frozen(TRAININGS[name])))


@pytest.mark.parametrize("name", FINETUNINGS)
def test_a_fine_tuning_gives_the_golden_numbers(golden: dict[str, Any], name: str, tmp_path: Path) -> None:
    check(golden, name, numbers(finetuned(FINETUNINGS[name], tmp_path)))


@pytest.mark.parametrize("name", SPLITS)
def test_a_split_has_the_golden_rows(golden: dict[str, Any], name: str) -> None:
    check(golden, f"split {name}", {"digest": make_split(name, dataset(), (42, 43)).digest})


if __name__ == "__main__":
    torch.set_num_threads(1)
    with TemporaryDirectory() as folder:
        values = {"numerics_version": NUMERICS_VERSION, "numbers": dict(all_numbers(Path(folder)))}
    GOLDEN.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
