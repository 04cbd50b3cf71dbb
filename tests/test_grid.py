"""`sweeps/grid.py` as a person meets it: what bad input prints, what the plan says, and whole tiny sweeps."""

import contextlib
import ipaddress
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest
import torch
import torchvision
from PIL import Image

import grid as script
from conftest import ROOT, grid, make_set
from mvsa_tune import __version__, loaders, provenance, sweep
from mvsa_tune.cli import main as cli
from mvsa_tune.config import Config, Replicate
from mvsa_tune.dataset import Dataset, read_dataset
from mvsa_tune.splits import documents_split
from mvsa_tune.training import Samples, StackTrainer
from test_encoders import text_model

TIMES = ["seconds", "finished_at", "command", "sweep"]
FEW = ("--D", "4", "--lr", "0.01", "--batch-size", "8", "--epochs", "3", "--seeds", "2", "--scheduler", "none")


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """Run the script in this process; it must exit with 2, print nothing but one line on stderr, and return that."""
    try:
        code = script.main([*map(str, arguments)])
    except SystemExit as stop:  # argparse's own
        code = int(stop.code or 0)
    printed = capsys.readouterr()
    assert code == 2 and printed.out == "" and "Traceback" not in printed.err
    assert printed.err.count("\n") == 1 or "python -m mvsa_tune embed" in printed.err, printed.err
    return printed.err


