"""Compiled steps train as autograd and torch's AdamW do, which the rest of the package uses."""

import subprocess
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from mvsa_tune.config import Config, Replicate
from mvsa_tune.models import matmul
from mvsa_tune.training.compiled import CompiledHead
from small_stacks import CONFIG, samples, trainer, uneven

REPLICATES = [Replicate(42, 0), Replicate(7, 1), Replicate(43, 2)]
CHANGES: dict[str, dict[str, Any]] = {
    "the reference's": {},
    "image alone": {"ablation": 2},
    "text alone, D odd": {"ablation": 1, "D": 7},
    "no dropout": {"dropout": 0.0},
    "regularised": {"dropout": 0.6, "label_smoothing": 0.2, "weight_decay": 0.3},
    "minibatches of five": {"batch_size": 5},
    "one minibatch": {"batch_size": 500},
    "plateau": {"schedule": "plateau", "epochs": 12, "lr": 0.3},
    "warm-up": {"schedule": "cosine", "warmup": 0.3},
}


def by_autograd(config: Config, **options: Any) -> Any:
    stack = uneven(config, REPLICATES, samples(**options))
    stack.compiled = None
    return stack


@pytest.mark.parametrize("library", ["torch's own", "oneDNN"])
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_weights_statistics_and_losses_are_autograds(
    change: dict[str, Any], library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if library == "oneDNN" and not matmul.HAS_ONEDNN:
        pytest.skip("this torch has no oneDNN")
    monkeypatch.setattr(matmul, "ONEDNN", library == "oneDNN")
    monkeypatch.setattr(matmul, "LEAST", 1)
    config = replace(CONFIG, **change)
    compiled, expected = uneven(config, REPLICATES, samples()), by_autograd(config)
    assert compiled.compiled
    results = [stack.fit() for stack in (compiled, expected)]
    for name in ("train_loss", "val_loss"):
        np.testing.assert_allclose(*(getattr(result, name) for result in results), rtol=2e-4, err_msg=name)
    of_expected = expected.head.state_dict()
    for name, values in compiled.head.state_dict().items():
        torch.testing.assert_close(values, of_expected[name], rtol=1e-3, atol=1e-3, msg=lambda m, name=name: name + m)


def test_vectors_of_half_precision_are_those_of_autograd() -> None:
    """As a file too large for memory gives them."""
    compiled, expected = uneven(CONFIG, REPLICATES, samples()), by_autograd(CONFIG)
    for stack in (compiled, expected):
        stack.vectors = {name: vectors.half() for name, vectors in stack.vectors.items()}
    compiled.compiled = compiled._compiled()
    assert compiled.compiled
    np.testing.assert_allclose(*(stack.fit().train_loss for stack in (compiled, expected)), rtol=1e-4)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_stays_so(bad: float) -> None:
    data = samples()
    data.vectors["image"][3, 0] = bad
    assert np.isnan(trainer(CONFIG, REPLICATES[:1], data).fit().train_loss).all()


def test_only_the_references_head_in_float32_on_a_cpu_is_compiled() -> None:
    def how(data: Any = None, **change: Any) -> CompiledHead | None:
        return trainer(replace(CONFIG, **change), REPLICATES, data or samples()).compiled

    assert how() and how(ablation=1)
    assert how(head="gated", ablation=2)  # what is left of it with one modality
    assert not how(head="gated") and not how(head="concat-shared-norm") and not how(head="late")
    assert not how(precision="bf16") and not how(samples(dtype=torch.float64))


UNWRITABLE = """
from numba.core.caching import CodeLibraryCacheImpl
CodeLibraryCacheImpl._locator_classes = []
from mvsa_tune.training.loops import Step, update_all
import numpy as np
weights, first, second, gradients = np.zeros((4, 3), np.float32)
update_all(weights, first, second, gradients + 1, Step.of(1, 0.5, 0.0))
print(weights)
"""


def test_where_nothing_can_be_kept_each_process_compiles() -> None:
    ran = subprocess.run([sys.executable, "-c", UNWRITABLE], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[-0.5 -0.5 -0.5]"
