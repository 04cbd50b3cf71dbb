"""What a sweep has found, with what it is worth: rows and answers → intervals, differences, the winner, questions, importance. Trains nothing."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mvsa_tune.config import Config
from mvsa_tune.results.schema import FINISHED, STOPPED
from mvsa_tune.results.store import Store
from mvsa_tune.stats.alignment import Alignment, Array, align
from mvsa_tune.stats.importance import Importance, importances
from mvsa_tune.stats.intervals import Interval, Redrawn, accuracy, summary
from mvsa_tune.stats.questions import Question, questions
from mvsa_tune.stats.selection import Winner, expected_best, winner
from mvsa_tune.stats.summary import ranked, summarise
from mvsa_tune.stats.tests import ALPHA, Among, Difference, of_means
from mvsa_tune.training.result import Correctness


class Scored:
    """A configuration that was trained, and what its accuracy is worth: each `Interval` when it is asked for."""

    def __init__(self, config: Config, answers: Correctness, alignment: Alignment) -> None:
        self.config = config
        self.ratio = None if alignment.places is not None else alignment.ratio
        self.values = alignment.apply(answers.cross_fitted, answers.rows)
        self._best = alignment.apply(answers.best, answers.rows)
        self._last = alignment.apply(answers.last, answers.rows)

    @cached_property
    def cross(self) -> Interval | None:
        """At the epoch that is best on other samples than those scored; None where no interval can be had."""
        return self._interval(self.values)

    @cached_property
    def best(self) -> Interval | None:
        """At the best epoch, as the reference: it reads high."""
        return self._interval(self._best)

    @cached_property
    def last(self) -> Interval | None:
        """After the last epoch."""
        return self._interval(self._last)

    def _interval(self, values: Array) -> Interval | None:
        if self.ratio is None:
            return accuracy(values)
        if len(values) < 2:
            return None
        redrawn = Redrawn(values, self.ratio)
        return summary(redrawn, *redrawn.interval(0, 1))


@dataclass(frozen=True)
class Analysis:
    """What a sweep has found. Everything is computed when it is first asked for, and the same every time.

    Attributes:
        store: the sweep.
        summary: `stats.summarise`.
        ranked: what was trained to the end, the best first, by cross-fitted accuracy.
        stopped: what the scheduler stopped, in the sweep's order; no rival of the former.
        rows: row numbers of the samples that the answers are to, in their order; empty where seeds were scored on others.
    """

    store: Store
    summary: pd.DataFrame
    ranked: tuple[Scored, ...]
    stopped: tuple[Scored, ...]
    rows: NDArray[np.int32]

    @cached_property
    def scored(self) -> Mapping[str, Scored]:
        """Both, by the configuration's id."""
        return {one.config.id: one for one in (*self.ranked, *self.stopped)}

    @property
    def comparable(self) -> bool:
        """Whether the configurations' answers are to the same samples, seed by seed."""
        return bool(self.ranked) and self.ranked[0].ratio is None

    @cached_property
    def against_best(self) -> Mapping[str, Difference]:
        """By id of the others: the best less that one, p corrected over all pairs."""
        return self.behind_best({one.config.id for one in self.ranked})

    def behind_best(self, trials: Collection[str]) -> Mapping[str, Difference]:
        """The same among some trials alone; reckoned once for each set of them, as every file of a sweep asks for the same."""
        mine = [one for one in self.ranked if one.config.id in trials]
        key = tuple(one.config.id for one in mine)
        if key not in self._behind:
            self._behind[key] = differences_from_best(mine)
        return self._behind[key]

    @cached_property
    def _behind(self) -> dict[tuple[str, ...], Mapping[str, Difference]]:
        return {}

    def with_intervals(self) -> pd.DataFrame:
        """The summary, each configuration's interval of each accuracy, and its comparison with the best, beside it."""
        lines = []
        for trial in self.summary["trial_id"]:
            one, less = self.scored.get(trial), self.against_best.get(trial)
            line: dict[str, object] = {}
            for column, name in {"val_acc_cross": "cross", "val_acc_best": "best", "val_acc_last": "last"}.items():
                found: Interval | None = getattr(one, name) if one else None
                line |= {f"{column}_low": found.low, f"{column}_high": found.high} if found else {}
            if less:
                of = less.interval
                line |= {
                    "behind_best": of.mean,
                    "behind_best_low": of.low,
                    "behind_best_high": of.high,
                    "p": less.p,
                    "p_holm": less.corrected,
                }
            lines.append(line)
        columns = [
            f"{name}_{end}" for name in ("val_acc_cross", "val_acc_best", "val_acc_last") for end in ("low", "high")
        ]
        columns += ["behind_best", "behind_best_low", "behind_best_high", "p", "p_holm"]
        return pd.concat([self.summary, pd.DataFrame(lines, columns=columns, index=self.summary.index)], axis=1)

    def tied(self) -> list[Scored]:
        """Those that cannot be told from the best."""
        return [one for one in self.ranked[1:] if self.against_best[one.config.id].corrected >= ALPHA]

    @cached_property
    def winner(self) -> Winner | None:
        """What of the best's lead is luck; None for fewer than two, or where the answers cannot be lined up."""
        if len(self.ranked) < 2 or not self.comparable:
            return None
        return winner([one.values for one in self.ranked])

    @cached_property
    def budget(self) -> NDArray[np.float64]:
        """`(K,)` what the best of 1, 2, … K configurations would show."""
        return expected_best([float(one.values.mean()) for one in self.ranked]) if self.ranked else np.zeros(0)

    @cached_property
    def questions(self) -> tuple[Question, ...]:
        """What configurations that differ in one thing alone say of it."""
        if not self.comparable or self.store.manifest.space:  # samples of a search seldom differ in one thing
            return ()
        return questions([one.config for one in self.ranked], [one.values for one in self.ranked])

    @cached_property
    def importance(self) -> tuple[Importance, ...]:
        """Each hyperparameter's share of the variance of accuracy."""
        if not self.ranked:
            return ()
        return importances([one.config for one in self.ranked], np.stack([one.values for one in self.ranked]))


