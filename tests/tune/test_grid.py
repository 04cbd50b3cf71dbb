"""`sweeps/grid.py` as a person meets it: whole tiny sweeps."""

import contextlib
import ipaddress
import os
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

from conftest import ROOT, grid, run_command
from mvsa_tune import __version__
from mvsa_tune.cli import main as cli
from mvsa_tune.config import Config, Replicate
from mvsa_tune.data.dataset import Dataset, read_dataset
from mvsa_tune.data.splits import reference_split
from mvsa_tune.results import manifest
from mvsa_tune.sweeps import GRID
from mvsa_tune.training.trainer import Samples, StackTrainer
from mvsa_tune.tune import runner as sweep
from test_input import FEW, refused

TIMES = ["seconds", "finished_at", "command", "sweep"]


def test_a_pair_of_open_names_goes_from_folder_to_tables(
    open_pair: tuple[Path, str], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, pair = open_pair
    arguments = ["--data", folder, "--pairs", pair, "--results", folder / "results", *FEW]
    told = refused(capsys, *arguments)
    for name in pair.split("+"):
        assert f"mvsa-tune embed --data {folder} --encoder {shlex.quote(name)}" in told
    assert GRID.main([*map(str, arguments), "--dry-run", "--embed"]) == 0
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
    first = run_command(*arguments, "--name", "first", cwd=work)
    assert first.returncode == 0, first.stderr
    folder = work / "results" / "first"
    written = rows(folder)
    assert len(written) == 2 * 2 and set(written["status"]) == {"finished"}
    assert written["image_encoder"].tolist() == ["eye", "eye", "", ""]
    told = first.stdout.splitlines()
    assert told[0].startswith("trials    3 configurations, each with 2 replicates") and told[1].startswith("machine")
    assert "[2/2" in first.stdout and "time      about " in first.stdout and "## Table 3" not in first.stdout
    end = told[told.index("") + 1 :]
    assert end[0].startswith("Best of 2 trained to the end: ") and 8 < len(end) <= 25
    assert max(map(len, (line for line in end if str(work) not in line))) <= 100
    assert "1 of 3 configurations did not run" in first.stdout and "| vision" in (folder / "tables.md").read_text()
    assert "no image cache of clip-vit-b-32" in (folder / "tables.md").read_text()
    assert len(pd.read_csv(folder / "summary.csv")) == 3
    assert {path.name for path in folder.glob("tensorboard/*/")} >= {"eye+ear D=4 lr=0.01 bs=8 epochs=3"}
    predictions_match_rows(folder, read_dataset(tiny))

    # the same again elsewhere: the same numbers
    second = grid(*arguments, "--name", "second", "--quiet", cwd=work)
    assert second.returncode == 0 and second.stdout == "results/second\n"
    pd.testing.assert_frame_equal(rows(work / "results" / "second").drop(columns=TIMES), written.drop(columns=TIMES))

    # the same again in the same folder: nothing left to do
    again = grid(*arguments, "--name", "first", cwd=work)
    assert "2 of 3 configurations are recorded" in again.stdout and "0 to train" in again.stdout
    pd.testing.assert_frame_equal(rows(folder), written)

    # another sweep is refused that folder
    other = [*arguments, "--labels", "positive,neutral,negative", "--name", "first", "--results", work / "results"]
    assert "labels: negative, neutral, positive there, positive, neutral, negative now" in refused(
        capsys, *other, "--quiet"
    )

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
    split = reference_split(dataset.labels)
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
    done = grid("--data", tiny, "--pairs", "eye+ear", *FEW, cwd=tiny.parent)
    assert done.returncode == 1, done.stderr
    folder = tiny.parent / "results" / "grid"
    assert "No such file or directory" in rows(folder)["status"][0]
    told = next((folder / "failures").iterdir()).read_text()
    assert "trainable.py" in told and "\x1b" not in told


def test_interrupting_keeps_what_is_finished_the_same_command_goes_on_and_nothing_listens_beyond_localhost(
    tiny: Path,
) -> None:
    """By Slurm's warning to a whole process group: Tune has a handler for that signal, and Ray's servers are in it."""
    long = [
        "--data",
        tiny,
        "--pairs",
        "eye+ear",
        "--D",
        *range(4, 10),
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
    process = subprocess.Popen(
        command,
        cwd=tiny.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    trials = tiny.parent / "results" / "grid" / "trials.csv"
    deadline = time.monotonic() + 120
    listened: set[str] = set()  # to these addresses
    while not trials.exists() or trials.read_text().count("\n") < 5:
        assert time.monotonic() < deadline and process.poll() is None
        listened |= listening(process.pid)
        time.sleep(0.1)
    assert listened and all(ipaddress.ip_address(address).is_loopback for address in listened)
    started = psutil.Process(process.pid).children(recursive=True)
    os.killpg(process.pid, signal.SIGUSR1)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert started and not any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in started)
    assert "of 6 configurations are done" in out and "The same command goes on from here." in out
    assert "Traceback" not in out + err
    before = rows(trials.parent)
    assert 4 <= len(before) < 12
    after = grid(*long, cwd=tiny.parent)
    assert after.returncode == 0, after.stderr
    whole = rows(trials.parent)
    assert len(whole) == 12 and set(whole["status"]) == {"finished"}
    kept = whole.merge(before, how="inner")  # the finished ones were not trained again: their times are the same
    assert len(kept) == len(before)


@pytest.mark.ray
def test_a_hostile_machine_changes_nothing(tiny: Path) -> None:
    """A long TMPDIR, no home folder, ASCII, proxies, odd GPUs, `uv run`, an odd results path, and `| head -1`."""
    work = tiny.parent
    (work / ("t" * 60)).mkdir()
    # `uv run PROGRAM`, as Ray recognises it among the parents of a process.
    (work / "uv").symlink_to(sys.executable)
    (work / "run").write_text("import subprocess, sys\nsys.exit(subprocess.call(sys.argv[1:]))\n")
    hostile = {
        "TMPDIR": str(work / ("t" * 60)),
        "HOME": "/proc/none",
        **{"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"},
        **dict.fromkeys(["http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "grpc_proxy"], "http://127.0.0.1:9"),
        "CUDA_VISIBLE_DEVICES": "NoDevFiles",
    }
    results = work / "it's #1, 100 %\nand more?"
    flags = ["--data", tiny, "--pairs", "eye+ear", "--D", 4, 5, "--results", results, "--no-report", *FEW[2:]]
    process = subprocess.Popen(
        [work / "uv", "run", sys.executable, str(ROOT / "sweeps" / "grid.py"), *map(str, flags)],
        cwd=work,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | hostile | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert process.stdout is not None and process.stderr is not None
    first = next(line for line in process.stdout if line.startswith(b"[1/2 "))
    process.stdout.close()
    assert process.stderr.read() == b"" and process.wait(60) == 0
    assert b" +- " in first
    written = rows(results / "grid")
    assert len(written) == 4 and set(written["status"]) == {"finished"}
    assert "±" in (results / "grid" / "tables.md").read_text(encoding="utf-8")
    assert not list((work / ("t" * 60)).iterdir())


def test_git_is_not_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    manifest.code_version.cache_clear()
    assert manifest.code_version() == __version__
    manifest.code_version.cache_clear()


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
    done = grid("--demo", "--epochs", 40, "--seeds", 2, "--scheduler", "none", cwd=tmp_path)
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


REAL = ("--pairs", "resnet50v2s3+minilm", "--batch-size", 512, "--seeds", 2, "--scheduler", "none")


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
