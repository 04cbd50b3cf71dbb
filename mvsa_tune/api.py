"""Sweeps and their results in Python, for notebooks and scripts: what the commands do, returned instead of printed."""

import gc
import logging
import sys
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pandas as pd

from mvsa_tune import machine
from mvsa_tune.config import Config
from mvsa_tune.errors import InputError, some
from mvsa_tune.report.leaderboard import sweep_tables
from mvsa_tune.report.notebook import answer, as_html
from mvsa_tune.results.store import Store
from mvsa_tune.stats.analysis import Analysis, analyse
from mvsa_tune.stats.compare import compared, from_baseline
from mvsa_tune.stats.differences import Difference
from mvsa_tune.sweeps import SWEEPS
from mvsa_tune.training import metrics
from mvsa_tune.tune.flags import arguments_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from mvsa_tune.inference.predict import TrainedHead
    from mvsa_tune.report.drawing import Plot

# How a configuration is named: by itself, its id or name, or its row of a summary. None is the best.
Which: TypeAlias = "Config | str | pd.Series[Any] | None"
_sweeping = threading.Lock()  # a second sweep waits: the first one would end its Ray


def grid(**settings: Any) -> "Results":
    """Sweep a grid, as the command does, and return its results.

    A keyword is a flag of the command (`mvsa-tune grid --help`): `batch_size=32` is `--batch-size 32`, a list
    gives several values, `demo=True` is `--demo`; None and False leave a flag out. What is recorded already is not
    trained again.

    It runs in any thread, and inside a running asyncio loop, such as a notebook's, which it blocks; with
    `await asyncio.to_thread(grid, …)` it does not. A second sweep of this process waits for the first. Where the
    process uses a Ray (`ray.init()`), that one is used, with no more trials at once than it has CPUs, and left running;
    `ray.init(log_to_driver=False)` keeps its workers' messages out of a notebook.

        >>> results = grid(demo=True, D=[4, 8], ablation=[0, 1, 2], lr=0.01, batch_size=32, epochs=6, seeds=3,
        ...                no_report=True, quiet=True)
        >>> len(results.trials)  # three seeds of six configurations
        18
        >>> grid(demo=True, epoch_count=6)  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        mvsa_tune.errors.InputError: unrecognized arguments: --epoch-count 6...

    Raises:
        InputError: a keyword or a value is wrong, data or caches are missing, or the results folder cannot be used.
        KeyboardInterrupt: the sweep was interrupted. What had finished is kept, and the same call goes on.
    """
    return _sweep("grid", settings)


def search(**settings: Any) -> "Results":
    """Search a space and train the finalists on fresh seeds, as the command does, and return the results; see `grid`.

    A range is a text, values to choose from are a list: `search(trials=12, lr="1e-4..1e-2", D=[64, 128])`.
    """
    return _sweep("search", settings)


def finetune(**settings: Any) -> "Results":
    """Fine-tune encoders with the head, as the command does, and return the results; see `grid`."""
    return _sweep("finetune", settings)


def _sweep(name: str, settings: Mapping[str, Any]) -> "Results":
    sweep, arguments = SWEEPS[name], arguments_of(settings)
    machine.settle()
    logging.getLogger("ray.widgets.util").setLevel(logging.ERROR)  # it asks for ipywidgets, which nothing here needs
    with _sweeping, machine.interruptible(), _recorded_as(name, arguments), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "IProgress not found")  # nor does tqdm
        options = sweep.parse(arguments)
        if options.dry_run or options.print_config:
            raise InputError(f"dry_run and print_config only print: use the command `mvsa-tune {name}`")
        code = sweep.run(options, show=False)
    from mvsa_tune.tune.runner import INTERRUPTED  # imports Ray

    folder: Path = options.results / options.name
    if code == INTERRUPTED:
        gc.collect()  # ends at once what Tune has left running and reserved, in a Ray that goes on
        raise KeyboardInterrupt(f"what was finished is kept in {folder}, and the same call goes on")
    return Results(folder)


@contextmanager
def _recorded_as(name: str, arguments: Sequence[str]) -> Iterator[None]:
    """Let rows and report name the command that does the same, not the one that started the notebook's kernel."""
    before, sys.argv = sys.argv, ["mvsa-tune", name, *arguments]
    try:
        yield
    finally:
        sys.argv = before


def load_results(folder: Path | str) -> "Results":
    """Return the results in a folder, `results/NAME`, of a sweep that has ended or still runs.

        >>> load_results("results/demo").summary[["trial_id", "D", "ablation", "val_acc_cross_mean"]].shape
        (6, 4)

    Raises:
        InputError: there is no sweep in the folder.
    """
    results = Results(Path(folder))
    _ = results.store.manifest
    return results


