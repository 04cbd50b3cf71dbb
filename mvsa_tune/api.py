"""Sweeps and their results in Python, for notebooks and scripts: what the commands do, returned instead of printed.

>>> from mvsa_tune import grid, load_head
>>> results = grid(demo=True, D=[4, 8], lr=0.01, ablation=[0, 1, 2], batch_size=32, epochs=6, seeds=3,
...                scheduler="none", quiet=True)
>>> results.best["D"], results.best["n"]
(8, 3)
>>> load_head("results/demo").predict(["data/demo/data/0001.jpg"], ["what a happy, sunny day"])["tag"].tolist()
['positive']
"""

import html
import re
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mvsa_tune import machine
from mvsa_tune.config import Config
from mvsa_tune.errors import InputError, some
from mvsa_tune.report.leaderboard import sweep_tables
from mvsa_tune.report.tables import score_cell, shown_scores
from mvsa_tune.results.schema import FINISHED
from mvsa_tune.results.store import Store
from mvsa_tune.stats.analysis import Analysis, analyse, verdict
from mvsa_tune.stats.compare import compared
from mvsa_tune.stats.differences import ALPHA, Difference
from mvsa_tune.sweeps import SWEEPS
from mvsa_tune.training import metrics
from mvsa_tune.tune.flags import arguments_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from mvsa_tune.inference.trained import FineTuned, Head
    from mvsa_tune.report.drawing import Plot

# How a configuration is named: by itself, its id or name, or its row in a summary; None is the best.
Which: TypeAlias = "Config | str | pd.Series[Any] | None"
MISSING = {"image": "pictures", "text": "texts"}
SHOWN = 20  # configurations of the table that a notebook shows
_running = threading.Lock()  # held by a sweep: a second one would end the first one's Ray


def grid(**settings: Any) -> "Results":
    """Sweep a grid, as `mvsa-tune grid` does, and return its results.

    A keyword is a flag of the command: `batch_size=32` is `--batch-size 32`, a list gives several values, `demo=True`
    is `--demo`, and `None` or `False` leaves a flag out. `mvsa-tune grid --help-all` lists them. What is recorded
    already is not trained again.

    It runs in any thread, and inside a running asyncio loop, as a notebook's, which it blocks; `await
    asyncio.to_thread(grid, …)` does not. A second sweep of this process waits for the first. Where this process has
    called `ray.init()`, that Ray is used, with no more trials at once than it has CPUs, and left running.

        >>> results = grid(demo=True, D=[4, 8], lr=0.01, ablation=[0, 1, 2], batch_size=32, epochs=6, seeds=3,
        ...                scheduler="none", quiet=True)
        >>> len(results.trials)  # a row for each seed of each configuration
        12
        >>> grid(demo=True, learning_rate=1e-3)  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        mvsa_tune.errors.InputError: unrecognized arguments: --learning-rate...

    Raises:
        InputError: a keyword or a value is wrong, data or caches are missing, or the results folder cannot be used.
        KeyboardInterrupt: the sweep was interrupted. What had finished is kept, and the same call goes on.
    """
    return _sweep("grid", settings)


def search(**settings: Any) -> "Results":
    """Search a space, as `mvsa-tune search` does, and return the results; `confirmed` has the finalists' fresh seeds.

    A range is a text, values to choose from are a list: `search(trials=12, lr="1e-4..1e-2", D=[64, 128])`. Keywords,
    threads, Ray and errors are as in `grid`.
    """
    return _sweep("search", settings)


def finetune(**settings: Any) -> "Results":
    """Fine-tune encoders with the head, as `mvsa-tune finetune` does, and return the results; see `grid`."""
    return _sweep("finetune", settings)


def _sweep(name: str, settings: Mapping[str, Any]) -> "Results":
    sweep, arguments = SWEEPS[name], arguments_of(settings)
    machine.settle()
    with _running, machine.interruptible(), _recorded_as(name, arguments):
        options = sweep.parse(arguments)
        code = sweep.run(options, show=False)
    from mvsa_tune.tune.runner import INTERRUPTED  # imports Ray

    folder = options.results / options.name
    if code == INTERRUPTED:
        raise KeyboardInterrupt(f"what was finished is kept in {folder}, and the same call goes on")
    return Results(folder)


@contextmanager
def _recorded_as(name: str, arguments: Sequence[str]) -> Iterator[None]:
    """Let rows and report name the command that would do the same, not that of the notebook's kernel."""
    before, sys.argv = sys.argv, ["-m", "mvsa_tune", name, *arguments]
    try:
        yield
    finally:
        sys.argv = before