BAD = {
    "no folder": (("--data", "nowhere"), "no data folder nowhere: put MVSA-Single there"),
    "unknown encoder": (("--pairs", "mystery+ear"), "unknown encoder mystery: known are"),
    "swapped pair": (("--pairs", "ear+eye"), "there is no image cache of ear"),
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
    "unknown flag": (("--pears", "eye+ear"), "unrecognized arguments: --pears"),
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


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_clear_line(
    case: str, tiny: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tiny.parent)
    arguments, told = BAD[case]
    assert told in refused(capsys, "--data", "tiny", *arguments)


SPOILT = {
    "empty list": (lambda f: (f / "train.txt").write_text("guid,tag\n"), "lists no samples"),
    "guid that climbs": (
        lambda f: (f / "train.txt").write_text("../../etc/passwd,neutral\n"),
        "may not leave the data folder",
    ),
    "no picture": (lambda f: (f / "data" / "100.jpg").unlink(), "have no picture"),
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


def test_a_missing_cache_is_told_before_anything_starts(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = refused(capsys, "--data", tiny, "--pairs", "eye+ear", "clip-vit-b-32+ear", "--results", tiny / "results")
    assert "1 of 2 configurations have no embedding cache" not in told  # the documents' grid: more than two
    assert f"python -m mvsa_tune embed --data {tiny} --encoder clip-vit-b-32" in told
    assert "--skip-missing" in told
    assert not (tiny / "results").exists()


def test_the_plan_starts_nothing(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
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
    assert script.main([*map(str, arguments), *FEW]) == 0
    printed = capsys.readouterr()
    # eye+ear: (6 × 4 + 4) × 2 for the linears, 8 × 2 for the norms, 8 × 3 + 3 for the classifier
    assert "99 parameters × 2" in printed.out
    assert "2 configurations, each with 2 replicates (seeds 42, 43)" in printed.out
    assert "left out  1 of 2 configurations" in printed.out
    assert "no image cache of clip-vit-b-32" in printed.out and "mvsa_tune embed" in printed.err
    assert "time " in printed.out and "memory " in printed.out
    assert not (tiny / "results").exists()


@pytest.fixture
def open_pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, str]:
    """Real pictures and texts, and a pair of open names: weights in torch's cache, and a folder of transformers."""
    folder = make_set(tmp_path / "open")
    generator = np.random.default_rng(0)
    for path in (folder / "data").glob("*.jpg"):
        Image.fromarray(generator.integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(path)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    weights = loaders._torchvision_file("squeezenet1_1")
    weights.parent.mkdir(parents=True)
    torch.save(torchvision.models.squeezenet1_1().state_dict(), weights)
    text_model("Bert", tmp_path / "my bert")
    return folder, f"torchvision:squeezenet1_1+hf:{tmp_path / 'my bert'}@mean"


def test_a_pair_of_open_names_goes_from_folder_to_tables(
    open_pair: tuple[Path, str], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, pair = open_pair
    arguments = ["--data", folder, "--pairs", pair, "--results", folder / "results", *FEW]
    told = refused(capsys, *arguments)
    for name in pair.split("+"):
        assert f"python -m mvsa_tune embed --data {folder} --encoder {shlex.quote(name)}" in told
    assert script.main([*map(str, arguments), "--dry-run", "--embed"]) == 0
    # (1000 × 4 + 4) + (16 × 4 + 4) for the linears, 8 × 2 for the norms, 8 × 3 + 3 for the classifier
    assert "4,115 parameters × 2" in capsys.readouterr().out
    assert not (folder / "embeddings").exists()
    done = grid(*arguments, "--embed", cwd=folder)
    assert done.returncode == 0, done.stderr
    written = rows(folder / "results" / "grid")
    assert [*written["image_encoder"], *written["text_encoder"]] == [name for name in pair.split("+") for _ in range(2)]
    assert set(written["status"]) == {"finished"}
    assert cli(["encoders", "--data", str(folder)]) == 0
    listed = capsys.readouterr().out
    assert all(f"\n{name}" in listed for name in pair.split("+"))


def test_a_width_that_nothing_here_tells_is_said_to_be_unknown(
    open_pair: tuple[Path, str], tiny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--data", tiny, "--pairs", "eye+hf:someone/model", "eye+ear", "--dry-run", *FEW]
    assert script.main([*map(str, arguments)]) == 0
    printed = capsys.readouterr().out
    assert "not counting 1 configurations: an encoder's width shows once it is loaded" in printed
    assert "? parameters × 2  no text cache of hf:someone/model" in printed and "99 parameters × 2" in printed


def rows(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "trials.csv", dtype=str, keep_default_na=False)


def test_a_sweep_from_folder_to_tables_and_again(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    work = tiny.parent
    arguments = [
        "--data",
        tiny,
        "--pairs",
        "eye+ear",
        "clip-vit-b-32+ear",
        "--skip-missing",
        "--ablation",
        0,
        1,
        *FEW,
    ]
    first = grid(*arguments, "--name", "first", cwd=work)
    assert first.returncode == 0, first.stderr
    folder = work / "results" / "first"
    written = rows(folder)
    assert len(written) == 2 * 2 and set(written["status"]) == {"finished"}
    assert written["image_encoder"].tolist() == ["eye", "eye", "", ""]
    assert "[2/2" in first.stdout and "## Table 3" in first.stdout
    assert (folder / "tables.md").read_text() in first.stdout
    assert "no image cache of clip-vit-b-32" in (folder / "tables.md").read_text()
    assert len(pd.read_csv(folder / "summary.csv")) == 3
    assert {path.name for path in folder.glob("tensorboard/*/")} >= {"eye+ear D=4 lr=0.01 bs=8 epochs=3"}
    predictions_match_rows(folder, read_dataset(tiny))

    # the same again elsewhere: the same numbers
    second = grid(*arguments, "--name", "second", "--quiet", cwd=work)
    assert second.returncode == 0 and "[2/2" not in second.stdout
    pd.testing.assert_frame_equal(rows(work / "results" / "second").drop(columns=TIMES), written.drop(columns=TIMES))

    # the same again in the same folder: nothing left to do
    again = grid(*arguments, "--name", "first", cwd=work)
    assert "2 of 3 configurations are recorded" in again.stdout and "0 to train" in again.stdout
    pd.testing.assert_frame_equal(rows(folder), written)

    # another sweep is refused that folder
    other = [*arguments, "--seeds", 3, "--name", "first", "--results", work / "results"]
    assert "holds another sweep (replicates: seeds 42, 43" in refused(capsys, *other)

    # the numbers are those of the trainer without Ray
    outcome = train_directly(read_dataset(tiny), tiny)
    np.testing.assert_allclose(written["val_acc_best"][:2].astype(float), outcome.accuracy.max(axis=0))
    np.testing.assert_allclose(written["val_loss_last"][:2].astype(float), outcome.val_loss[-1], rtol=1e-5)


def predictions_match_rows(folder: Path, dataset: Dataset) -> None:
    for config_id, group in rows(folder).groupby("trial_id"):
        with np.load(folder / "predictions" / f"{config_id}.npz", allow_pickle=False) as kept:
            right = kept["predicted"] == np.array(dataset.labels)[kept["rows"]]
            np.testing.assert_allclose(right.mean(axis=2).max(axis=0), group["val_acc_best"].astype(float))
            np.testing.assert_allclose(right[-1].mean(axis=1), group["val_acc_last"].astype(float))
            assert kept["seed"].tolist() == group["seed"].astype(int).tolist()


def train_directly(dataset: Dataset, folder: Path):  # type: ignore[no-untyped-def]
    vectors = {
        modality: torch.from_numpy(
            np.load(folder / "embeddings" / encoder / f"{modality}.npy", allow_pickle=False)[:40]
        )
        for modality, encoder in (("image", "eye"), ("text", "ear"))
    }
    split = documents_split(dataset.labels)
    train, validation = (torch.from_numpy(part[0]).expand(2, -1) for part in (split.train, split.validation))
    config = Config(image_encoder="eye", text_encoder="ear", D=4, lr=0.01, batch_size=8, epochs=3)
    samples = Samples(vectors, torch.tensor(dataset.labels), 3)
    return StackTrainer(config, [Replicate(42), Replicate(43)], samples, train, validation).fit()


def test_a_trial_that_fails_keeps_a_row_that_says_why(tiny: Path) -> None:
    arguments = ["--data", tiny, "--pairs", "eye+ear", *FEW, "--lr", "1e38", "0.01"]
    done = grid(*arguments, cwd=tiny.parent)
    assert done.returncode == 1, done.stderr
    folder = tiny.parent / "results" / "grid"
    written = rows(folder)
    assert written["status"][:2].str.fullmatch(r"failed: the loss was not finite in epoch \d").all()
    assert written["val_acc_best"][:2].tolist() == ["", ""]
    assert set(written["status"][2:]) == {"finished"}
    assert "1 of 2 configurations failed" in done.stdout
    assert "failed: the loss was not finite" in (folder / "tables.md").read_text()
    # and the same command tries it again
    again = grid(*arguments, cwd=tiny.parent)
    assert again.returncode == 1 and "1 to train" in again.stdout
    assert len(rows(folder)) == 4


def test_a_trial_whose_data_goes_away_says_so(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begin = sweep.Store.begin

    def begin_and_lose_the_cache(self: sweep.Store, *arguments: object, **named: object) -> list[str]:
        told = begin(self, *arguments, **named)  # type: ignore[arg-type]
        (tiny / "embeddings" / "eye" / "image.npy").unlink()
        return told

    monkeypatch.setattr(sweep.Store, "begin", begin_and_lose_the_cache)
    code = script.main(["--data", str(tiny), "--pairs", "eye+ear", "--results", str(tiny / "results"), *FEW])
    assert code == 1
    folder = tiny / "results" / "grid"
    assert "No such file or directory" in rows(folder)["status"][0]
    told = next((folder / "failures").iterdir()).read_text()
    assert "trainable.py" in told and "\x1b" not in told


def test_interrupting_keeps_what_is_finished_and_the_same_command_goes_on(tiny: Path) -> None:
    long = [
        "--data",
        tiny,
        "--pairs",
        "eye+ear",
        "--D",
        *range(4, 16),
        "--batch-size",
        8,
        "--epochs",
        120,
        "--seeds",
        2,
        "--scheduler",
        "none",
    ]
    command = [sys.executable, str(ROOT / "sweeps" / "grid.py"), *map(str, long)]
    process = subprocess.Popen(command, cwd=tiny.parent, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    trials = tiny.parent / "results" / "grid" / "trials.csv"
    deadline = time.monotonic() + 120
    while not trials.exists() or trials.read_text().count("\n") < 5:
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "of 12 configurations are done" in out and "The same command goes on from here." in out
    assert "Traceback" not in out + err
    before = rows(trials.parent)
    assert 4 <= len(before) < 24
    after = grid(*long, cwd=tiny.parent)
    assert after.returncode == 0, after.stderr
    whole = rows(trials.parent)
    assert len(whole) == 24 and set(whole["status"]) == {"finished"}
    kept = whole.merge(before, how="inner")  # the finished ones were not trained again: their times are the same
    assert len(kept) == len(before)


def test_git_is_not_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    provenance.code_version.cache_clear()
    assert provenance.code_version() == __version__
    provenance.code_version.cache_clear()


def test_nothing_listens_beyond_localhost(tiny: Path) -> None:
    """Of the sweep's own processes: others on the machine may listen where they like."""
    command = [
        sys.executable,
        str(ROOT / "sweeps" / "grid.py"),
        "--data",
        str(tiny),
        "--pairs",
        "eye+ear",
        "--no-report",
    ]
    process = subprocess.Popen([*command, *FEW, "--epochs", "100"], cwd=tiny.parent, stdout=subprocess.DEVNULL)
    seen: set[str] = set()
    while process.poll() is None:
        seen |= listening(process.pid)
        time.sleep(0.3)
    assert process.returncode == 0 and list((tiny.parent / "results").glob("*/trials.csv"))
    assert seen and all(ipaddress.ip_address(address).is_loopback for address in seen)


def listening(pid: int) -> set[str]:
    """Local addresses of the TCP sockets that a process and all that come from it listen on."""
    found = set()
    with contextlib.suppress(psutil.NoSuchProcess):
        driver = psutil.Process(pid)
        for one in [driver, *driver.children(recursive=True)]:
            with contextlib.suppress(psutil.NoSuchProcess):
                sockets = one.net_connections(kind="tcp")
                found |= {
                    one_socket.laddr.ip.removeprefix("::ffff:")
                    for one_socket in sockets
                    if one_socket.status == psutil.CONN_LISTEN
                }
    return found


def test_the_demo_goes_from_nothing_to_tables_between_chance_and_perfect(tmp_path: Path) -> None:
    done = grid("--demo", "--epochs", "40", "--scheduler", "none", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "results" / "demo" / "tables.md").read_text()
    assert "demo set" in text.splitlines()[0] and "published" not in text.replace("publish no", "")
    summary = pd.read_csv(tmp_path / "results" / "demo" / "summary.csv")
    assert len(summary) == 10 and summary["val_acc_best_mean"].between(0.5, 0.95).all()
    both, text_only, image_only = (
        summary.query(f"ablation == {n} and D == 256 and batch_size == 512 and lr == 1e-4")["val_acc_best_mean"].item()
        for n in (0, 1, 2)
    )
    assert both > max(text_only, image_only)


REAL = ("--pairs", "resnet50v2s3+minilm", "--batch-size", 512, "--scheduler", "none")
# The twins that came with the real set: what a plain loop gave on its vectors.
TWINS = {
    ("resnet50v2s3", "minilm", 0): 0.771,
    ("", "minilm", 1): 0.748,
}


def test_the_real_set_gives_its_twins(real: Path, tmp_path: Path) -> None:
    source = real / "embeddings"
    for encoder, modality in (("resnet50v2s3", "image"), ("minilm", "text")):
        place = ["--data", real, "--cache", tmp_path / "cache", "--ids", source / "ids.txt"]
        what = ["--encoder", encoder, "--modality", modality, source / f"{modality}_{encoder}.npy"]
        assert cli(["import", *map(str, place + what)]) == 0
    done = grid(
        "--data",
        real,
        "--cache",
        tmp_path / "cache",
        *REAL,
        "--D",
        256,
        "--lr",
        "1e-4",
        "--ablation",
        0,
        1,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    summary = pd.read_csv(tmp_path / "results" / "grid" / "summary.csv", keep_default_na=False)
    found = {
        (row["image_encoder"], row["text_encoder"], row["ablation"]): float(row["val_acc_best_mean"])
        for _, row in summary.iterrows()
    }
    for twin, accuracy in TWINS.items():
        assert found[twin] == pytest.approx(accuracy, abs=0.012), twin
