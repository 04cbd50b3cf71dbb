"""What a sweep checks and plans before it starts anything: bad input is one clear line."""

from pathlib import Path

import pytest

from mvsa_tune.sweeps import GRID

FEW = ("--D", "4", "--lr", "0.01", "--batch-size", "8", "--epochs", "3", "--seeds", "2", "--scheduler", "none")


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """Run the script in this process; it must exit with 2, print the plan at most, and return its line on stderr."""
    code = GRID.main([*map(str, arguments)])
    printed = capsys.readouterr()
    assert code == 2 and printed.out.count("\n") in (0, 2) and "Traceback" not in printed.err
    assert printed.err.count("\n") == 1 or "mvsa-tune embed" in printed.err, printed.err
    return printed.err


BAD = {
    "no folder": (("--data", "nowhere"), "no data folder nowhere: put MVSA-Single there"),
    "unknown encoder": (("--pairs", "mystery+ear"), "unknown encoder mystery: known are"),
    "swapped pair": (("--pairs", "ear+eye"), "no image cache of ear in"),
    "text encoder for pictures": (("--pairs", "roberta-base+ear"), "roberta-base has no image side"),
    "open name of nothing": (("--pairs", "timm:mystery+ear"), "timm:mystery: no such model"),
    "open name on the wrong side": (("--pairs", "eye+timm:resnet10t"), "timm:resnet10t has no text side"),
    "open name that holds a +": (("--pairs", "eye+hf:/models/a+b"), "--as NAME"),
    "no such folder": (("--pairs", "eye+hf:/models/nothing"), "hf:/models/nothing: there is no such folder"),
    "half a pair": (("--pairs", "eye"), "IMAGE_ENCODER+TEXT_ENCODER"),
    "lr 0": (("--pairs", "eye+ear", "--lr", "0"), "--lr 0.0: must be greater than 0"),
    "lr of letters": (("--pairs", "eye+ear", "--lr", "fast"), "invalid float value: 'fast'"),
    "D -1": (("--pairs", "eye+ear", "--D", "-1"), "--D -1: must be at least 1"),
    "batch size 1": (("--pairs", "eye+ear", "--batch-size", "1"), "--batch-size 1: must be at least 2"),
    "no such ablation": (("--pairs", "eye+ear", "--ablation", "5"), "--ablation 5"),
    "no epochs": (("--pairs", "eye+ear", "--epochs", "0"), "--epochs 0"),
    "no seeds": (("--pairs", "eye+ear", "--seeds", "0"), "from 1 to 1,000 seeds"),
    "too wide": (("--pairs", "eye+ear", "--D", "99999999"), "--D 99999999"),
    "not a number of GPUs": (("--pairs", "eye+ear", "--gpus-per-trial", "nan"), "--gpus-per-trial nan"),
    "huge seed": (("--pairs", "eye+ear", "--seed-list", "18446744073709551617"), "below 2^31"),
    "demo and data": (("--demo",), "leave --data out"),
    "seed twice": (("--pairs", "eye+ear", "--seed-list", "1", "1"), "none twice"),
    "unknown flag": (("--pears", "eye+ear"), "unrecognized arguments: --pears eye+ear; did you mean --pairs?"),
    "too many GPUs": (("--pairs", "eye+ear", "--gpus-per-trial", "99"), "this machine has"),
    "too many CPUs": (("--pairs", "eye+ear", "--cpus-per-trial", "9999"), "no trial could ever start"),
    "no GPUs at all": (("--pairs", "eye+ear", "--gpus-per-trial", "-1"), "--gpus-per-trial -1"),
    "no CPUs at all": (("--pairs", "eye+ear", "--cpus-per-trial", "0"), "--cpus-per-trial 0"),
    "no grace": (("--pairs", "eye+ear", "--grace-period", "0"), "--grace-period 0: must be 1 or more"),
    "nothing reduced": (("--pairs", "eye+ear", "--reduction-factor", "1"), "--reduction-factor 1.0: must be greater"),
    "too many brackets": (("--pairs", "eye+ear", "--brackets", "9"), "--brackets 9"),
    "fewer than no failures": (("--pairs", "eye+ear", "--max-failures", "-1"), "--max-failures -1"),
    "name that climbs": (("--pairs", "eye+ear", "--name", "../elsewhere"), "--name ../elsewhere"),
    "results in a file": (
        ("--pairs", "eye+ear", "--results", "tiny/train.txt"),
        "cannot write the results folder",
    ),
}