class Results:
    """The results of a sweep. In a notebook they show the answer, then a table of the configurations.

    A method that takes a configuration takes its id, its name, its row of `summary`, or itself, by default the best.
    What is computed is kept; to see what has been added to a folder, load it again.

    Attributes:
        folder: the results folder.
        store: its content; `store.result(ID)` has the predictions of every epoch.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.store = folder, Store(folder)

    @cached_property
    def analysis(self) -> Analysis:
        """What the numbers are worth: intervals, tests, answers to questions, what differences the sweep can see."""
        return analyse(self.store)

    @cached_property
    def trials(self) -> pd.DataFrame:
        """The rows of `trials.csv`: one for each seed and fold of each configuration."""
        return self.store.rows()

    @cached_property
    def summary(self) -> pd.DataFrame:
        """A row for each configuration: its fields, and mean, std and 95 % interval of each score (`summary.csv`)."""
        return self.analysis.with_intervals()

    @property
    def best(self) -> "pd.Series[Any]":
        """The row of `summary` with the best mean cross-fitted accuracy; InputError before one is trained to its end.

        Examples:
            >>> best = load_results("results/demo").best
            >>> bool(best["val_acc_cross_low"] < best["val_acc_cross_mean"] < best["val_acc_cross_high"])
            True
        """
        return self.summary[self.summary["trial_id"] == self._config(None).id].iloc[0]

    @cached_property
    def confirmed(self) -> "Results | None":
        """The results of a search's finalists on fresh seeds; None before there are any, and of a grid."""
        from mvsa_tune.report.leaderboard import confirmed_folder

        folder = confirmed_folder(self.folder)
        return Results(folder) if (folder / "trials.csv").exists() else None

    def tables(self) -> dict[str, pd.DataFrame]:
        """Return the tables of `tables.md` by title; their cells are texts."""
        made = [table for table in sweep_tables(self.analysis) if table.body]
        return {table.title: pd.DataFrame(table.body, columns=list(table.header)) for table in made}

    def curves(self, config: Which = None) -> pd.DataFrame:
        """Return losses and accuracy of a configuration, a row for each epoch of each seed and fold.

        Examples:
            >>> load_results("results/demo").curves().groupby("seed")["val_acc"].max().shape
            (3,)
        """
        trial = self._config(config).id
        result = self.store.result(trial)
        curves: dict[str, Any] = {
            "train_loss": result.train_loss,
            "val_loss": result.val_loss,
            "val_acc": result.accuracy,
        }
        curves |= {"test_acc": metrics.accuracy(result.test_confusion)} if result.tested else {}
        index = [(r.seed, r.fold, epoch) for r in self.store.replicates(trial) for epoch in range(1, result.epochs + 1)]
        frame = pd.DataFrame(index, columns=["seed", "fold", "epoch"])
        return frame.assign(**{name: curve.T.ravel() for name, curve in curves.items()})

    def compare(self, other: "Results | Which" = None) -> pd.DataFrame:
        """Return differences of cross-fitted accuracy, each with its 95 % interval, p, and p corrected.

        Args:
            other: None: each configuration minus the best, with simultaneous intervals; `p_corrected` is p of being the
                best as well (docs/statistics.md). A configuration: each other one minus it, corrected by Holm's method.
                Another sweep on the same samples: it minus this one, for the configurations that both have and for
                their bests, corrected by Holm's method.

        Raises:
            InputError: there is nothing that can be compared.

            >>> results = load_results("results/demo")
            >>> bool((results.compare()["difference"] <= 0).all())
            True
            >>> float(results.compare(results)["difference"].abs().max())
            0.0
        """
        if isinstance(other, Results):
            comparison = compared(self.store, other.store)
            return pd.DataFrame(
                _difference(name, difference, *comparison.pairs[name][1])
                for name, difference in comparison.differences.items()
            )
        differences = from_baseline(self.analysis, None if other is None else self._config(other).id)
        scored = self.analysis.scored
        return pd.DataFrame(
            _difference(scored[trial].config.name, difference, scored[trial].values)
            for trial, difference in differences.items()
        )

    def predict(
        self, data: Path | str | None = None, config: Which = None, cache: Path | str | None = None, **how: Any
    ) -> pd.DataFrame:
        """Label the unlabelled samples of a data set: `guid`, `tag`, mean probabilities and, as `CLASS_std`, their std.

        Args:
            data: new pairs, in any layout that a sweep reads; None for the sweep's own unlabelled samples.
            config: the configuration whose head labels them.
            cache: the embedding caches, if they are not in the data's folder.
            how: other arguments of `mvsa_tune.inference.predict.predict`, such as `weights` or `refit`.
        """
        from mvsa_tune.inference.predict import predict

        folder, caches = (None if path is None else Path(path) for path in (data, cache))
        return predict(self.store, self._config(config), folder, caches, **how).table()

    def plot_accuracy(self) -> "Figure":
        """Draw the accuracy of each configuration with its interval."""
        return self.plots()["accuracy-wide"]

    def plot_curves(self, *configs: Which) -> "Figure":
        """Draw validation accuracy by epoch of up to four configurations, by default of the best."""
        from mvsa_tune.report import plots

        chosen = map(self._config, configs or (None,))
        return _shown(plots.curves({config.name: self.store.result(config.id) for config in chosen}))

    def plots(self) -> "dict[str, Figure]":
        """Return every figure of the report, by the name of its file."""
        from mvsa_tune.report.page import drawings

        return {plot.name: _shown(plot) for section in drawings(self.analysis).values() for plot in section}

    def _config(self, which: Which) -> Config:
        """Return the configuration that the argument of a method names; InputError if it was not trained."""
        if which is None:
            if not self.analysis.ranked:
                raise InputError(f"{self.folder} has no configuration that was trained to its end")
            return self.analysis.ranked[0].config
        name = which.id if isinstance(which, Config) else which if isinstance(which, str) else str(which["trial_id"])
        trained = [scored.config for scored in self.analysis.scored.values()]
        known = {key: config for config in trained for key in (config.id, config.name)}
        if name not in known:
            raise InputError(
                f"{self.folder} has no trained configuration {name}; it has {some([c.id for c in trained])}"
            )
        return known[name]

    def __repr__(self) -> str:
        return f"Results({str(self.folder)!r}): {answer(self.analysis)[0].replace('**', '')}"

    def _repr_html_(self) -> str:
        return as_html(self.analysis)


