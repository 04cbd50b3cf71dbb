"""An exported head gives its sweep's probabilities without Ray, and its card says what it is."""

import errno
import hashlib
import importlib.util
import json
import math
import os
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from mvsa_tune.cli import main
from mvsa_tune.config import Config, Replicate
from mvsa_tune.data.dataset import Dataset
from mvsa_tune.errors import InputError
from mvsa_tune.inference.export import METRICS, export, write_onnx
from mvsa_tune.inference.select import chosen_head, replay
from mvsa_tune.inference.trained import Head, load_finetuned, load_head, make_head
from mvsa_tune.models.heads import build_head
from mvsa_tune.models.layers import initialise
from mvsa_tune.results.store import Store
from mvsa_tune.stats.intervals import wilson
from mvsa_tune.stats.summary import choose
from small_stacks import CONFIG, WIDTHS, samples, trainer

THREE_LINES = """
import sys, numpy
from mvsa_tune.inference.trained import load_head
head = load_head(sys.argv[1])
vectors = {name: numpy.ones((5, width), dtype="float32") for name, width in head.about["widths"].items()}
print(head(vectors).tolist())
assert not {"ray", "optuna"} & set(sys.modules), "Ray"
"""


@pytest.fixture(scope="module")
def exported(swept: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported")
    assert main(["export", str(swept), "--out", str(folder)]) == 0
    return folder


def test_three_lines_read_it_without_ray(exported: Path, swept: Path) -> None:
    command = [sys.executable, "-c", THREE_LINES, str(exported)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 0, ended.stderr
    store = Store(swept)
    head = chosen_head(store, choose(store, "best"), None, None)
    ones = {name: np.ones((5, width), dtype=np.float32) for name, width in head.about["widths"].items()}
    np.testing.assert_allclose(json.loads(ended.stdout), head.votes(ones).mean(axis=0), atol=1e-6)


def test_the_card_has_the_rows_numbers(exported: Path, swept: Path, demo: Dataset) -> None:
    card = json.loads((exported / "card.json").read_text())
    config = choose(Store(swept), "best")
    assert card["config"]["D"] == config.D and card["labels"] == ["negative", "neutral", "positive"]
    assert card["data_fingerprint"] == demo.fingerprint
    manifest = json.loads((demo.folder / "embeddings" / "demo-words" / "text.json").read_text())
    assert card["encoders"]["text"]["weights"] == manifest["weights"]
    assert card["encoders"]["text"]["sha256"] == manifest["sha256"]
    rows = pd.read_csv(swept / "trials.csv")
    values = rows.loc[rows["trial_id"] == config.id, "val_acc_best"]
    score = card["metrics"]["val_acc_best"]
    assert score["n"] == 3 and score["mean"] == pytest.approx(values.mean())
    assert score["std"] == pytest.approx(values.std())
    half = 4.302652729911275 * values.std() / math.sqrt(3)  # Student's t, 2 degrees of freedom, from a table
    assert score["interval_replicates"] == pytest.approx([values.mean() - half, values.mean() + half])
    assert score["interval_samples"] == pytest.approx(wilson(values.mean(), 60))

    assert score["interval_samples"] != card["metrics"]["val_acc_last"]["interval_samples"]
    last = rows.loc[rows["trial_id"] == config.id, "val_acc_last"].mean()
    assert card["metrics"]["val_acc_last"]["mean"] == pytest.approx(last)
    assert card["metrics"]["val_acc_last"]["interval_samples"] == pytest.approx(wilson(last, 60))
    assert card["preprocessing"]["text"] == f"{manifest['preprocessing']}; vector as the encoder gives it"
    content = (exported / "head.safetensors").read_bytes()
    assert card["sha256"] == {"head.safetensors": hashlib.sha256(content).hexdigest()}


def test_a_refit_says_that_it_was_not_validated(swept: Path, tmp_path: Path, demo: Dataset) -> None:
    assert main(["export", str(swept), "--refit", "--out", str(tmp_path)]) == 0
    card = json.loads((tmp_path / "card.json").read_text())
    assert card["training"]["samples"] == len(demo.labels)
    assert not any(
        "interval_samples" in score for score in card["metrics"].values() if isinstance(score, dict) and "n" in score
    )
    assert "has not been validated" in card["metrics"]["methods"]["of"]


def test_what_prevents_an_export_is_one_message(
    exported: Path, swept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    assert main(["export", str(swept), "--out", str(tmp_path / "file" / "head")]) == 2
    assert "choose --out" in capsys.readouterr().err
    head = load_head(exported)
    if importlib.util.find_spec("onnxscript"):
        monkeypatch.setattr("mvsa_tune.inference.export.TOLERANCE", -1.0)
        with pytest.raises(RuntimeError, match="differ from torch's by"):
            write_onnx(head, tmp_path / "head.onnx")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(InputError, match=r"--onnx needs onnxruntime: pip install -e '\.\[onnx\]'"):
        write_onnx(head, tmp_path / "head.onnx")
    assert not (tmp_path / "head.onnx").exists()


@pytest.mark.parametrize("name", ["concat-shared-norm", "cross-attention"])
@pytest.mark.parametrize("onnx", [False, pytest.param(True, marks=pytest.mark.long)])
def test_the_references_other_heads_predict_from_their_file_as_they_were_trained(
    name: str, onnx: bool, tmp_path: Path
) -> None:
    if onnx:
        pytest.importorskip("onnxscript")
    config, replicates, data = replace(CONFIG, head=name), [Replicate(1), Replicate(2)], samples()
    state, result = replay(trainer(config, replicates, data))
    about = {"config": asdict(config), "labels": ["a", "b", "c"], "widths": WIDTHS, "replicates": [{}, {}]}
    make_head(about, state).save(tmp_path / "head.safetensors")
    head = load_head(tmp_path)
    vectors = {modality: rows.numpy()[result.rows[0]] for modality, rows in data.vectors.items()}
    np.testing.assert_array_equal(head.votes(vectors).argmax(axis=2), result.best)
    if onnx:
        assert write_onnx(head, tmp_path / "head.onnx") <= 1e-5


def test_many_samples_are_labelled_as_a_few_are(exported: Path) -> None:
    head = load_head(exported)
    rng = np.random.default_rng(0)
    vectors = {name: rng.normal(size=(5000, width)).astype(np.float32) for name, width in head.about["widths"].items()}
    pieces = [
        head({name: rows[start : start + 1000] for name, rows in vectors.items()}) for start in range(0, 5000, 1000)
    ]
    np.testing.assert_allclose(head(vectors), np.concatenate(pieces), atol=1e-6)
    with pytest.raises(InputError, match=r"each modality needs a vector for every sample, but there are .*'text': 7"):
        head(vectors | {"text": vectors["text"][:7]})


def test_the_interval_of_one_run_is_the_reference() -> None:
    assert [round(end, 3) for end in wilson(0.787, 400)] == [0.744, 0.824]


def test_wrong_widths_and_missing_modalities_raise(exported: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no head in .*: make one with mvsa-tune export"):
        load_head(tmp_path)
    head = load_head(exported)
    width = head.about["widths"]["image"]
    with pytest.raises(InputError, match="text vectors must be"):
        head({"image": np.zeros((2, width))})
    with pytest.raises(InputError, match=r"image vectors must be \(N, "):
        head({"image": np.zeros((2, width + 1)), "text": np.zeros((2, head.about["widths"]["text"]))})


def test_lengths_do_not_matter_to_a_normalising_head(exported: Path, swept: Path, tmp_path: Path) -> None:
    head = load_head(exported)
    about = json.loads(json.dumps(head.about))
    about["config"]["normalise"] = "l2"
    scaled: Head = make_head(about, head.stack.state_dict())
    rng = np.random.default_rng(0)
    vectors = {name: rng.normal(size=(7, width)) for name, width in head.about["widths"].items()}
    unit = {name: rows / np.linalg.norm(rows, axis=1, keepdims=True) for name, rows in vectors.items()}
    np.testing.assert_allclose(scaled(vectors), head(unit), atol=1e-6)
    assert np.abs(scaled(vectors) - head(vectors)).max() > 1e-3
    export(scaled, Store(swept).rows(), tmp_path)
    assert "scaled to length 1 by the head itself" in (tmp_path / "card.json").read_text()


@pytest.mark.parametrize("ablation", [0, 1])
def test_onnx_gives_torchs_probabilities(swept: Path, tmp_path: Path, ablation: int) -> None:
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    store = Store(swept)
    config = next(config for config in store.configs() if config.ablation == ablation)
    assert main(["export", str(swept), "--config", config.id, "--out", str(tmp_path), "--onnx"]) == 0
    head = load_head(tmp_path)
    session = runtime.InferenceSession(str(tmp_path / "head.onnx"), providers=["CPUExecutionProvider"])
    assert [node.name for node in session.get_inputs()] == list(config.modalities)
    unseen = {"image": np.zeros((10, 1)), "text": np.zeros((10, 1))}  # a head takes what it sees, and leaves the rest
    for count in (1, 10):
        generator = torch.Generator().manual_seed(count)
        vectors = {
            m: torch.randn(count, head.about["widths"][m], generator=generator).numpy() for m in config.modalities
        }
        onnx = session.run(["probabilities"], vectors)[0]
        np.testing.assert_allclose(onnx, head(unseen | vectors), atol=1e-5)
    assert json.loads((tmp_path / "card.json").read_text())["onnx"]["largest_difference_from_torch"] <= 1e-5


def head_of(name: str, D: int, replicates: int = 2) -> Head:
    """An untrained head of usual widths."""
    widths, seeds = {"image": 512, "text": 384}, range(replicates)
    stack = build_head(name, replicates, widths, D, 3, 0.1)
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    initialise(stack, generators, generators)
    config, encoders = Config("eye", "ear", head=name, D=D), {m: {"preprocessing": "none"} for m in widths}
    about = {"config": asdict(config), "widths": widths, "replicates": list(seeds), "labels": list("abc")}
    return Head(config, {**about, "encoders": encoders, "training": {"validation_samples": 400}}, stack.eval())


@pytest.mark.parametrize("name", ["concat", "merged-attention", "bilinear"])
@pytest.mark.long
def test_a_head_of_usual_width_is_exported_by_whatever_library_multiplies_it(name: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    head = head_of(name, 128)
    assert write_onnx(head, tmp_path / "head.onnx") <= 1e-5
    rng = np.random.default_rng(1)
    vectors = {m: rng.normal(size=(33, width)).astype(np.float32) for m, width in head.about["widths"].items()}
    session = runtime.InferenceSession(str(tmp_path / "head.onnx"), providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(session.run(None, vectors)[0], head(vectors), atol=1e-5)


def test_an_export_that_fails_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxscript")
    head, rows = head_of("linear", 128), pd.DataFrame(columns=METRICS)
    without = Head(head.config, head.about, Orthogonal().eval())
    with pytest.raises(InputError, match=r"--onnx: the head linear cannot be written as ONNX .*: export it without"):
        export(without, rows, tmp_path / "new", onnx=True)
    assert not list(tmp_path.iterdir())
    export(head, rows, tmp_path / "old")
    before = {path.name: path.read_bytes() for path in (tmp_path / "old").iterdir()}
    monkeypatch.setattr("mvsa_tune.inference.export.sha256_of", disk_full)
    with pytest.raises(InputError, match=r"cannot write .*old: No space left on device; choose --out"):
        export(head_of("linear", 64, replicates=1), rows, tmp_path / "old", onnx=True)
    assert {path.name: path.read_bytes() for path in (tmp_path / "old").iterdir()} == before


class Orthogonal(torch.nn.Module):
    """A head with an operation that ONNX lacks."""

    def forward(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        return torch.linalg.qr(inputs["image"])[0][:, :3]


def disk_full(path: Path) -> str:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_an_export_made_elsewhere_may_hold_anything(tmp_path: Path) -> None:
    head = head_of("concat", 8)
    for about in ({"widths": "wide"}, {"widths": {"image": 10**12}}, {"config": {"D": "x"}}, {"labels": None}):
        Head(head.config, head.about | about, head.stack).save(tmp_path / "head.safetensors")
        with pytest.raises(InputError, match=r"head\.safetensors is damaged or of another version"):
            load_head(tmp_path)
    for card in ("[" * 100_000, "3", '{"config": {"D": "x"}, "files": []}'):
        (tmp_path / "card.json").write_text(card)
        with pytest.raises(InputError, match="no exported fine-tuned configuration"):
            load_finetuned(tmp_path, {})