def load_results(folder: Path | str) -> "Results":
    """Return the results in a folder, `results/NAME`; a sweep that still runs may go on, and be read again.

        >>> results = load_results("results/demo")
        >>> results.summary[["trial_id", "D", "ablation", "val_acc_cross_mean"]].shape
        (4, 4)

    Raises:
        InputError: there is no sweep in the folder.
    """
    results = Results(Path(folder))
    _ = results.store.manifest
    return results


class Results:
    """The results of a sweep, which show themselves in a notebook: the answer, then a table of the configurations.

    Where a method takes a configuration, that is its id or name, a row of `summary` or `best`, or a `Config`; without
    one it is the best. What is computed is kept; `load_results` reads a folder again.

    Attributes:
        folder: the results folder.
        store: what is recorded: `store.result(id)` has all predictions of all epochs.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.store = folder, Store(folder)

    @cached_property
    def analysis(self) -> Analysis:
        """What the numbers are worth: intervals, tests, questions, the power of the sweep."""
        return analyse(self.store)

    @cached_property
    def trials(self) -> pd.DataFrame:
        """Every row of `trials.csv`: one for each seed and fold of each configuration."""
        return self.store.rows()

    @cached_property
    def summary(self) -> pd.DataFrame:
        """A row for each configuration, as in `summary.csv`: fields, mean, std and 95 % interval of each score."""
        return self.analysis.with_intervals()

    @property
    def best(self) -> "pd.Series[Any]":
        """The row of `summary` of the configuration with the highest mean cross-fitted accuracy.

            >>> best = load_results("results/demo").best
            >>> bool(best["val_acc_cross_low"] < best["val_acc_cross_mean"] < best["val_acc_cross_high"])
            True

        Raises:
            InputError: no configuration was trained to its end.
        """
        trial = self._config(None).id
        return self.summary[self.summary["trial_id"] == trial].iloc[0]

    @cached_property
    def confirmed(self) -> "Results | None":
        """Of a search, the results of its finalists on fresh seeds; None before there are any."""
        from mvsa_tune.report.leaderboard import confirmed_folder

        folder = confirmed_folder(self.folder)
        return Results(folder) if (folder / "trials.csv").exists() else None

    def tables(self) -> dict[str, pd.DataFrame]:
        """Return the tables of `tables.md` by title, their cells as texts: `0.712 ± 0.011 [0.690, 0.734]`."""
        made = [table for table in sweep_tables(self.analysis) if table.body]
        return {table.title: pd.DataFrame(table.body, columns=list(table.header)) for table in made}

    def curves(self, config: Which = None) -> pd.DataFrame:
        """Return losses and accuracy of a configuration by epoch, of every seed and fold.

        >>> curves = load_results("results/demo").curves()
        >>> list(curves)
        ['seed', 'fold', 'epoch', 'train_loss', 'val_loss', 'val_acc']
        >>> curves.groupby("epoch")["val_acc"].mean().shape
        (6,)
        """
        trial = self._config(config).id
        result, parts = self.store.result(trial), []
        for r, replicate in enumerate(self.store.replicates(trial)):
            columns = {"train_loss": result.train_loss, "val_loss": result.val_loss, "val_acc": result.accuracy}
            columns |= {"test_acc": metrics.accuracy(result.test_confusion)} if result.tested else {}
            curves = {name: values[:, r] for name, values in columns.items()}
            epochs = np.arange(1, result.epochs + 1)
            parts.append(pd.DataFrame({"seed": replicate.seed, "fold": replicate.fold, "epoch": epochs, **curves}))
        return pd.concat(parts, ignore_index=True)

    def compare(self, other: "Results | Which" = None) -> pd.DataFrame:
        """Return differences of cross-fitted accuracy with 95 % intervals and p.

        Args:
            other: a configuration: each other one minus it, p corrected by Holm's method. None: each minus the best,
                with simultaneous intervals, and as `adjusted` p of being the best as well (docs/statistics.md).
                Another sweep on the same samples: what it has more than this one, for configurations that both have
                and for the bests, p corrected by Holm's method.

            >>> results = load_results("results/demo")
            >>> list(results.compare())
            ['configuration', 'accuracy', 'mean', 'low', 'high', 'p', 'adjusted']
            >>> results.compare(results)["mean"].abs().max()
            0.0

        Raises:
            InputError: there is nothing that can be compared.
        """
        if isinstance(other, Results):
            comparison = compared(self.store, other.store)
            return pd.DataFrame(
                _difference(name, [float(values.mean()) for values in comparison.pairs[name][1]], difference)
                for name, difference in comparison.differences.items()
            )
        baseline, scored = self._config(other), self.analysis.scored
        members, errors = self.analysis.errors or ((), None)
        ids = [self.analysis.ranked[member].config.id for member in members]
        if errors is None or baseline.id not in ids or len(ids) < 2:
            raise InputError(f"{baseline.name}: {self.folder} has no other configuration that it can be compared with")
        others = [trial for trial in ids if trial != baseline.id]
        if other is None:
            behind = [self.analysis.against_best[trial] for trial in others]
            differences = [replace(d, mean=-d.mean, low=-d.high, high=-d.low) for d in behind]
        else:
            weights = np.eye(len(ids))
            weights[:, ids.index(baseline.id)] -= 1
            differences = errors.test_all(weights[[ids.index(trial) for trial in others]])
        return pd.DataFrame(
            _difference(scored[trial].config.name, [float(scored[trial].values.mean())], difference)
            for trial, difference in zip(others, differences, strict=True)
        )

    def predict(self, data: Path | str | None = None, config: Which = None, **how: Any) -> pd.DataFrame:
        """Label the unlabelled samples of a data set; return `guid`, `tag`, mean probabilities and, `_std`, their std.

        Args:
            data: new pairs, in any layout that a sweep reads; None for the sweep's own unlabelled samples.
            config: the configuration whose heads label.
            how: other arguments of `mvsa_tune.inference.predict.predict`, such as `weights` or `refit`.

            >>> load_results("results/demo").predict().columns[:3].tolist()
            ['guid', 'tag', 'negative']
        """
        from mvsa_tune.inference.predict import predict

        return predict(self.store, self._config(config), None if data is None else Path(data), **how).table()

    def plot_accuracy(self) -> "Figure":
        """Draw the configurations' accuracies with their intervals."""
        return self.plots()["accuracy"]

    def plot_curves(self, *configs: Which) -> "Figure":
        """Draw validation accuracy by epoch of up to four configurations, by default the best."""
        from mvsa_tune.report import plots

        chosen = [self._config(config) for config in configs or (None,)]
        return _shown(plots.curves({config.name: self.store.result(config.id) for config in chosen}))

    def plots(self) -> "dict[str, Figure]":
        """Return every figure of the report, by the name of its files."""
        from mvsa_tune.report.page import drawings

        return {plot.name: _shown(plot) for section in drawings(self.analysis).values() for plot in section}

    def _config(self, which: Which) -> Config:
        """Return the configuration that the argument of a method names; InputError if it was not trained."""
        if which is None:
            if not self.analysis.ranked:
                raise InputError(f"{self.folder} has no configuration that was trained to its end")
            return self.analysis.ranked[0].config
        name = which if isinstance(which, str) else which.id if isinstance(which, Config) else which["trial_id"]
        trained = [scored.config for scored in self.analysis.scored.values()]
        known = {key: config for config in trained for key in (config.id, config.name)}
        if name not in known:
            raise InputError(f"{self.folder} has no trained {name}: it has {some([c.id for c in trained]) or 'none'}")
        return known[name]

    def __repr__(self) -> str:
        return f"Results({str(self.folder)!r}): {self._answer()[0].replace('**', '')}"

    def _answer(self) -> list[str]:
        """Return the answer in words, a paragraph each; that of a search is of its finalists, on fresh seeds."""
        answer = verdict(self.confirmed.analysis, of="the finalists, on fresh seeds") if self.confirmed else []
        return answer or verdict(self.analysis) or ["No configuration was trained to its end."]

    def _repr_html_(self) -> str:
        """Return the answer and a table of the configurations, the best first, for a notebook."""
        lines = [re.sub(r"\*\*(.*?)\*\*", r"<b>\1</b>", html.escape(line)) for line in self._answer()]
        text = "".join(f"<p>{line.replace(chr(10), '<br>')}</p>" for line in lines)
        ranking = self._ranking()
        table = ranking.head(SHOWN).to_html(index=False, border=0)
        more = f"<p>And {len(ranking) - SHOWN:,} more: <code>.summary</code></p>" if len(ranking) > SHOWN else ""
        return f"<div>{text}{table}{more}</div>"

    def _ranking(self) -> pd.DataFrame:
        """Return a row for each configuration, the best first, with cells for a person."""
        names = {config.id: config.name for config in self.store.configs()}
        ranks = {scored.config.id: rank for rank, scored in enumerate(self.analysis.ranked)}
        rows = self.summary.assign(rank=self.summary["trial_id"].map(ranks)).sort_values("rank", kind="stable")
        scores = shown_scores(rows)
        return pd.DataFrame(
            {
                "configuration": names[row["trial_id"]],
                **{column.header: score_cell(column, row) for column in scores},
                "n": row["n"],
                "may be the best": "yes" if row["rank"] == 0 or row["p_best"] >= ALPHA else "",
                "note": "" if row["status"] == FINISHED else row["status"],
            }
            for _, row in rows.iterrows()
        )


