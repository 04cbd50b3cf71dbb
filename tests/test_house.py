"""Which library is imported where, and rules that hold for every file."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODULES = sorted((ROOT / "mvsa_tune").rglob("*.py")) + sorted((ROOT / "sweeps").glob("*.py"))
HOMES = {
    # cluster.nodes: vectors reach a node through Ray's object store, and a task checks each node.
    "ray": {
        "cluster.session",
        "cluster.nodes",
        "embeddings.workers",
        "tune.trainable",
        "tune.scheduler",
        "tune.searcher",
        "tune.callbacks",
        "tune.loggers",
        "tune.runner",
    },
    "open_clip": {"encoders.open_clip"},
    "transformers": {"encoders.transformers"},
    "torchvision": {"encoders.vision"},
    "timm": {"encoders.vision"},
    "optuna": {"stats.importance", "tune.searcher"},
    "matplotlib": {"report.drawing", "report.plots", "report.search_plots", "api"},  # api: its type of figures
    "jinja2": {"report.tables"},
    "safetensors": {"results.upgrade", "finetuning.checkpoint", "encoders.state_dict"},
    "onnxruntime": {"inference.export"},
    "imagehash": {"data.duplicates"},
    "pyarrow": {"data.table"},
}


@cache
def imports(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.split(".")[0])
    return names


def dotted(path: Path) -> str:
    """Return a module's name below the package."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts[1:])


@pytest.mark.parametrize("library", HOMES)
def test_each_library_is_imported_in_its_modules_alone(library: str) -> None:
    strays = [name for path in MODULES if library in imports(path) and (name := dotted(path)) not in HOMES[library]]
    assert not strays


def test_nothing_is_unpickled() -> None:
    for path in MODULES:
        text = path.read_text(encoding="utf-8")
        assert not {"pickle", "cloudpickle", "dill", "joblib", "shelve"} & imports(path), path
        assert not re.search(r"allow_pickle=True|weights_only=False", text), path
        for line in text.splitlines():
            if "np.load(" in line:
                assert "allow_pickle=False" in line, (path, line)


def test_modules_are_short() -> None:
    for path in MODULES:
        assert path.read_text(encoding="utf-8").count("\n") <= 350, path


def test_what_is_needed_stands_once_and_the_wheel_has_it() -> None:
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    assert [line for line in lines if not line.startswith("#")] == ["-e ."]
    project = pytest.importorskip("tomllib").loads((ROOT / "pyproject.toml").read_text())
    needs = project["project"]["dependencies"]
    assert all(re.fullmatch(r"[\w\[\]-]+>=[\d.]+(,<[\d.]+)?", need) for need in needs)
    assert {"torch", "ray[tune]", "pyyaml"} <= {need.partition(">")[0] for need in needs}

    patterns = project["tool"]["setuptools"]["package-data"]["mvsa_tune"]
    package = ROOT / "mvsa_tune"
    files = [path.relative_to(package) for path in package.rglob("*") if path.suffix not in {".py", ""}]
    kept = [path for path in files if path.parent.name != "__pycache__"]
    assert kept and [path for path in kept if not any(path.match(pattern) for pattern in patterns)] == []
