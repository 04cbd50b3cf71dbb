"""Encoders and heads from outside: from an installed package and a Python file, in workers and in predict."""

import csv
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from conftest import ROOT, run_command
from mvsa_tune import plugins
from mvsa_tune.cli import main
from mvsa_tune.config import Config
from mvsa_tune.data.dataset import Dataset
from mvsa_tune.embeddings import embed as embedding
from mvsa_tune.embeddings.cache import default_folder, how_to_make, open_vectors
from mvsa_tune.embeddings.embed import embed
from mvsa_tune.embeddings.pipeline import Settings
from mvsa_tune.encoders.registry import ENCODERS, PRESETS, find_encoder, register_encoder
from mvsa_tune.encoders.towers import Encoder
from mvsa_tune.errors import InputError
from mvsa_tune.models.heads import BUILT_IN, HEADS, HeadSpec, count_parameters
from mvsa_tune.plugins import Registry, load_plugins
from tiny_models import load

FILE = """
from mvsa_tune.encoders.demo import load_words
from mvsa_tune.encoders.registry import register_encoder
from mvsa_tune.encoders.towers import Encoder
from mvsa_tune.models.heads import BUILT_IN, HeadSpec, register_head

register_encoder("file-words", Encoder({"text": 128}, load_words))
register_head("file-concat", HeadSpec(lambda shape: BUILT_IN["concat"].build(shape)))
"""

MODULE = """
from mvsa_tune.encoders.demo import load_pixels
from mvsa_tune.encoders.towers import Encoder
from mvsa_tune.models.heads import BUILT_IN, HeadSpec

pixels = Encoder({"image": 192}, load_pixels)
concat = HeadSpec(BUILT_IN["concat"].build)
"""

ENTRY_POINTS = """
[mvsa_tune.encoders]
package-pixels = plugged:pixels
package-broken = plugged_broken:pixels

[mvsa_tune.heads]
package-concat = plugged:concat
package-encoder = plugged:pixels
"""


def install(folder: Path, name: str = "plugged", entry_points: str = ENTRY_POINTS) -> Path:
    """Put a package where `pip install --target` would, with the metadata that it would write."""
    about = folder / f"{name}-1.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(entry_points)
    (folder / "plugged.py").write_text(MODULE)
    (folder / "plugged_broken.py").write_text("raise RuntimeError('no such device')\nmore = 1")
    return folder


@pytest.fixture
def package(tmp_path: Path) -> Path:
    return install(tmp_path / "site")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "mine.py").write_text(FILE)
    return tmp_path / "mine.py"


@pytest.fixture
def loaded(file: Path) -> Iterator[Path]:
    """The file, run in this process for one test."""
    load_plugins([file])
    yield file
    forget()


def forget() -> None:
    plugins.LOADED.clear()
    for registry, kept in ((ENCODERS, PRESETS), (HEADS, BUILT_IN)):
        for name in set(registry) - set(kept):  # type: ignore[call-overload]
            del registry[name]


