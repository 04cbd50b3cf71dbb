"""Whatever is killed, or fills up, in the middle of a sweep: what is finished stays, and the same command goes on."""

import errno
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import chaos
from conftest import grid
from mvsa_tune.config import Asha
from mvsa_tune.results import store as storing
from mvsa_tune.results.store import Store

SLOW = ("--pairs", "eye+ear", "--D", *range(4, 14), "--batch-size", 8, "--epochs", 80, "--seeds", 2)


def test_killing_driver_worker_and_ray_leaves_the_rows_and_tables_of_an_undisturbed_sweep(tiny: Path) -> None:
    work, flags = tiny.parent, ["--data", tiny, *SLOW, "--scheduler", "none", "--quiet", "--name"]
    assert grid(*flags, "calm", cwd=work).returncode == 0
    deadline = time.monotonic() + 200
    for kinds in (["driver"], ["worker", "ray"]):  # a worker's trial is tried again, the others go on
        process = chaos.start(work, *flags, "chaos")
        for kind in kinds:
            rows = chaos.rows(work / "results" / "chaos") + 4
            while chaos.rows(work / "results" / "chaos") < rows:
                assert time.monotonic() < deadline and process.poll() is None
                time.sleep(0.05)
            assert chaos.kill(process, kind)
        out, _ = process.communicate(timeout=60)
        assert process.returncode != 0
        if kinds[-1] == "ray":
            assert process.returncode == 1 and "Ray has died" in out and "the same command goes on" in out
    last = grid(*flags, "chaos", cwd=work)
    assert last.returncode == 0, last.stderr
    chaos.check_same(Store(work / "results" / "chaos"), Store(work / "results" / "calm"))
    assert not list((work / "results" / "chaos").glob(".tune"))


def test_a_disk_that_fills_up_then_asha_then_every_trial_to_its_end(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = ["--data", tiny, *SLOW, "--epochs", 40, "--lr", "1e-4", "1e-2", "--D", 4, 6, 8, 10]
    flags += ["--grace-period", 4, "--reduction-factor", 3]
    append, calls = storing.append_rows, iter(range(100))

    def fill_up(path: Path, rows: list[dict[str, object]]) -> None:
        if next(calls) == 2:
            with path.open("ab") as file:
                file.write(b"half a line")
            raise OSError(errno.ENOSPC, "No space left on device")
        append(path, rows)

    with monkeypatch.context() as patch:
        patch.setattr(storing, "append_rows", fill_up)
        full = grid(*flags, cwd=tiny.parent)
    assert full.returncode == 2 and "cannot be written any more (No space left on device)" in full.stderr
    assert "Traceback" not in full.stderr
    store = Store(tiny.parent / "results" / "grid")
    before = store.rows()
    assert len(before) == 4 and "half a line" in store.trials_path.read_text()

    # the same command goes on, with ASHA
    asha = grid(*flags, cwd=tiny.parent)
    assert asha.returncode == 0 and "is half written" in asha.stderr, asha.stderr
    assert "2 of 8 configurations are recorded" in asha.stdout
    stopped = set(store.recorded(("stopped",)))
    curves = store.scores()
    assert stopped and len(curves) == 8
    lengths = {len(curves[trial]) for trial in stopped}
    assert lengths <= set(Asha(grace_period=4).milestones(40))
    assert all(len(curve) == 40 for trial, curve in curves.items() if trial not in stopped)
    assert before.merge(store.rows(), how="inner").shape == before.shape
    summary = pd.read_csv(store.folder / "summary.csv")
    assert summary["status"].str.startswith("stopped at epoch").sum() == len(stopped)
    verb = "was" if len(stopped) == 1 else "were"
    assert f"{len(stopped)} of 8 configurations {verb} stopped early" in asha.stdout

    # and the same command without a scheduler trains the stopped ones to their end
    whole = grid(*flags, "--scheduler", "none", cwd=tiny.parent)
    assert whole.returncode == 0 and f"{8 - len(stopped)} of 8 configurations are recorded" in whole.stdout
    assert "stopped early" not in whole.stdout
    ends = store.scores()
    for trial, curve in curves.items():
        assert len(ends[trial]) == 40
        np.testing.assert_array_equal(ends[trial][: len(curve)], curve)  # the same training, taken further
