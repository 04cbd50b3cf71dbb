"""The chosen head in a folder of its own: `head.safetensors`, `card.json`, and `head.onnx` if wanted. Reading it needs no Ray.

head = load_head("exported")
probabilities = head({"image": vectors, "text": vectors})  # (N, classes), in the order of head.about["labels"]
"""

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from mvsa_tune.errors import InputError
from mvsa_tune.files import sha256_of, write_text_whole, write_whole
from mvsa_tune.finetuning.checkpoint import read_tensors, write_tensors
from mvsa_tune.inference.finetuned import FineTuned
from mvsa_tune.inference.head import Head, read_head, save_head
from mvsa_tune.results.schema import SCORES

METRICS = (
    *("val_acc_best", "val_acc_last", "val_f1_macro_best", "val_f1_weighted_best"),
    *(column.name for column in SCORES if column.tested),
)
# How far onnxruntime's probabilities may lie from torch's: float32 rounding.
TOLERANCE = 1e-5
SAMPLES_COMPARED = 257


def load_head(folder: Path | str) -> Head:
    """Read an exported head: call it with raw vectors by modality, `(N, width)` each, for probabilities `(N, C)`."""
    return read_head(Path(folder) / "head.safetensors")


def export(head: Head, rows: pd.DataFrame, folder: Path, *, onnx: bool = False) -> list[Path]:
    """Write a head's folder; return the files. The card is written last.

    Args:
        head: the head.
        rows: the configuration's rows in the sweep, a replicate each.
        folder: where to; its files of these names are replaced.
        onnx: write `head.onnx` too, and hold it against torch in onnxruntime.

    Raises:
        InputError: the folder cannot be written, or the ONNX packages are missing.
    """
    try:
        save_head(head, folder / "head.safetensors")
        files = [folder / "head.safetensors"]
        card = {"preprocessing": _preprocessing(head), **head.about, "metrics": metrics(head.about["training"], rows)}
        if onnx:
            card["onnx"] = {"largest_difference_from_torch": write_onnx(head, folder / "head.onnx")}
            files.append(folder / "head.onnx")
        card["sha256"] = {path.name: sha256_of(path) for path in files}
        write_text_whole(folder / "card.json", json.dumps(card, indent=1) + "\n")
    except OSError as error:
        raise InputError(f"cannot write {folder}: {error.strerror}; choose --out") from None
    return [*files, folder / "card.json"]


def export_network(network: FineTuned, rows: pd.DataFrame, folder: Path) -> list[Path]:
    """Write a fine-tuned configuration's folder: each replicate's weights, encoders and head, and the card, last; return the files.

    Raises:
        InputError: the folder cannot be written, or the sweep's checkpoints are gone.
    """
    written = []
    try:
        for path in network.files:
            tensors, _ = read_tensors(path, network.prefix)
            written.append(folder / path.name.replace(".best", ""))
            write_tensors(written[-1], tensors, {"config": dataclasses.asdict(network.config)})
        card = {**network.about, "metrics": metrics(network.about["training"], rows)}
        card |= {"files": [path.name for path in written], "sha256": {path.name: sha256_of(path) for path in written}}
        write_text_whole(folder / "card.json", json.dumps(card, indent=1) + "\n")
    except OSError as error:
        raise InputError(f"cannot write {folder}: {error.strerror}; choose --out") from None
    return [*written, folder / "card.json"]


def _preprocessing(head: Head) -> dict[str, str]:
    scaled = "scaled to length 1 by the head itself" if head.config.normalise == "l2" else "as the encoder gives it"
    return {modality: f"{one['preprocessing']}; vector {scaled}" for modality, one in head.about["encoders"].items()}


