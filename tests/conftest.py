"""Sets to test on: a few made-up pairs, the demo set, and the real one where MVSA_REAL_DATA names it."""

import gc
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stderr, redirect_stdout
from functools import partial
from io import StringIO
from itertools import chain, islice
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from filelock import FileLock
from PIL import Image

from mvsa_tune import machine
from mvsa_tune.data.dataset import Dataset, read_dataset
from mvsa_tune.data.demo import make_demo_set
from mvsa_tune.data.images import open_picture
from mvsa_tune.embeddings.cache import default_folder
from mvsa_tune.embeddings.draft import Origin, write_cache
from mvsa_tune.embeddings.embed import embed
from mvsa_tune.embeddings.pipeline import Settings
from mvsa_tune.encoders.registry import ENCODERS
from mvsa_tune.encoders.vision import torchvision_file
from mvsa_tune.sweeps import GRID, Sweep
from mvsa_tune.training.result import TrialResult
from tiny_models import text_model

# Two threads that wait for each other on a busy machine take ten times as long as one: here, and in what tests start.
torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"
# Imports leave no garbage to collect, and what they made need not be looked through afterwards.
gc.disable()

ROOT = Path(__file__).parents[1]
TAGS = ("negative", "neutral", "positive")


@pytest.hookimpl(wrapper=True)
def pytest_collection_modifyitems(items: list[pytest.Function]) -> Iterator[None]:
    """Mark the tests that run a sweep, themselves or in a fixture, with `ray`, and let every process begin with some.

    They are the longest, and would otherwise come last: `--dist worksteal` gives each process an equal slice of the
    list, and one that is done takes from the end of another's. Tests of a file stay together, for their fixtures.
    """
    for item in items:
        fixtures = [definitions[-1].func for definitions in item._fixtureinfo.name2fixturedefs.values()]
        if any(map(runs_a_sweep, [item.function, *fixtures])):
            item.add_marker("ray")
    yield  # those that -m leaves out are taken out
    gc.freeze()
    gc.enable()
    count = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    sweeps = [item for item in items if item.get_closest_marker("ray")]
    others = iter([item for item in items if not item.get_closest_marker("ray")])
    files = list(dict.fromkeys(item.path for item in sweeps))
    slices = [[item for item in sweeps if files.index(item.path) % count == number] for number in range(count)]
    items[:] = [
        *chain(*([*part, *islice(others, max(0, len(items) // count - len(part)))] for part in slices)),
        *others,
    ]


def runs_a_sweep(function: Callable[..., Any]) -> bool:
    """Return whether a function, or one of its file that it calls, names `grid`, `run_command` or `chaos`."""
    called = [function.__globals__.get(name) for name in function.__code__.co_names]
    return any(
        value is grid
        or value is run_command
        or (isinstance(value, ModuleType) and value.__name__ == "chaos")
        or (
            isinstance(value, FunctionType)
            and value.__module__ == function.__module__
            and value is not function
            and runs_a_sweep(value)
        )
        for value in called
    )


@pytest.fixture(autouse=True)
def _ray_is_marked(request: pytest.FixtureRequest) -> Iterator[None]:
    """Let no test start Ray that is not marked with `ray`: `make check` leaves those out."""
    forbidden.append("ray" not in request.keywords)
    yield
    forbidden.pop()


forbidden: list[bool] = []


def _forbid_ray(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "subprocess.Popen" and forbidden and forbidden[-1] and "gcs_server" in str(arguments[0]):
        raise RuntimeError("this test starts Ray: mark it with pytest.mark.ray")


sys.addaudithook(_forbid_ray)


def make_set(folder: Path, count: int = 40, unlabelled: int = 4, pairs: str = "data") -> Path:
    """Write `count` labelled pairs, their tags in turn, in the reference's layout; pictures are not pictures."""
    guids = [str(100 + number) for number in range(count + unlabelled)]
    (folder / pairs).mkdir(parents=True, exist_ok=True)
    for guid in guids:
        (folder / pairs / f"{guid}.jpg").write_bytes(b"picture " + guid.encode())
        (folder / pairs / f"{guid}.txt").write_text(f"tweet {guid}", encoding="utf-8")
    lines = [f"{guid},{TAGS[row % 3]}" for row, guid in enumerate(guids[:count])]
    (folder / "train.txt").write_text("guid,tag\n" + "\n".join(lines) + "\n", encoding="utf-8")
    lines = [f"{guid},null" for guid in guids[count:]]
    (folder / "test_without_label.txt").write_text("guid,tag\n" + "\n".join(lines) + "\n", encoding="utf-8")
    return folder


def add_cache(dataset: Dataset, encoder: str, modality: str, width: int = 6, seed: int = 0) -> None:
    """Give a set random vectors, which know their label a little."""
    vectors = np.random.default_rng(seed).normal(size=(len(dataset.samples), width)).astype(np.float32)
    vectors[: len(dataset.labels), 0] += dataset.labels
    folder = default_folder(dataset.folder)
    write_cache(dataset, folder, encoder, modality, vectors, Origin("none", "a test"))


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """Forty labelled pairs with the caches of a pair `eye+ear`."""
    folder = make_set(tmp_path / "tiny")
    dataset = read_dataset(folder)
    add_cache(dataset, "eye", "image")
    add_cache(dataset, "ear", "text", seed=1)
    return folder


def made_once(make: Callable[[Path], object], name: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder that `make` has filled, once for all processes of a test run."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            make(folder.with_suffix(".part"))
            folder.with_suffix(".part").rename(folder)
    return folder


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """The demo set, embedded; all tests read it."""
    return read_dataset(made_once(embedded_demo_set, "demo", tmp_path_factory))


@pytest.fixture
def pairs(demo: Dataset, tmp_path: Path) -> Dataset:
    """The demo set, not embedded, to change as one likes: a copy takes a fifth of the time of making it."""
    shutil.copytree(demo.folder, tmp_path / "set", ignore=shutil.ignore_patterns("embeddings"))
    return read_dataset(tmp_path / "set")


def embedded_demo_set(folder: Path) -> None:
    make_demo_set(folder)
    for encoder in ("demo-pixels", "demo-words"):
        embed(read_dataset(folder), default_folder(folder), encoder, Settings(quiet=True))


@pytest.fixture(scope="session")
def real() -> Path:
    """The real MVSA-Single, or a visible skip."""
    folder = os.environ.get("MVSA_REAL_DATA")
    if not folder:
        pytest.skip("MVSA_REAL_DATA does not name the real set")
    return Path(folder)


def result_of(
    labels: np.ndarray, rows: np.ndarray, predicted: np.ndarray, loss: float = 1.0, seconds: float = 1.0
) -> TrialResult:
    """Return the result of R replicates that predicted `predicted` `(E, R, N)` for the samples in `rows` `(R, N)`.

    `labels` are by row number, of three classes.
    """
    from sklearn.metrics import confusion_matrix  # a second, for which `make check` would wait before it starts

    counts = [
        [confusion_matrix(labels[r], classes, labels=range(3)) for r, classes in zip(rows, epoch, strict=True)]
        for epoch in predicted
    ]
    return TrialResult(
        train_loss=np.full(predicted.shape[:2], loss, dtype=np.float32),
        val_loss=np.full(predicted.shape[:2], loss, dtype=np.float32),
        confusion=np.array(counts, dtype=np.int32),
        rows=rows.astype(np.int32),
        labels=labels[rows].astype(np.uint8),
        predicted=predicted.astype(np.uint8),
        seconds=seconds,
        device="cpu",
    )


def grid(*arguments: object, cwd: Path, kind: Sweep = GRID, report: bool = False) -> subprocess.CompletedProcess[str]:
    """Run a sweep in `cwd` in this process, on a Ray that stays for the next: faster than `run_command`."""
    import ray

    if not ray.is_initialized():
        machine.settle()
        # One CPU: a sweep then has one worker, whose start takes longer than its trials.
        ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False)
    flags = [*map(str, arguments), *([] if report else ["--no-report"])]
    before = Path.cwd()
    os.chdir(cwd)
    try:
        with redirect_stdout(StringIO()) as out, redirect_stderr(StringIO()) as errors:
            code = kind.main(flags)
    finally:
        os.chdir(before)
    return subprocess.CompletedProcess(flags, code, out.getvalue(), errors.getvalue())


def run_command(
    *arguments: object, cwd: Path, timeout: float = 300, script: str = "grid.py", report: bool = False
) -> subprocess.CompletedProcess[str]:
    """Run `python sweeps/grid.py`, or another script, in `cwd`, as a user would; by default without the slow report."""
    words = [sys.executable, ROOT / "sweeps" / script, *arguments, *([] if report else ["--no-report"])]
    return subprocess.run([*map(str, words)], cwd=cwd, capture_output=True, text=True, timeout=timeout, check=False)


def encode_pixels(paths: Sequence[Path]) -> np.ndarray:
    """What the demo set's encoder of pictures gives."""
    tower = ENCODERS["demo-pixels"].load("image", None, torch.device("cpu"))
    return tower.encode([tower.prepare(open_picture(path)) for path in paths]).numpy()


def encode_words(texts: Sequence[str]) -> np.ndarray:
    """What the demo set's encoder of texts gives."""
    return ENCODERS["demo-words"].load("text", None, torch.device("cpu")).encode(texts).numpy()


@pytest.fixture(scope="session")
def swept(demo: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of a small grid on the demo set: both modalities at two widths, and each alone; three seeds."""
    folder = tmp_path_factory.mktemp("swept") / "small"
    made = made_once(partial(small_sweep, demo.folder), "sweep", tmp_path_factory)
    shutil.copytree(made / "small", folder)
    return folder


def small_sweep(data: Path, folder: Path) -> None:
    folder.mkdir()
    flags = ["--data", data, "--pairs", "demo-pixels+demo-words", "--D", 4, 8, "--lr", 0.01, "--ablation", 0, 1, 2]
    flags += ["--batch-size", 32, "--epochs", 6, "--seeds", 3, "--scheduler", "none", "--name", "small"]
    ended = grid(*flags, "--results", folder, "--quiet", cwd=folder, report=True)
    assert ended.returncode == 0, ended.stderr


@pytest.fixture
def photos() -> list[Image.Image]:
    generator = np.random.default_rng(0)
    sizes = [(300, 260), (256, 400), (310, 310)]
    return [Image.fromarray(generator.integers(0, 255, (*size, 3), dtype=np.uint8)) for size in sizes]


@pytest.fixture
def open_pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, str]:
    """Real pictures and texts, and a pair of open names: weights in torch's cache, and a folder of transformers."""
    import torchvision

    folder = make_set(tmp_path / "open")
    generator = np.random.default_rng(0)
    for path in (folder / "data").glob("*.jpg"):
        Image.fromarray(generator.integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(path)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    weights = torchvision_file("squeezenet1_1")
    weights.parent.mkdir(parents=True)
    torch.save(torchvision.models.squeezenet1_1().state_dict(), weights)
    text_model("Bert", tmp_path / "my bert")
    return folder, f"torchvision:squeezenet1_1+hf:{tmp_path / 'my bert'}@mean"