def test_a_class_that_no_sample_validates_is_said_in_the_plan(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [*map(str, ["--data", tiny, "--pairs", "eye+ear", *FEW, "--dry-run"])]
    assert GRID.main(arguments) == 0 and "validates" not in capsys.readouterr().out
    # shuffled by 42, the tenth that validates is 19, 16, 15 and 26 of 0 to 39
    tags = ["negative" if row in (0, 19, 16, 15, 26) else ("neutral", "positive")[row % 2] for row in range(40)]
    lines = [f"{100 + row},{tag}\n" for row, tag in enumerate(tags)]
    (tiny / "train.txt").write_text("guid,tag\n" + "".join(lines), encoding="utf-8")
    assert GRID.main(arguments) == 0
    assert "no neutral or positive sample validates: --split kfold:5 scores every sample\n" in capsys.readouterr().out


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_clear_line(
    case: str, tiny: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tiny.parent)
    arguments, told = BAD[case]
    assert told in refused(capsys, "--data", "tiny", *arguments)


FILES = {
    "unknown key": ("droput: 0.1", "sweep.yaml: droput: unknown key; did you mean dropout?"),
    "not YAML": ("epochs: 3\nD: [1, 2\nlr: 0.1", "sweep.yaml, line 3: not valid YAML: expected ',' or ']'"),
    "no keys": ("- D\n- lr", "sweep.yaml: write a flag and its value on each line"),
    "another command's": ("command: search\nD: 8..64", "sweep.yaml is for `mvsa-tune search`, not for `grid`"),
    "no number": ("lr: [0.1, fast]", "sweep.yaml: argument --lr: invalid float value: 'fast'"),
    "several where one is meant": ("epochs: [3, 4]", "sweep.yaml: epochs: [3, 4]: give one value"),
    "a value where none is meant": ("demo: maybe", "sweep.yaml: demo: maybe: write true or false"),
    "no in the sense of false": (
        "scheduler: no",
        "sweep.yaml: scheduler: a value is missing; yes, no, on and off",
    ),
    "a file in a file": ("config: other.yaml", "sweep.yaml: config: unknown key"),
    "out of range": ("D: 0\npairs: eye+ear", "--D 0: must be at least 1"),
    "not UTF-8": ("name: caf\udce9", "sweep.yaml: not valid YAML"),
}


@pytest.mark.parametrize("case", FILES)
def test_a_bad_file_is_one_clear_line(case: str, tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text, told = FILES[case]
    path = tiny.parent / "sweep.yaml"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    assert told in refused(capsys, "--data", tiny, "--config", path)


def test_a_file_that_is_not_there_is_one_clear_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert f"--config {tmp_path}: Is a directory" in refused(capsys, "--config", tmp_path)
    assert "--config nowhere.yaml: No such file" in refused(capsys, "--config", "nowhere.yaml")


SPOILT = {
    "empty list": (lambda f: (f / "train.txt").write_text("guid,tag\n"), "has no labelled samples"),
    "guid that climbs": (
        lambda f: (f / "train.txt").write_text("../../etc/passwd,neutral\n"),
        "may not leave the data folder",
    ),
    "no picture": (lambda f: (f / "data" / "100.jpg").unlink(), "has no picture"),
    "cache of other texts": (
        lambda f: (f / "data" / "100.txt").write_text("new"),
        "made from other texts or pictures",
    ),
}


@pytest.mark.parametrize("case", SPOILT)
def test_a_bad_set_is_one_clear_line(case: str, tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spoil, told = SPOILT[case]
    spoil(tiny)
    assert told in refused(capsys, "--data", tiny, "--pairs", "eye+ear")


def test_a_missing_cache_is_reported_before_anything_starts(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = refused(capsys, "--data", tiny, "--pairs", "eye+ear", "clip-vit-b-32+ear", "--results", tiny / "results")
    assert "1 of 2 configurations have no embedding cache" not in told  # the reference's grid: more than two
    assert f"mvsa-tune embed --data {tiny} --encoder clip-vit-b-32" in told
    assert "--skip-missing" in told
    assert not (tiny / "results").exists()


def test_a_dry_run_starts_nothing(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [
        "--data",
        tiny,
        "--pairs",
        "eye+ear",
        "clip-vit-b-32+ear",
        "--results",
        tiny / "results",
        "--dry-run",
    ]
    assert GRID.main([*map(str, arguments), *FEW]) == 0
    printed = capsys.readouterr()
    # eye+ear: (6 × 4 + 4) × 2 for the linears, 8 × 2 for the norms, 8 × 3 + 3 for the classifier
    assert "99 parameters × 2" in printed.out
    assert "2 configurations, each with 2 replicates (seeds 42, 43)" in printed.out
    assert "left out  1 of 2 configurations" in printed.out
    assert "no image cache of clip-vit-b-32" in printed.out and "mvsa-tune embed" in printed.err
    assert "time " in printed.out and "memory " in printed.out
    assert not (tiny / "results").exists()


def test_an_encoder_that_is_not_here_has_no_estimate(
    open_pair: tuple[Path, str], tiny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--data", tiny, "--pairs", "eye+hf:someone/model", "eye+ear", "--dry-run", *FEW]
    assert GRID.main([*map(str, arguments)]) == 0
    printed = capsys.readouterr().out
    assert "not counting 1 configurations whose encoders have not been loaded" in printed
    assert "? parameters × 2  left out: no text cache of hf:someone/model" in printed and "99 parameters × 2" in printed