def metrics(training: Mapping[str, Any], rows: pd.DataFrame) -> dict[str, Any]:
    """The sweep's scores of a configuration: mean, std (n − 1), n and 95 % intervals, and how those are made."""
    from mvsa_tune.stats.intervals import wilson  # SciPy takes a while to import

    found: dict[str, Any] = {}
    for name in METRICS:
        values = rows[name].astype(float).dropna()
        if values.empty:  # no test part
            continue
        mean, n = float(values.mean()), len(values)
        std = float(values.std()) if n > 1 else None
        found[name] = {"mean": mean, "std": std, "n": n, "interval_replicates": student(mean, std, n)}
    samples = {part: training.get(f"{name}_samples") for part, name in (("val", "validation"), ("test", "test"))}
    for name in ("val_acc_best", "val_acc_last", "test_acc_best", "test_acc_last"):
        if count := samples[name.partition("_")[0]]:
            found[name]["interval_samples"] = wilson(found[name]["mean"], count)
    found["methods"] = {
        "interval_replicates": "95 %, Student's t over the replicates: what other seeds would give on the same samples",
        "interval_samples": "95 %, Wilson's score interval of the mean accuracy over the different samples: what others would give; "
        "neither corrects for the best epoch and configuration being chosen on the validation samples (nothing is on test ones)",
        "of": "the replicates that the sweep trained and validated"
        + (
            ""
            if samples["val"]
            else "; this head is a refit on all labelled samples, and has not been validated itself"
        ),
    }
    return found


def student(mean: float, std: float | None, n: int) -> list[float] | None:
    """95 % interval of a mean of n values by Student's t; None for one value."""
    from scipy.stats import t

    if std is None:
        return None
    half = float(t.ppf(0.975, n - 1)) * std / math.sqrt(n)
    return [mean - half, mean + half]


class Mean(nn.Module):
    """A head as a plain torch module: vectors `(N, width)`, one argument a modality → the mean probabilities `(N, C)`."""

    def __init__(self, head: Head) -> None:
        super().__init__()
        self.head, self.stack = head, head.stack

    def forward(self, *vectors: Tensor) -> Tensor:
        """`(N, width)` for each modality in the head's order → `(N, C)`."""
        return self.head.probabilities(dict(zip(self.head.config.modalities, vectors, strict=True))).mean(dim=0)


def write_onnx(head: Head, path: Path) -> float:
    """Write a head as ONNX (inputs `image`, `text`; output `probabilities`; any N), hold it against torch in onnxruntime, and
    return the largest difference found.

    Raises:
        InputError: onnx, onnxscript or onnxruntime is missing.
        RuntimeError: onnxruntime gives other probabilities than torch.
    """
    try:
        import onnx  # noqa: F401
        import onnxruntime
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise InputError(f"--onnx needs {error.name}: pip install -e '.[onnx]'") from None
    mean, modalities = Mean(head).eval(), head.config.modalities
    samples = _normal(head, 3)
    # One name for the number of samples: a second one would only be warned about, as equal to the first.
    counts = [torch.export.Dim("samples"), *[torch.export.Dim.DYNAMIC] * (len(modalities) - 1)]
    program = torch.onnx.export(
        mean,
        tuple(samples.values()),
        input_names=list(modalities),
        output_names=["probabilities"],
        dynamic_shapes=(tuple({0: count} for count in counts),),
        dynamo=True,
        verbose=False,
    )
    assert program is not None
    content = program.model_proto.SerializeToString()
    samples = _normal(head, SAMPLES_COMPARED)
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    theirs = session.run(None, {name: one.numpy() for name, one in samples.items()})[0]
    with torch.no_grad():
        ours = mean(*samples.values()).numpy()
    difference = float(np.abs(theirs - ours).max())
    if not difference <= TOLERANCE:
        raise RuntimeError(f"onnxruntime's probabilities differ from torch's by {difference:g}")
    write_whole(path, lambda file: file.write(content))
    return difference


def _normal(head: Head, count: int) -> Mapping[str, Tensor]:
    """Normally distributed vectors of the head's widths."""
    generator = torch.Generator().manual_seed(0)
    widths = head.about["widths"]
    return {modality: torch.randn(count, widths[modality], generator=generator) for modality in head.config.modalities}