def differences_from_best(ranked: Sequence[Scored]) -> dict[str, Difference]:
    """By id of the others: the first of `ranked` less that one, p corrected over every two of them.

    Where there is one seed, an answer counts as right that is right in half of the ways to choose its epoch: McNemar's test is of answers.
    """
    if len(ranked) < 2 or (ranked[0].ratio is not None and len(ranked[0].values) < 2):
        return {}
    values = [one.values for one in ranked]
    if ranked[0].ratio is not None:
        found = of_means(values, ranked[0].ratio)
    else:
        among = Among([np.round(one + 1e-9) for one in values] if len(values[0]) == 1 else values)
        found = [among.difference(0, place) for place in range(1, len(ranked))]
    return {one.config.id: less for one, less in zip(ranked[1:], found, strict=True)}


def analyse(store: Store) -> Analysis:
    """Read what a sweep has recorded.

    Raises:
        InputError: a file of it is missing or damaged.
    """
    lines = summarise(store)
    configs = {config.id: config for config in store.configs()}
    order = [str(trial) for trial in ranked(lines)["trial_id"]]
    halted = [trial for trial in store.recorded((FINISHED, STOPPED)) if trial not in set(order)]
    if not order and not halted:
        return Analysis(store, lines, (), (), np.zeros(0, dtype=np.int32))
    alignment = align(store.correctness([*order, *halted][0]), store.manifest.replicates, store.split)

    def scored(trials: Sequence[str]) -> tuple[Scored, ...]:
        return tuple(Scored(configs[trial], store.correctness(trial), alignment) for trial in trials)

    return Analysis(store, lines, scored(order), scored(halted), alignment.rows)