def _difference(name: str, difference: Difference, *values: np.ndarray[Any, Any]) -> dict[str, Any]:
    """Return a row of `Results.compare`; `values` are of the configuration, or of it in both sweeps."""
    accuracies = {key: float(array.mean()) for key, array in zip(("accuracy", "other_accuracy"), values, strict=False)}
    interval = {"difference": difference.mean, "low": difference.low, "high": difference.high}
    return {"configuration": name, **accuracies, **interval, "p": difference.p, "p_corrected": difference.adjusted}


def _shown(plot: "Plot") -> "Figure":
    """Return a plot's figure, which a notebook shows although pyplot has not made it."""
    plot.figure._repr_png_ = lambda: plot.png  # type: ignore[attr-defined]
    return plot.figure


def load_head(
    folder: Path | str,
    config: Which = None,
    *,
    data: Path | str | None = None,
    cache: Path | str | None = None,
    weights: Mapping[str, Path] | None = None,
    refit: bool = False,
) -> "TrainedHead":
    """Return a trained head, or fine-tuned network, of a sweep's configuration, by default the best, or an export.

    A head on embeddings is trained again the first time, in seconds and with the same numbers; the sweep's folder keeps
    it.

    Args:
        folder: `results/NAME`, or a folder that the command `export` has written.
        config: the configuration of the sweep, as in `Results`.
        data: the sweep's data, if it has moved.
        cache: the sweep's embedding caches, if they have moved.
        weights: files or folders of the pretrained encoders of a fine-tuned network, by name.
        refit: train on all labelled samples, those for validation and test too.

        >>> head = load_head("results/demo")
        >>> head.predict(["data/demo/data/0001.jpg"], ["awful storm, broken and lost"])["tag"].item()
        'negative'
        >>> import numpy as np
        >>> head.predict_vectors(image=np.zeros((5, 192)), text=np.zeros((5, 128))).shape
        (5, 8)

    Raises:
        InputError: there is no sweep and no export, or its data, vectors or weights are missing.
    """
    from mvsa_tune.inference import select, trained
    from mvsa_tune.inference.predict import TrainedHead

    path = Path(folder)
    if (path / "head.safetensors").exists():
        return TrainedHead(trained.load_head(path))
    if (path / "card.json").exists():
        return TrainedHead(trained.load_finetuned(path, weights or {}))
    results, moved = load_results(path), None if data is None else Path(data)
    chosen = results._config(config)
    if chosen.finetuned:
        return TrainedHead(select.chosen_network(results.store, chosen, moved, weights or {}, refit=refit))
    caches = None if cache is None else Path(cache)
    return TrainedHead(select.chosen_head(results.store, chosen, moved, caches, refit=refit))
