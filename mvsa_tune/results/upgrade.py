"""Results folders of version 0.1 (format 1) become format 2, in place, when they are first read. Nothing is retrained.

They can be read, and not added to: their numbers are those of an earlier `NUMERICS_VERSION`.

What changes: a configuration's id (a hash of all of its fields in format 1, of those that differ from their defaults in
format 2), and with it the names of files and the `trial_id` of rows; `documents` is called `reference`; the digest of
the split becomes one for each fold; `numerics` replaces `code`, a hash of source files. `sweep.json` is written last:
an upgrade that is cut off begins again.
"""

import csv
import hashlib
import io
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from mvsa_tune.config import Config, config_from_texts
from mvsa_tune.data.splits import read_split
from mvsa_tune.files import write_text_whole, write_whole
from mvsa_tune.results.manifest import FORMAT

FIELDS = (
    "image_encoder", "text_encoder", "head", "D", "lr", "batch_size", "ablation", "epochs", "dropout", "weight_decay",
    "label_smoothing", "schedule", "warmup", "normalise", "select", "precision", "encoder_lr", "frozen", "batchnorm",
    "accumulation",
)  # fmt: skip


def is_older_format(path: Path) -> bool:
    """Return whether a `sweep.json` is of a format before this version's; raise ValueError if it is no JSON object."""
    values = json.loads(path.read_text(encoding="utf-8"))
    return int(values.get("format", 1)) < FORMAT


def upgrade(folder: Path) -> None:
    """Bring a results folder of format 1 to format 2.

    Raises:
        OSError: the folder cannot be written.
        ValueError, TypeError, KeyError: its manifest is damaged.
    """
    manifest_path, trials_path = folder / "sweep.json", folder / "trials.csv"
    values = json.loads(manifest_path.read_text(encoding="utf-8"))
    configs = [Config(**config) for config in values["configs"]]
    lines = trials_path.read_bytes().split(b"\n") if trials_path.exists() else []
    ids = {_first_id(config): config.id for config in configs}
    new_lines = [_upgraded_line(lines[0], line, ids) for line in lines]  # adds the configurations of a search to `ids`
    for path in folder.glob("predictions/*.npz"):
        _rename_arrays(path)
    for path in folder.glob("heads/*.safetensors"):
        _rename_text(path)
    for name in ("predictions", "failures", "heads", "checkpoints", "refit/checkpoints"):
        for path in folder.glob(f"{name}/*"):
            if path.name[:10] in ids:
                path.rename(path.with_name(ids[path.name[:10]] + path.name[10:]))
    if lines:
        content = b"\n".join(new_lines)
        write_whole(trials_path, lambda file: file.write(content))
    write_text_whole(manifest_path, json.dumps(_upgraded_manifest(folder, values, ids), indent=1) + "\n")


def _first_id(config: Config) -> str:
    """Return a configuration's id in format 1."""
    fields = {name: getattr(config, name) for name in FIELDS}
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:10]


def _upgraded_line(header: bytes, line: bytes, ids: dict[str, str]) -> bytes:
    """Return a line of `trials.csv` with its new id; as it is where it is damaged, or upgraded already."""
    try:
        names, cells = (next(csv.reader([text.decode("utf-8")], strict=True), []) for text in (header, line))
        row = dict(zip(names, cells, strict=True))
        config = config_from_texts(row)
    except (ValueError, csv.Error):
        return line
    if row.get("trial_id") != _first_id(config):
        return line
    ids[row["trial_id"]] = row["trial_id"] = config.id
    row["split"] = _renamed(row["split"])
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow(row.values())
    return text.getvalue().encode()


def _upgraded_manifest(folder: Path, values: dict[str, Any], ids: Mapping[str, str]) -> dict[str, Any]:
    split = read_split(folder / "split.npz", _renamed(values["split"]))
    same = split is not None and split.digest == values.pop("split_digest")
    del values["code"]
    return {
        "format": FORMAT,
        **values,
        **{name: _renamed(values[name]) for name in ("layout", "split", "protocol")},
        "folds": split.fold_digests if split and same else {},
        "not_run": {ids[trial]: reason for trial, reason in values["not_run"].items()},
        "finetuned": json.loads(json.dumps(values["finetuned"]).replace("text documents;", "text reference;")),
        "numerics": 1,
    }


def _renamed(value: str) -> str:
    return "reference" if value == "documents" else value


def _rename_arrays(path: Path) -> None:
    """Name the arrays of correctly classified samples `correct_…` where they are named `right_…`."""
    with np.load(path, allow_pickle=False) as kept:
        arrays: dict[str, Any] = {name: kept[name] for name in kept}
    renamed = {re.sub("^right_", "correct_", name): array for name, array in arrays.items()}
    if renamed.keys() != arrays.keys():
        write_whole(path, lambda file: np.savez_compressed(file, **renamed))


def _rename_text(path: Path) -> None:
    """Say `text reference` where a kept head's description says `text documents`."""
    with safetensors.safe_open(path, framework="np") as file:  # type: ignore[no-untyped-call]
        about = file.metadata()["head"].replace('"text documents;', '"text reference;')
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    content = safetensors.numpy.save(tensors, {"head": about})
    write_whole(path, lambda file: file.write(content))