def test_an_installed_package_is_imported_when_its_name_is_used(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(package)
    encoders, heads = Registry("mvsa_tune.encoders", Encoder, PRESETS), Registry("mvsa_tune.heads", HeadSpec, BUILT_IN)
    assert "package-pixels" in encoders and "package-concat" in heads and "package-pixels" not in heads
    assert not {"plugged", "plugged_broken"} & set(sys.modules)
    assert encoders["package-pixels"].widths == {"image": 192} and heads["package-concat"].D_multiple_of == 1
    assert "plugged" in sys.modules
    with pytest.raises(InputError, match="plug-in package-broken = plugged_broken:pixels: RuntimeError: no such dev"):
        encoders["package-broken"]
    with pytest.raises(InputError, match=r"plug-in package-encoder .*is not of type HeadSpec"):
        heads["package-encoder"]
    with pytest.raises(KeyError):
        heads["mystery"]
    with pytest.raises(InputError, match=r"package-pixels: there is one of this name in mvsa_tune\.encoders already"):
        encoders.register("package-pixels", encoders["demo-pixels"])


def test_a_package_whose_name_is_taken_is_named(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(package.parent / "second", "another", "[mvsa_tune.heads]\ngated = plugged:concat\n")
    monkeypatch.syspath_prepend(package.parent / "second")
    with pytest.raises(InputError, match=r"plug-in gated = plugged:concat: another in mvsa_tune\.heads has this name"):
        assert "mystery" in Registry("mvsa_tune.heads", HeadSpec, BUILT_IN)


def test_a_file_registers_encoders_and_heads_once(loaded: Path, tmp_path: Path) -> None:
    load_plugins([loaded])  # a second time nothing happens
    assert Config(head="file-concat").head == "file-concat"
    encoder = find_encoder("file-words")
    assert encoder.widths == {"text": 128}
    with pytest.raises(InputError, match="already"):
        register_encoder("file-words", encoder)
    assert f" --plugin {loaded} " in how_to_make(
        Dataset(tmp_path, "reference", (), ()), default_folder(tmp_path), "file-words", "text"
    )


def test_the_example_of_the_documentation_runs(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "plugins.md").read_text()
    (tmp_path / "mine.py").write_text(text.partition("```python\n")[2].partition("```")[0])
    try:
        load_plugins([tmp_path / "mine.py"])
        tower = load("tiny-pixels", "image")
        vectors = tower.encode([tower.prepare(Image.new("RGB", (20, 30), "white"))])
        assert vectors.shape == (1, tower.width) == (1, 192) and vectors.eq(1).all()
        assert Config(head="plain").head == "plain"
        for widths in ({"image": 4}, {"image": 5, "text": 4}):
            assert count_parameters("plain", widths, 8, 3) == count_parameters("concat", widths, 8, 3)
    finally:
        forget()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("1 / 0", "mine.py: ZeroDivisionError: division by zero"),
        ("def", "mine.py: SyntaxError"),
        (FILE.replace("file-words", "minilm"), "mine.py: minilm: there is one of this name"),
        (FILE.replace("file-words", "a+b"), r"mine.py: 'a\+b': use letters"),
        (FILE.replace('Encoder({"text": 128}, load_words)', "1"), "mine.py: file-words: 1 is not of type Encoder"),
        (None, "mine.py: there is no such Python file"),
    ],
)
def test_a_file_that_fails_is_one_line_that_names_it(
    content: str | None, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if content is not None:
        (tmp_path / "mine.py").write_text(content)
    try:
        assert main(["embed", "--plugin", str(tmp_path / "mine.py"), "--encoder", "minilm"]) == 2
    finally:
        forget()
    printed = capsys.readouterr()
    assert printed.err.count("\n") == 1 and not printed.out
    assert re.search(message, printed.err), printed.err


@pytest.mark.ray
def test_workers_that_embed_run_the_files_too(
    loaded: Path, demo: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(embedding.BLOCK, "text", 300)
    (cache,) = embed(demo, tmp_path, "file-words", Settings(workers=2, quiet=True))
    words = open_vectors(default_folder(demo.folder) / "demo-words" / "text.npy")
    np.testing.assert_array_equal(cache.vectors(), words)


def test_a_sweep_trains_and_predicts_with_what_comes_from_outside(
    package: Path, file: Path, pairs: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(package), os.environ.get("PYTHONPATH", "")]))
    flags = ["--data", pairs.folder, "--pairs", "package-pixels+file-words", "--embed", "--plugin", file]
    heads = ["concat", "package-concat", "file-concat"]
    done = run_command(*flags, "--head", *heads, "--D", 4, "--epochs", 2, "--seeds", 2, "--name", "x", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    results = tmp_path / "results" / "x"
    with (results / "trials.csv").open() as lines:
        rows = list(csv.DictReader(lines))
    numbers = {
        head: [(row["val_acc_cross"], row["val_loss_last"]) for row in rows if row["head"] == head] for head in heads
    }
    assert len(rows) == 6 and numbers["package-concat"] == numbers["file-concat"] == numbers["concat"]

    chosen = next(row["trial_id"] for row in rows if row["head"] == "file-concat")
    label, plugin = ["predict", str(results), "--config", chosen], ["--plugin", str(file)]
    commands = [label, [*label, *plugin], ["encoders", "--data", str(pairs.folder), *plugin]]
    code = f"from mvsa_tune.cli import main; print([main(command) for command in {commands}])"
    path = os.pathsep.join([str(ROOT), os.environ["PYTHONPATH"]])
    ended = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": path},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.stdout.endswith("[2, 0, 2]\n"), ended.stderr  # the list ends with a package that fails
    assert "--head file-concat: must be one of" in ended.stderr and "samples labelled" in ended.stdout
    assert all(name in ended.stdout for name in ("package-pixels", "file-words"))