def _difference(name: str, accuracies: Sequence[float], difference: Difference) -> dict[str, Any]:
    """Return a row of `Results.compare`."""
    numbers = {end: getattr(difference, end) for end in ("mean", "low", "high", "p", "adjusted")}
    accuracy = dict(zip(("accuracy", "other_accuracy"), accuracies, strict=False))
    return {"configuration": name, **accuracy, **numbers}


def _shown(plot: "Plot") -> "Figure":
    """Return a plot's figure; in a notebook it shows itself, although pyplot has not made it."""
    plot.figure._repr_png_ = lambda: plot.png  # type: ignore[attr-defined]
    return plot.figure


@dataclass(frozen=True)
class TrainedHead:
    """A trained configuration, which labels pairs of picture and text, by the mean of its replicates."""

    model: "Head | FineTuned"

    @property
    def config(self) -> Config:
        """The configuration."""
        return self.model.config

    @property
    def labels(self) -> list[str]:
        """The classes, in order."""
        return list(self.model.about["labels"])

    def predict(
        self,
        pictures: Sequence[Path | str] | None = None,
        texts: Sequence[str] | None = None,
        weights: Mapping[str, Path] | None = None,
    ) -> pd.DataFrame:
        """Label N pairs; return `guid` (the picture's file), `tag`, mean probabilities and, as `CLASS_std`, their std.

        Args:
            pictures: files; None for a head that sees texts alone.
            texts: raw texts; None for a head that sees pictures alone.
            weights: of the encoders of a head on embeddings, by name; None for the published ones.

            >>> head = load_head("results/demo")
            >>> head.predict(["data/demo/data/0001.jpg"], ["awful storm, broken train"])["tag"].tolist()
            ['negative']

        Raises:
            InputError: a picture cannot be read, a modality is missing, or the encoders are not those of the sweep.
        """
        from mvsa_tune.inference.predict import vectors_of
        from mvsa_tune.inference.trained import Head

        given = {"image": pictures, "text": texts}
        if lacking := [kind for kind in self.config.modalities if given[kind] is None]:
            raise InputError(f"{self.config.name} needs {' and '.join(MISSING[kind] for kind in lacking)}")
        count = len(given[self.config.modalities[0]] or ())
        files, words = [Path(picture) for picture in pictures or [""] * count], list(texts or [""] * count)
        if len(files) != len(words):
            raise InputError(f"{len(files)} pictures and {len(words)} texts: give one of each for every pair")
        if isinstance(self.model, Head):
            votes = self.model.votes(vectors_of(self.model, files, words, weights))
        else:
            votes = self.model.votes(files, words)
        return self._table([str(file) for file in files], votes)

    def predict_vectors(self, **vectors: NDArray[Any]) -> pd.DataFrame:
        """Label N samples by raw vectors, `image=` and `text=`, `(N, width)` each; return a table as `predict` does.

        Raises:
            InputError: a modality is missing, its vectors have another width, or this is no head on embeddings.
        """
        if "widths" not in self.model.about:
            raise InputError(f"{self.config.name} has fine-tuned encoders, which take pictures and texts: use predict")
        votes = self.model.votes(vectors)  # type: ignore[call-arg, arg-type]
        return self._table([str(row) for row in range(votes.shape[1])], votes)

    def _table(self, guids: list[str], votes: NDArray[np.float32]) -> pd.DataFrame:
        from mvsa_tune.inference.predict import Predictions

        return Predictions(guids, self.labels, votes, [], self.model.about["training"]).table()


def load_head(
    folder: Path | str,
    config: Which = None,
    *,
    data: Path | str | None = None,
    cache: Path | str | None = None,
    weights: Mapping[str, Path] | None = None,
    refit: bool = False,
) -> TrainedHead:
    """Return the trained head, or fine-tuned network, of a sweep's best configuration, or of one that was exported.

    A head on embeddings is trained again the first time, in seconds and with the same numbers, and kept in the sweep's
    folder.

    Args:
        folder: `results/NAME`, or a folder that `mvsa-tune export` has written.
        config: another configuration of the sweep.
        data: the sweep's data, if it has moved.
        cache: the sweep's embedding caches, if they have moved.
        weights: files or folders of the pretrained encoders of a fine-tuned network, by name.
        refit: train on all labelled samples instead, validation and test samples too.

        >>> head = load_head("results/demo")
        >>> head.config.D, head.labels
        (8, ['negative', 'neutral', 'positive'])

    Raises:
        InputError: there is no sweep and no export, or its data, vectors or weights are missing.
    """
    from mvsa_tune.inference import select, trained

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
