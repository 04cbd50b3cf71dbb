"""A results folder's copy elsewhere."""

from dataclasses import asdict
from pathlib import Path

import fsspec
import pytest

import grid as script
from mvsa_tune.config import Config
from mvsa_tune.data.dataset import Dataset
from mvsa_tune.errors import InputError
from mvsa_tune.results.schema import read_rows, write_rows
from mvsa_tune.tune import mirror
from mvsa_tune.tune.mirror import Mirror, mirrored


def content(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


CONFIG = Config(image_encoder="eye", text_encoder="ear")


def row(seed: int, why: str) -> dict[str, object]:
    return {
        "sweep": "one",
        **asdict(CONFIG),
        "trial_id": CONFIG.id,
        "seed": seed,
        "fold": 0,
        "status": f"failed: {why}",
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "results" / "one"
    (place / "predictions").mkdir(parents=True)
    (place / "predictions" / "a.npz").write_bytes(b"predictions of a")
    (place / ".lock").write_bytes(b"")
    write_rows(place / "trials.csv", [])
    return place


@pytest.fixture(params=["a path", "a URI"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "shared") if request.param == "a path" else f"memory://{tmp_path.name}"


def test_what_is_in_the_folder_is_there_in_the_end_and_comes_back_on_another_machine(
    folder: Path, storage: str, tmp_path: Path
) -> None:
    with mirrored(folder, storage):
        (folder / "predictions" / "b.npz").write_bytes(b"predictions of b")
    other = tmp_path / "elsewhere" / "one"
    with mirrored(other, storage):
        assert content(other) == {name: data for name, data in content(folder).items() if name != ".lock"}


def test_files_are_copied_while_the_sweep_runs_rows_last_and_only_what_changed(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(mirror, "EVERY", 0.05)
    written: list[str] = []
    write = Mirror._write

    def noted(self: Mirror, name: str, data: bytes) -> None:
        written.append(name)
        if name.endswith("b.npz"):  # a row that comes meanwhile waits for the next copy
            (folder / "trials.csv").write_bytes(b"rows of b")
        write(self, name, data)

    monkeypatch.setattr(Mirror, "_write", noted)
    with mirrored(folder, str(tmp_path / "shared")):
        (folder / "predictions" / "b.npz").write_bytes(b"predictions of b")
        there = tmp_path / "shared" / "one" / "trials.csv"
        while not there.exists() or there.read_bytes() != b"rows of b":
            pass
    assert written.count("predictions/a.npz") == 1 and written.index("predictions/b.npz") < written.index("trials.csv")
    assert written[-1] == "trials.csv"


def test_rows_of_both_sides_are_kept_and_those_here_count(folder: Path, storage: str) -> None:
    rows = folder / "trials.csv"
    write_rows(rows, [row(1, "there"), row(2, "there")])
    with mirrored(folder, storage):
        pass
    write_rows(rows, [row(1, "here"), row(3, "here")])
    with rows.open("a") as file:
        file.write("half a line")
    Mirror(folder, storage).fetch()
    found, damage = read_rows(rows)
    told = [(one["seed"], one["status"]) for one in found]
    assert told == [("2", "failed: there"), ("1", "failed: here"), ("3", "failed: here")]
    assert len(damage) == 1 and "half written" in damage[0]


def test_a_place_that_cannot_be_used_is_told_before_anything_starts(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for storage, told in ((f"{tmp_path}/file", "cannot be used"), ("nowhere://x", "nowhere")):
        with pytest.raises(InputError, match=told), mirrored(folder, storage):
            raise AssertionError("it began")


def test_a_place_that_fails_in_the_end_is_told_and_the_results_stay(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match="results are whole in"), mirrored(folder, str(tmp_path / "shared")):
        monkeypatch.setattr(fsspec.implementations.local.LocalFileSystem, "open", lambda *given, **named: 1 / 0)
        (folder / "tables.md").write_text("tables")
    assert (folder / "tables.md").exists()


def test_a_sweep_goes_on_from_there_on_a_new_disk_and_another_sweep_is_refused(
    demo: Dataset, swept: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with mirrored(swept, str(tmp_path / "shared")):
        pass
    kept = content(tmp_path / "shared")
    assert {"small/trials.csv", "small/tables.md", "small/sweep.json"} <= set(kept)
    flags = [
        "--data",
        demo.folder,
        "--pairs",
        "demo-pixels+demo-words",
        "--lr",
        0.01,
        "--ablation",
        0,
        1,
        2,
        "--batch-size",
        32,
    ]
    flags += ["--epochs", 6, "--seeds", 3, "--scheduler", "none", "--name", "small", "--storage", tmp_path / "shared"]
    same = [*flags, "--D", 4, 8, "--results", tmp_path / "new"]
    assert script.main(list(map(str, same))) == 0
    assert "6 of 6 configurations are recorded" in capsys.readouterr().out
    for place in ("new", "third"):  # a folder that is that sweep's, and an empty one
        other = [*flags, "--D", 16, "--results", tmp_path / place]
        assert script.main(list(map(str, other))) == 2
        assert "holds another sweep" in capsys.readouterr().err
    assert len(read_rows(tmp_path / "shared" / "small" / "trials.csv")[0]) == 18


def test_two_sweeps_are_not_joined(swept: Path, tmp_path: Path) -> None:
    with mirrored(swept, str(tmp_path / "shared")):
        pass
    description = tmp_path / "shared" / "small" / "sweep.json"
    description.write_text(description.read_text().replace('"seed": 44', '"seed": 45'))
    before = (swept / "trials.csv").read_bytes()
    with (
        pytest.raises(InputError, match=r"holds another sweep than .*replicates"),
        mirrored(swept, str(tmp_path / "shared")),
    ):
        raise AssertionError("it began")
    assert (swept / "trials.csv").read_bytes() == before
