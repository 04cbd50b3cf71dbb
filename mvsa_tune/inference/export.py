"""Exporting a sweep's head or fine-tuned network: a folder of weights, and a card that describes them.

export(head, store.rows(config.id), Path("exported"))  # head.safetensors, card.json, and head.onnx if wanted
head = load_head("exported")  # mvsa_tune.inference.trained; load_finetuned opens a network
"""

import json
import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from mvsa_tune.encoders.weights import first_line
from mvsa_tune.errors import InputError
from mvsa_tune.files import sha256_of, sync_folder, write_text_whole, write_whole
from mvsa_tune.finetuning.checkpoint import write_tensors
from mvsa_tune.inference.trained import FineTuned, Head
from mvsa_tune.results.schema import SCORES

METRICS = ["val_acc_best", "val_acc_last", "val_f1_macro_best", "val_f1_weighted_best"]
METRICS += [column.name for column in SCORES if column.tested]
METHODS = {
    "interval_replicates": "95 %, Student's t over the replicates: what other seeds would give on the same samples",
    "interval_samples": "95 %, Wilson's score interval of the mean accuracy over the different samples: what others "
    "would give; neither corrects for the best epoch and configuration being chosen on the validation samples (nothing "
    "is on test ones)",
    "of": "the replicates that the sweep trained and validated",
}
REFIT = "; this head is a refit on all labelled samples, and has not been validated itself"
TOLERANCE = 1e-5  # largest difference of onnxruntime's probabilities from torch's: float32 rounding
SAMPLES_COMPARED = 257


def export(model: Head | FineTuned, rows: pd.DataFrame, folder: Path, *, onnx: bool = False) -> list[Path]:
    """Write a model's folder, all of it or nothing, and return the files; files that exist are replaced.

    Args:
        model: a head, written as one file, or a fine-tuned network, written as one file for each replicate.
        rows: the configuration's rows in the sweep, one for each replicate.
        folder: where to write.
        onnx: also write a head as `head.onnx`, and compare onnxruntime's probabilities with torch's.

    Raises:
        InputError: the folder cannot be written, the ONNX packages or the sweep's checkpoints are missing, or the head
            has an operation that ONNX lacks.
    """
    card = {**model.about, "metrics": metrics(model.about["training"], rows)}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=".unfinished-", dir=folder) as unfinished:
            files = _write_weights(model, Path(unfinished), card, onnx)
            card["sha256"] = {file.name: sha256_of(file) for file in files}
            files.append(Path(unfinished) / "card.json")
            write_text_whole(files[-1], json.dumps(card, indent=1) + "\n")
            written = [file.replace(folder / file.name) for file in files]
        sync_folder(folder)
    except OSError as error:
        raise InputError(f"cannot write {folder}: {error.strerror}; choose --out") from None
    finally:
        with suppress(OSError):  # it has files, or was never made
            folder.rmdir()
    return written


def _write_weights(model: Head | FineTuned, folder: Path, card: dict[str, Any], onnx: bool) -> list[Path]:
    """Write a model's weights, add what they are to the card, and return the files."""
    if isinstance(model, FineTuned):
        files = [folder / f"{path.name.partition('.')[0]}.safetensors" for path in model.files]
        for path, file in zip(model.files, files, strict=True):
            write_tensors(file, model.weights(path), {"config": asdict(model.config)})
        card["files"] = [file.name for file in files]
        return files
    files = [folder / "head.safetensors"]
    model.save(files[0])
    vector = {"l2": "scaled to length 1 by the head itself", "none": "as the encoder gives it"}
    then = f"; vector {vector[model.config.normalise]}"
    card["preprocessing"] = {name: how["preprocessing"] + then for name, how in model.about["encoders"].items()}
    if onnx:
        files.append(folder / "head.onnx")
        card["onnx"] = {"largest_difference_from_torch": write_onnx(model, files[-1])}
    return files


def metrics(training: Mapping[str, Any], rows: pd.DataFrame) -> dict[str, Any]:
    """Return a configuration's scores in its sweep: mean, std (n − 1), n and 95 % intervals, and their methods."""
    from scipy.stats import t  # SciPy takes a while to import

    from mvsa_tune.stats.intervals import wilson

    scores: dict[str, Any] = {}
    for name in METRICS:
        values = rows[name].astype(float).dropna()
        if values.empty:  # no test part
            continue
        mean, n = float(values.mean()), len(values)
        scores[name] = {"mean": mean, "std": None, "n": n, "interval_replicates": None}
        if n > 1:
            std = float(values.std())
            half = float(t.ppf(0.975, n - 1)) * std / math.sqrt(n)
            scores[name] |= {"std": std, "interval_replicates": [mean - half, mean + half]}
        samples = training.get({"val": "validation_samples", "test": "test_samples"}[name.partition("_")[0]])
        if samples and "_acc_" in name:
            scores[name]["interval_samples"] = wilson(mean, samples)
    of = METHODS["of"] + ("" if "validation_samples" in training else REFIT)
    return scores | {"methods": METHODS | {"of": of}}


class _MeanHead(nn.Module):
    """A head as a plain torch module: vectors `(N, width)`, an argument for each modality → probabilities `(N, C)`."""

    def __init__(self, head: Head) -> None:
        super().__init__()
        self.head, self.stack = head, head.stack

    def forward(self, *vectors: Tensor) -> Tensor:
        return self.head.probabilities(dict(zip(self.head.config.modalities, vectors, strict=True))).mean(dim=0)


def write_onnx(head: Head, path: Path) -> float:
    """Write a head as ONNX; return the largest difference of its probabilities in onnxruntime from torch's.

    The inputs are called `image` and `text`, the output `probabilities`; N may be any.

    Raises:
        InputError: onnx, onnxscript or onnxruntime is missing, or the head has an operation that ONNX lacks.
        RuntimeError: the difference is larger than `TOLERANCE`.
    """
    try:
        import onnx  # noqa: F401
        import onnxruntime
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise InputError(f"--onnx needs {error.name}: pip install -e '.[onnx]'") from None
    module, modalities = _MeanHead(head).eval(), head.config.modalities
    generator = torch.Generator().manual_seed(0)
    vectors = {m: torch.randn(SAMPLES_COMPARED, head.about["widths"][m], generator=generator) for m in modalities}
    # Only one name for the number of samples: torch warns about a second that must equal it.
    counts = [torch.export.Dim("samples"), *[torch.export.Dim.DYNAMIC] * (len(modalities) - 1)]
    try:
        program = torch.onnx.export(
            module,
            tuple(vectors.values()),
            input_names=list(modalities),
            output_names=["probabilities"],
            dynamic_shapes=(tuple({0: count} for count in counts),),
            dynamo=True,
            verbose=False,
        )
    except torch.onnx.OnnxExporterError as error:
        reason = first_line(error.__cause__ or error)
        raise InputError(
            f"--onnx: the head {head.config.head} cannot be written as ONNX ({reason}): export it without --onnx"
        ) from None
    assert program is not None
    content = program.model_proto.SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    inputs = {modality: block.numpy() for modality, block in vectors.items()}
    with torch.no_grad():
        difference = float(np.abs(session.run(None, inputs)[0] - module(*vectors.values()).numpy()).max())
    if not difference <= TOLERANCE:
        raise RuntimeError(f"onnxruntime's probabilities differ from torch's by {difference:g}")
    write_whole(path, lambda file: file.write(content))
    return difference
