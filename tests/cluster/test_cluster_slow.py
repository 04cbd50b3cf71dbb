"""What takes longer to show on a real Ray cluster: `make test-cluster`."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

import chaos
from conftest import ROOT, run_command
from local_cluster import LocalCluster, can_hide, local_cluster
from mvsa_tune.config import Asha
from mvsa_tune.data.dataset import Dataset
from mvsa_tune.data.demo import TRAINABLE_PAIRS, make_demo_set
from mvsa_tune.embeddings.cache import default_folder
from mvsa_tune.results.store import Store
from test_cluster import SWEEP, cluster, wait

__all__ = ["cluster"]
pytestmark = pytest.mark.slow
DEMO = ("--pairs", "demo-pixels+demo-words", "--quiet")


def test_two_nodes_that_die_one_after_another_change_no_number_and_no_table(tiny: Path, cluster: LocalCluster) -> None:
    """Tune tries a trial no second time here: one whose node dies runs again all the same."""
    work = tiny.parent
    assert run_command("--data", tiny, *SWEEP, "--name", "calm", cwd=work).returncode == 0
    flags = ("--data", tiny, *SWEEP, "--name", "chaos", "--max-failures", 0, "--address", cluster.address)
    process, results = chaos.start(work, *flags), work / "results" / "chaos"
    for count, dies, comes in ((4, "first", "second"), (16, "second", "third")):
        wait(process, lambda count=count: chaos.rows(results) >= count)
        cluster.add(comes)
        cluster.kill(dies)
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 0, out
    chaos.check_same(Store(results), Store(work / "results" / "calm"))


def test_the_heads_death_is_told_and_the_same_command_goes_on_on_another_cluster(
    tiny: Path, cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = tiny.parent
    results = work / "results" / "grid"
    process = chaos.start(work, "--data", tiny, *SWEEP, "--storage", work / "there", "--address", cluster.address)
    wait(process, lambda: chaos.rows(results) >= 6)
    began = time.monotonic()
    cluster.kill("head")
    out, _ = process.communicate(timeout=70)
    assert process.returncode != 0 and "the same command goes on" in out, out
    assert time.monotonic() - began < 40
    before = Store(results).rows()
    assert 6 <= len(before) < 36
    with local_cluster() as other:
        other.add("fresh")
        for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN"):
            monkeypatch.setenv(name, other.environment[name])
        ended = run_command("--data", tiny, *SWEEP, "--storage", work / "there", "--address", other.address, cwd=work)
    assert ended.returncode == 0, ended.stderr
    after = Store(results).rows()
    assert len(after) == 36 and before.merge(after, how="inner").shape == before.shape
    assert (work / "there" / "grid" / "trials.csv").read_bytes() == (results / "trials.csv").read_bytes()
    assert list((results / "tensorboard").rglob("events*"))


def test_asha_on_a_cluster_stops_what_it_would_stop_and_keeps_curves(tiny: Path, cluster: LocalCluster) -> None:
    work = tiny.parent
    flags = (
        "--data",
        tiny,
        "--pairs",
        "eye+ear",
        "--batch-size",
        8,
        "--seeds",
        2,
        "--quiet",
        "--D",
        *range(4, 16),
        "--epochs",
        60,
    )
    assert run_command(*flags, "--scheduler", "none", "--name", "calm", cwd=work).returncode == 0
    cluster.add("second")
    ended = run_command(*flags, "--name", "asha", "--address", cluster.address, "--nodes", 2, cwd=work)
    assert ended.returncode == 0, ended.stderr
    cut, full = Store(work / "results" / "asha").scores(), Store(work / "results" / "calm").scores()
    assert len(cut) == 12 and all((full[trial][: len(curve)] == curve).all() for trial, curve in cut.items())
    assert {len(curve) for curve in cut.values()} <= {*Asha().milestones(60), 60}
    assert any(len(curve) < 60 for curve in cut.values())


def test_a_search_runs_on_a_cluster(demo: Dataset, cluster: LocalCluster, tmp_path: Path) -> None:
    cluster.add("second")
    flags = (
        "--data",
        demo.folder,
        *DEMO,
        "--trials",
        8,
        "--epochs",
        10,
        "--seeds",
        2,
        "--confirm-seeds",
        2,
        "--finalists",
        2,
    )
    ended = run_command(
        *flags, "--head", "concat", "--address", cluster.address, "--nodes", 2, cwd=tmp_path, script="search.py"
    )
    assert ended.returncode == 0, ended.stderr
    store = Store(tmp_path / "results" / "search")
    assert len(store.configs()) == 8 and len(Store(store.folder / "confirmed").recorded()) == 2
    assert cluster.has_trained("first") and cluster.has_trained("second")


@pytest.mark.skipif(not can_hide(), reason="needs Linux's mount namespaces, to hide a folder from a node")
def test_embedding_and_fine_tuning_on_a_cluster_need_a_path_that_every_node_sees(
    tmp_path: Path, cluster: LocalCluster
) -> None:
    data = tmp_path / "demo"
    make_demo_set(data)
    command = ("embed", "--data", data, "--encoder", "demo-pixels", "--workers", 2)

    def embed(*more: object) -> subprocess.CompletedProcess[str]:
        line = [sys.executable, "-m", "mvsa_tune", *map(str, (*command, *more))]
        return subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)

    assert embed("--cache", tmp_path / "here").returncode == 0
    there = embed("--cache", tmp_path / "there", "--address", cluster.address)
    assert there.returncode == 0, there.stderr
    here, there_ = (
        json.loads((tmp_path / name / "demo-pixels" / "image.json").read_text()) for name in ("here", "there")
    )
    assert here["sha256"] == there_["sha256"]
    flags = (
        "--data",
        data,
        "--pairs",
        TRAINABLE_PAIRS[0],
        "--quiet",
        "--epochs",
        2,
        "--seeds",
        1,
        "--lr",
        1e-3,
        "--address",
        cluster.address,
    )
    tuned = run_command(*flags, cwd=tmp_path, script="finetune.py")
    assert tuned.returncode == 0, tuned.stderr
    assert list((tmp_path / "results" / "finetune" / "checkpoints").rglob("*.best.safetensors"))
    cluster.add("blind", hidden=data)
    for refused in (
        embed("--cache", tmp_path / "again", "--address", cluster.address, "--nodes", 2),
        run_command(*flags, "--nodes", 2, "--name", "blind", cwd=tmp_path, script="finetune.py"),
    ):
        assert refused.returncode == 2 and "is missing, not" in refused.stderr and "every node shares" in refused.stderr
    assert not default_folder(data).exists()
