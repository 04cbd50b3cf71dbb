"""A results folder's copy elsewhere."""

from dataclasses import asdict
from pathlib import Path

import fsspec
import pytest

from mvsa_tune.config import Config
from mvsa_tune.data.dataset import Dataset
from mvsa_tune.errors import InputError
from mvsa_tune.results.schema import read_rows, write_rows
from mvsa_tune.sweeps import GRID
from mvsa_tune.tune.callbacks import Recorder
from mvsa_tune.tune.mirror import Mirror


def content(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


CONFIG = Config(image_encoder="eye", text_encoder="ear")


def row(seed: int, reason: str = "no reason", split: str = "reference") -> dict[str, object]:
    return {
        "sweep": "small",
        **asdict(CONFIG),
        "trial_id": CONFIG.id,
        "seed": seed,
        "fold": 0,
        "split": split,
        "status": f"failed: {reason}",
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    results = tmp_path / "results" / "small"
    (results / "predictions").mkdir(parents=True)
    (results / "predictions" / "a.npz").write_bytes(b"predictions of a")
    (results / ".lock").write_bytes(b"")
    (results / ".tune").mkdir()
    (results / ".tune" / "state").write_bytes(b"Tune's own")
    write_rows(results / "trials.csv", [])
    return results


@pytest.fixture(params=["a path", "a URI"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "shared") if request.param == "a path" else f"memory://{tmp_path.name}"


def test_what_is_in_the_folder_is_there_in_the_end_and_comes_back_on_another_machine(
    folder: Path, storage: str, tmp_path: Path
) -> None:
    with Mirror(folder, storage):
        (folder / "predictions" / "b.npz").write_bytes(b"predictions of b")
    other = tmp_path / "elsewhere" / "small"
    left = other.with_name(".small.part") / "half.npz"  # by a process that was killed
    left.parent.mkdir(parents=True)
    left.write_bytes(b"half")
    with Mirror(other, storage):
        kept = {name: data for name, data in content(folder).items() if not name.startswith(".")}
        assert content(other) == kept and len(kept) == 3
    assert [path.name for path in other.parent.iterdir()] == ["small"]


def test_an_update_copies_only_what_changed_and_rows_last_as_they_were_before(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    written: list[str] = []
    write = fsspec.implementations.local.LocalFileSystem.pipe_file

    def noted(self: object, path: str, data: bytes) -> None:
        written.append(Path(path).relative_to(tmp_path / "shared" / "small").as_posix())
        if path.endswith("b.npz"):  # a row that comes meanwhile waits for the next copy
            (folder / "trials.csv").write_bytes(b"rows of b")
        write(self, path, data)

    monkeypatch.setattr(fsspec.implementations.local.LocalFileSystem, "pipe_file", noted)
    there = tmp_path / "shared" / "small" / "trials.csv"
    with Mirror(folder, str(tmp_path / "shared")) as mirror:
        before = (folder / "trials.csv").read_bytes()
        mirror.update()
        assert written == ["predictions/a.npz", "trials.csv"]
        (folder / "predictions" / "b.npz").write_bytes(b"predictions of b")
        (folder / "trials.csv").write_bytes(before + b"\n")
        mirror.update()
        assert written[2:] == ["predictions/b.npz", "trials.csv"] and there.read_bytes() == before + b"\n"
        mirror.update()
        assert written[4:] == ["trials.csv"] and there.read_bytes() == b"rows of b"
    assert len(written) == 5


def test_a_copy_with_rows_that_the_folder_lacks_or_of_another_split_is_not_overwritten(
    folder: Path, storage: str
) -> None:
    rows = folder / "trials.csv"
    write_rows(rows, [row(1), row(2)])
    with Mirror(folder, storage):
        pass
    for present, lacking in (([row(2), row(3)], 1), ([row(1, split="kfold:5"), row(2, split="kfold:5")], 2)):
        write_rows(rows, present)
        with pytest.raises(InputError, match=rf"it has {lacking} rows that .*small lacks"):
            Mirror(folder, storage)
    write_rows(rows, [row(1, "another reason"), row(2), row(3)])
    with rows.open("a") as file:
        file.write("half a line")
    with Mirror(folder, storage):
        assert "half written" in read_rows(rows)[1][0]  # the damage stays, to be reported


def test_a_storage_that_cannot_be_used_is_reported_before_anything_starts(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for storage, message in ((f"{tmp_path}/file", "cannot be used"), ("nowhere://x", "nowhere")):
        with pytest.raises(InputError, match=message), Mirror(folder, storage):
            raise AssertionError("it began")


def test_a_name_in_the_copy_that_leads_out_of_the_folder_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "shared" / "small").mkdir(parents=True)
    (tmp_path / "shared" / "evil").write_text("evil")
    names = [f"{tmp_path}/shared/small/../evil"]
    monkeypatch.setattr(fsspec.implementations.local.LocalFileSystem, "find", lambda *arguments, **options: names)
    folder = tmp_path / "results" / "small"
    with pytest.raises(InputError, match="leads out of the folder"), Mirror(folder, f"{tmp_path}/shared"):
        raise AssertionError("it began")
    assert not folder.parent.exists()


def test_a_storage_that_fails_is_reported_once_and_in_the_end_and_the_results_stay(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(*arguments: object, **options: object) -> None:
        raise OSError("no room")

    with (
        pytest.raises(InputError, match=r"\(no room\); the results are whole in"),
        Mirror(folder, str(tmp_path / "shared")) as mirror,
    ):
        with monkeypatch.context() as patch:
            patch.setattr(fsspec.implementations.local.LocalFileSystem, "open", fails)
            mirror.update()
            mirror.update()
            assert capsys.readouterr().err.count("cannot be written (no room)") == 1
        mirror.update()
        assert not mirror.problem
        monkeypatch.setattr(fsspec.implementations.local.LocalFileSystem, "open", fails)
        (folder / "tables.md").write_text("tables")
    assert (folder / "tables.md").exists()


def test_a_sweep_is_copied_after_each_trial_and_goes_on_from_the_copy_on_a_new_disk(
    demo: Dataset, swept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with Mirror(swept, str(tmp_path / "shared")):
        pass
    kept = content(tmp_path / "shared")
    assert {"small/trials.csv", "small/tables.md", "small/sweep.json"} <= set(kept)
    flags = ["--data", demo.folder, "--pairs", "demo-pixels+demo-words", "--lr", 0.01, "--ablation", 0, 1, 2]
    flags += ["--batch-size", 32, "--epochs", 6, "--seeds", 3, "--scheduler", "none", "--name", "small", "--no-report"]
    flags += ["--storage", tmp_path / "shared"]
    there, copied = tmp_path / "shared" / "small" / "trials.csv", []
    record = Recorder._record

    def noted(self: Recorder, *arguments: object) -> object:
        result = record(self, *arguments)  # type: ignore[arg-type]
        copied.append(len(read_rows(there)[0]))
        return result

    monkeypatch.setattr(Recorder, "_record", noted)
    same = [*flags, "--D", 4, 8, "--results", tmp_path / "new"]
    assert GRID.main(list(map(str, same))) == 0
    assert "6 of 6 configurations are recorded" in capsys.readouterr().out and not copied
    assert GRID.main([*map(str, same), "--D", "5"]) == 0
    assert sorted(copied) == [21, 24, 27]
    # what grew on one machine is not overwritten by an earlier state on another, nor by another sweep
    assert GRID.main([*map(str, flags), "--D", "4", "--results", str(swept.parent)]) == 2
    assert "it has 9 rows that" in capsys.readouterr().err
    for results in ("new", "third"):
        other = [*flags, "--D", 4, "--split", "kfold:2", "--results", tmp_path / results]
        assert GRID.main(list(map(str, other))) == 2
        assert "holds another sweep" in capsys.readouterr().err
    assert len(read_rows(there)[0]) == 27
