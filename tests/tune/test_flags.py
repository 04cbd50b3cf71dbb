"""Flags, and what else is turned into flags."""

import shutil
from pathlib import Path

import pytest
import yaml

from mvsa_tune import plugins
from mvsa_tune.dimensions import Choice, Range
from mvsa_tune.errors import InputError
from mvsa_tune.sweeps import GRID, SEARCH, SWEEPS, Sweep
from mvsa_tune.tune.flags import arguments_of


def test_a_mapping_is_the_command_line_that_a_person_would_type() -> None:
    values = {
        "pairs": ["a+b", "c+d"],
        "D": (128, 256),
        "lr": 1e-5,
        "batch-size": 32,
        "weights": {"a": Path("models/a"), "b": "b.pt"},
        "embed": True,
        "quiet": False,
        "address": None,
    }
    typed = "--pairs a+b c+d --D 128 256 --lr 1e-05 --batch-size 32 --weights a=models/a b=b.pt --embed"
    assert arguments_of(values) == typed.split()


def test_what_a_mapping_says_is_what_is_parsed() -> None:
    options = GRID.parse(arguments_of({"lr": [2e-5, 1e-4], "ablation": 0, "no_report": True, "seed_list": range(3)}))
    assert options.lr == [2e-5, 1e-4] and options.ablation == [0] and not options.report
    assert options.seed_list == [0, 1, 2]
    search = SEARCH.requested(SEARCH.parse(arguments_of({"lr": "1e-5..1e-3", "D": [64, 128]})))
    assert search.space["lr"] == Range(1e-5, 1e-3, log=True) and search.space["D"] == Choice((64, 128))


def test_flags_that_are_wrong_raise_and_do_not_end_python() -> None:
    with pytest.raises(InputError, match="expected at least one argument"):
        GRID.parse(arguments_of({"pairs": []}))


def printed(sweep: Sweep, capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """Return what flags print that end the program."""
    with pytest.raises(SystemExit) as ended:
        sweep.parse([*map(str, arguments)])
    assert ended.value.code in (None, 0)
    return capsys.readouterr().out


@pytest.mark.parametrize("name", SWEEPS)
def test_the_help_is_short_and_in_groups_and_all_flags_are_one_flag_away(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    usual, every = (printed(SWEEPS[name], capsys, flag) for flag in ("--help", "--help-all"))
    assert usual.count("\n") <= 60 and max(map(len, usual.splitlines())) <= 100
    groups = ["data:", "what is swept", "training:", "early stopping:", "resources:", "output:"]
    assert [group for group in groups if f"\n{group}" not in usual] == []
    assert sum(line.startswith(f"    python sweeps/{name}.py --") for line in usual.splitlines()) == 2
    for flag in ("--help-all", "--seed-list", "--brackets", "--storage", "--encoding"):
        assert f"\n  {flag}" not in usual and f"\n  {flag}" in every


@pytest.mark.parametrize(
    ("name", "flags"),
    [
        ("grid", ["--demo", "--lr", "1e-5", "0.1", "--seed-list", "7", "8", "--no-report", "--name", "no"]),
        ("grid", ["--protocol", "cheema2021", "--dropout", "0", "--data", "a folder: with # signs, and [more]"]),
        (
            "search",
            ["--pairs", "a+b", "--lr", "1e-5..1e-3", "--D", "64", "--head", "gated", "late", "--minutes", "2.5"],
        ),
        ("finetune", ["--demo", "--weights", "a=b c", "d=e", "--encoder-lr", "2e-5", "--max-failures", "0"]),
    ],
)
def test_the_printed_file_is_read_back_as_the_same_sweep(
    name: str, flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep, path = SWEEPS[name], tmp_path / "sweep.yaml"
    path.write_text(printed(sweep, capsys, *flags, "--print-config"))
    typed, read = vars(sweep.parse(flags)), vars(sweep.parse(["--config", str(path)]))
    assert typed.pop("config") is None and read.pop("config") == path
    assert typed == read
    assert printed(sweep, capsys, "--config", path, "--print-config") == path.read_text()
    assert all(" \n" not in line and line.count(": ") for line in path.read_text().splitlines()[1:])


def test_the_file_names_plug_ins(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plugins, "LOADED", [])
    (tmp_path / "mine.py").touch()
    assert f"\nplugin: {tmp_path}/mine.py\n" in printed(
        GRID, capsys, "--plugin", tmp_path / "mine.py", "--print-config"
    )


def test_flags_win_over_the_file(tmp_path: Path) -> None:
    path = tmp_path / "sweep.yaml"
    path.write_text("D: [8, 16]\nlr: 1e-3\nseed-list: [1, 2]\nname: mine\nquiet: true\ndropout:\n")
    options = GRID.parse(["--D", "32", "--config", str(path), "--seeds", "3", "--scheduler", "none"])
    assert (options.D, options.lr, str(options.seeds), options.seed_list) == ([32], [1e-3], "3", None)
    assert (options.name, options.quiet, options.scheduler, options.dropout) == ("mine", True, "none", None)


def test_a_results_folder_keeps_the_file_that_repeats_its_sweep(
    swept: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "small"
    shutil.copytree(swept, folder)
    kept = yaml.safe_load((folder / "sweep.yaml").read_text())
    assert (kept["command"], kept["D"], kept["ablation"], kept["epochs"]) == ("grid", [4, 8], [0, 1, 2], 6)
    rows = (folder / "trials.csv").read_bytes()
    assert GRID.main(["--config", str(folder / "sweep.yaml"), "--results", str(tmp_path), "--no-report"]) == 0
    assert (folder / "trials.csv").read_bytes() == rows and capsys.readouterr().out == f"{folder}\n"
    assert yaml.safe_load((folder / "sweep.yaml").read_text()) == {**kept, "results": str(tmp_path), "no_report": True}


@pytest.mark.parametrize("flags", [["--pair", "eye+ear"], ["--batch", "32"]])
def test_abbreviated_flags_are_errors_with_the_whole_one(flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert GRID.main(flags) == 2
    assert "did you mean --pairs?" in (told := capsys.readouterr().err) or "unrecognized arguments: --batch" in told
