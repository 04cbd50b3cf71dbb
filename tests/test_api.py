"""The Python API, where a notebook calls it, and the notebook in `examples/`."""

import doctest
import shutil
import subprocess
import sys
from pathlib import Path

import nbclient
import nbformat
import numpy as np
import pandas as pd
import pytest

from conftest import ROOT
from mvsa_tune import api, grid, load_head, load_results
from mvsa_tune.data.dataset import Dataset
from mvsa_tune.embeddings.cache import default_folder
from mvsa_tune.errors import InputError
from mvsa_tune.results.schema import PROVENANCE

NOTEBOOK = ROOT / "examples" / "first_sweep.ipynb"


@pytest.fixture(scope="module")
def results(swept: Path) -> api.Results:
    return load_results(swept)


@pytest.fixture
def folder(swept: Path, demo: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder where one works: `data/demo`, swept in `results/demo`, so that the same sweep needs no Ray."""
    shutil.copytree(demo.folder, tmp_path / "data" / "demo")
    shutil.copytree(swept, tmp_path / "results" / "demo")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_examples_of_the_docstrings_run(folder: Path) -> None:
    failed, tried = doctest.testmod(api)
    assert tried > 12 and not failed


def test_a_sweep_that_is_recorded_returns_its_results_and_prints_no_tables(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = {"lr": 0.01, "batch_size": 32, "epochs": 6, "seeds": 3, "no_report": True}
    returned = grid(demo=True, D=[4, 8], ablation=range(3), **settings)
    assert returned.folder == Path("results/demo") and len(returned.trials) == 18
    assert "|" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lrr": 0.1}, "--lrr"),
        ({"lr": "fast"}, "lr: invalid float"),
        ({"D": 0}, "--D 0: must be"),
        ({"data": "nowhere"}, "nowhere"),
        ({"name": "a/b"}, "--name a/b"),
    ],
)
def test_what_is_wrong_is_raised_as_the_command_says_it(
    settings: dict[str, object], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=message):
        grid(**settings)
    with pytest.raises(InputError, match="no sweep in"):
        load_results("results/grid")


def test_the_best_has_the_highest_mean_of_its_rows(results: api.Results) -> None:
    means = results.trials.groupby("trial_id")["val_acc_cross"].mean()
    assert results.best["val_acc_cross_mean"] == pytest.approx(means.max())
    assert means[results.best["trial_id"]] == means.max()


def test_curves_end_in_the_recorded_scores(results: api.Results) -> None:
    for which in results.summary["trial_id"]:
        curves = results.curves(which).groupby(["seed", "fold"])
        rows = results.trials[results.trials["trial_id"] == which].set_index(["seed", "fold"])
        np.testing.assert_allclose(curves["val_acc"].max(), rows["val_acc_best"])
        np.testing.assert_allclose(curves["val_acc"].last(), rows["val_acc_last"])
        np.testing.assert_allclose(curves["val_loss"].last(), rows["val_loss_last"], rtol=1e-6)


def test_differences_are_those_of_the_means_whatever_names_the_baseline(results: api.Results) -> None:
    means = dict(results.summary[["trial_id", "val_acc_cross_mean"]].to_numpy())
    names = {config.name: config.id for config in results.store.configs()}
    for row in [None, *results.summary.iloc]:
        baseline = results.best if row is None else row
        compared = [results.compare(row)]
        if row is not None:
            config = next(config for config in results.store.configs() if config.id == row["trial_id"])
            compared += [results.compare(which) for which in (config, config.id, config.name)]
        for frame in compared:
            assert len(frame) == 5 and frame.equals(compared[0])
            expected = [means[names[name]] - means[baseline["trial_id"]] for name in frame["configuration"]]
            np.testing.assert_allclose(frame["difference"], expected, atol=1e-12)
            assert ((frame["low"] <= frame["difference"]) & (frame["difference"] <= frame["high"])).all()


def test_against_the_best_p_is_that_of_the_summary(results: api.Results) -> None:
    compared = results.compare().set_index("configuration")
    names = {config.id: config.name for config in results.store.configs()}
    summary = results.summary.set_index(results.summary["trial_id"].map(names)).loc[compared.index]
    np.testing.assert_allclose(compared["difference"], -summary["behind_best"])
    np.testing.assert_allclose(compared["p_corrected"], summary["p_best"])


def test_a_configuration_that_is_not_there_is_an_error_that_lists_those_that_are(results: api.Results) -> None:
    for method in (results.curves, results.compare, results.plot_curves):
        with pytest.raises(InputError, match=rf"no trained configuration best.*{results.best['trial_id']}"):
            method("best")


def test_figures_show_themselves_where_pyplot_is_not_used(results: api.Results) -> None:
    figure = results.plot_curves(*results.summary["trial_id"][:2])
    assert len(figure.axes[0].get_lines()) == 2
    for shown in (figure, results.plot_accuracy()):
        assert shown._repr_png_().startswith(b"\x89PNG")


def test_html_begins_with_the_answer_and_has_every_configuration_the_best_first(results: api.Results) -> None:
    page = results._repr_html_()
    names = [config.name for config in results.store.configs()]
    table = page[page.index("<table") :]
    best = next(config.name for config in results.store.configs() if config.id == results.best["trial_id"])
    assert best in page[: page.index("<table")] and best in repr(results) and "<script" not in page
    assert min(names, key=table.index) == best


def test_a_head_of_a_sweep_and_its_export_label_as_the_command_does(folder: Path) -> None:
    """On the sweep's unlabelled pairs: by the data folder, by pictures and texts, by vectors, and from an export."""
    results, head = load_results("results/demo"), load_head("results/demo")
    expected = results.predict()
    unlabelled = [line.partition(",")[0] for line in Path("data/demo/test_without_label.txt").read_text().split()[1:]]
    assert expected["guid"].tolist() == unlabelled
    pictures = [Path("data/demo/data") / f"{guid}.jpg" for guid in unlabelled]
    labelled = head.predict(pictures, [path.with_suffix(".txt").read_text() for path in pictures])
    numbers = expected.columns[2:]
    np.testing.assert_allclose(labelled[numbers], expected[numbers], atol=1e-5)
    caches = default_folder(Path("data/demo"))
    vectors = {
        name: np.load(caches / encoder / f"{name}.npy")[600:]
        for name, encoder in (("image", "demo-pixels"), ("text", "demo-words"))
    }
    vectors = {name: vectors[name] for name in head.config.modalities}
    np.testing.assert_allclose(head.predict_vectors(**vectors)[numbers], expected[numbers], atol=1e-6)
    command = [sys.executable, "-m", "mvsa_tune", "export", "results/demo", "--out", "exported"]
    subprocess.run(command, check=True, capture_output=True)
    exported = load_head("exported")
    assert exported.config == head.config
    assert exported.predict_vectors(**vectors).equals(head.predict_vectors(**vectors))


def test_a_head_needs_one_picture_and_one_text_for_every_pair(folder: Path) -> None:
    fusion = load_results("results/demo").summary.query("ablation == 0").iloc[0]
    head = load_head("results/demo", fusion)
    for pictures, texts in ((["a.jpg"], None), (None, ["a"]), (["a.jpg"], ["a", "b"]), (None, None)):
        with pytest.raises(InputError, match="needs images and texts"):
            head.predict(pictures, texts)
    text_only = load_results("results/demo").summary.query("ablation == 1").iloc[0]
    assert len(load_head("results/demo", text_only).predict(texts=["happy", "sad", "the"])) == 3


IN_A_RAY = """
import asyncio, gc, os, signal, sys, threading, time
from pathlib import Path
import ray
from mvsa_tune import grid, load_results
from mvsa_tune.cluster.session import this_machine

def sweep(name="small", **settings):
    return grid(
        data=sys.argv[1], name=name, pairs=["demo-pixels+demo-words"], ablation=[0, 1, 2], lr=0.01, batch_size=32,
        seeds=3, scheduler="none", no_report=True, **settings,
    )

async def in_a_loop():
    return sweep(D=[4, 8], epochs=6)

def interrupt():
    rows = Path("results/stopped/trials.csv")
    while not rows.exists() or rows.read_text().count("\\n") < 2:
        time.sleep(0.02)
    os.kill(os.getpid(), signal.SIGINT)

def free():
    return ray.available_resources().get("CPU", 0)

ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)
gc.disable()  # by itself it would free what Tune has reserved, some time
threading.Thread(target=interrupt).start()
try:
    sweep(name="stopped", D=[16, 32, 64], epochs=40)
except KeyboardInterrupt as stopped:
    assert "kept in results/stopped" in str(stopped)
else:
    raise AssertionError("Ctrl-C was lost")
assert 0 < len(load_results("results/stopped").trials) < 27
for _ in range(100):
    time.sleep(0 if free() else 0.1)
assert free() == 1
gc.enable()
thread = threading.Thread(target=sweep, kwargs={"D": 4, "epochs": 6})
thread.start()
thread.join()
lengths = [len(load_results("results/small").trials), len(asyncio.run(in_a_loop()).trials)]
assert (lengths, this_machine().cpus, free()) == ([9, 18], 1, 1), (lengths, this_machine(), free())
"""


@pytest.mark.ray
def test_in_a_thread_and_in_asyncio_a_ray_that_runs_is_used_left_running_and_gives_the_commands_rows(
    swept: Path, demo: Dataset, tmp_path: Path
) -> None:
    """Ctrl-C there leaves no CPU reserved: a task of one's own runs afterwards."""
    command = [sys.executable, "-c", IN_A_RAY, str(demo.folder)]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert ended.returncode == 0, ended.stderr
    assert "ray.tune" not in ended.stderr and "experiment_analysis" not in ended.stderr
    expected, trials = (load_results(folder).trials for folder in (swept, tmp_path / "results" / "small"))
    compared = [name for name in expected if name not in {"seconds", *(column.name for column in PROVENANCE)}]
    pd.testing.assert_frame_equal(
        *(f[compared].sort_values(["trial_id", "seed"], ignore_index=True) for f in (trials, expected))
    )
    assert trials["command"].str.startswith("mvsa-tune grid --data ").all()


@pytest.mark.ray
def test_the_notebook_runs_from_top_to_bottom_and_is_kept_without_outputs(tmp_path: Path) -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert not any(cell.outputs or cell.execution_count for cell in cells)
    nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3").execute(cwd=tmp_path)
    outputs = [output for cell in cells for output in cell.outputs]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 2
    assert not any(output.get("data", {}).get("text/html") == "" for output in outputs)
    assert len(load_results(tmp_path / "results" / "first-sweep").trials) == 6 * 15
