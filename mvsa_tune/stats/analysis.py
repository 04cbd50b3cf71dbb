"""What a sweep's numbers are worth: intervals, comparisons with the best, luck, questions, importance, and a verdict.

Reads a results folder and trains nothing. Each configuration has the intervals of all its own seeds; configurations are
compared on the seeds that they have in common.
"""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mvsa_tune.config import Config, Replicate
from mvsa_tune.data.splits import Split
from mvsa_tune.results.schema import FINISHED, SCORES, STOPPED
from mvsa_tune.results.store import Store
from mvsa_tune.stats.importance import Importance, importances
from mvsa_tune.stats.intervals import Array, Interval, accuracy, redrawn
from mvsa_tune.stats.questions import Question, questions
from mvsa_tune.stats.selection import Winner, expected_best, winner
from mvsa_tune.stats.summary import ranked, summarise
from mvsa_tune.stats.tests import ALPHA, Comparisons, Difference, on_common_seeds
from mvsa_tune.training.result import NO_ROW, Correctness

NAMED = 5  # configurations that the verdict names as not distinguishable from the best
Positions = Mapping[int, NDArray[np.intp]]


class Scored:
    """A trained configuration with its accuracies; an interval is computed when it is first read, and may be None.

    Attributes:
        config: the configuration.
        seeds: the S seeds of which it has all folds.
        values: `(S, M)` cross-fitted correctness on the M validation samples, by row number, a seed's folds put
            together; or `(S, 1)` accuracies where each seed draws its own samples.
        ratio: of validation to training samples where each seed draws its own; else None.
    """

    def __init__(self, config: Config, correctness: Correctness, positions: Positions, ratio: float | None) -> None:
        self.config, self.seeds, self.ratio = config, tuple(positions), ratio
        self.values, self._best, self._last = (
            by_seed(array, positions, redrawn=ratio is not None)
            for array in (correctness.cross_fitted, correctness.best, correctness.last)
        )

    @cached_property
    def cross_fitted(self) -> Interval | None:
        """The accuracy at the epoch that is best on other samples than those scored."""
        return self._interval(self.values)

    @cached_property
    def best(self) -> Interval | None:
        """The accuracy at the best epoch, as the reference reports it; biased upwards."""
        return self._interval(self._best)

    @cached_property
    def last(self) -> Interval | None:
        """The accuracy after the last epoch."""
        return self._interval(self._last)

    def _interval(self, values: Array) -> Interval | None:
        if self.ratio is not None:
            return redrawn(values[:, 0], self.ratio, 0) if len(values) > 1 else None
        return accuracy(values) if len(values) else None


@dataclass(frozen=True)
class Analysis:
    """A sweep and what its numbers are worth; everything is computed when it is first read, the same every time."""

    store: Store
    summary: pd.DataFrame  # of `summarise`
    ranked: tuple[Scored, ...]  # trained to their end, the best first, by cross-fitted accuracy
    stopped: tuple[Scored, ...]  # by the scheduler, in the order of the sweep; not compared with the others
    rows: NDArray[np.int32]  # (M,) row numbers of the samples of `Scored.values`; empty where each seed draws its own
    _behind: dict[tuple[Scored, ...], Mapping[str, Difference]] = field(default_factory=dict, init=False, repr=False)

    @cached_property
    def scored(self) -> Mapping[str, Scored]:
        """All of `ranked` and `stopped`, by the configuration's id."""
        return {scored.config.id: scored for scored in (*self.ranked, *self.stopped)}

    @property
    def comparable(self) -> bool:
        """Whether the configurations are scored on the same samples, seed by seed."""
        return bool(self.ranked) and self.ranked[0].ratio is None

    @cached_property
    def against_best(self) -> Mapping[str, Difference]:
        """The best minus each other configuration that shares a seed with it, by the other's id."""
        return self.behind_best({scored.config.id for scored in self.ranked})

    def behind_best(self, trials: Collection[str]) -> Mapping[str, Difference]:
        """Return the best of some trials minus each other, by the other's id; p is corrected over all their pairs."""
        among = tuple(scored for scored in self.ranked if scored.config.id in trials)
        if among not in self._behind:
            ratio = next((scored.ratio for scored in among), None)
            pairs = Comparisons([scored.values for scored in among], [scored.seeds for scored in among], ratio)
            differences = {scored.config.id: pairs.difference(0, k) for k, scored in enumerate(among) if k}
            self._behind[among] = {trial: difference for trial, difference in differences.items() if difference}
        return self._behind[among]

    def tied(self) -> list[Scored]:
        """Return the configurations that cannot be distinguished from the best."""
        tied = {trial for trial, difference in self.against_best.items() if difference.corrected >= ALPHA}
        return [scored for scored in self.ranked if scored.config.id in tied]

    def with_intervals(self) -> pd.DataFrame:
        """Return the summary with the ends of all intervals, and each configuration's difference from the best."""
        lines: list[dict[str, float | None]] = []
        for trial in self.summary["trial_id"]:
            behind = self.against_best.get(trial)
            intervals = {c.name: getattr(self.scored.get(trial), c.correctness, None) for c in SCORES if c.correctness}
            intervals["behind_best"] = behind.interval if behind else None
            line = {f"{name}_{end}": getattr(i, end, None) for name, i in intervals.items() for end in ("low", "high")}
            line["behind_best"] = behind.interval.mean if behind else None
            lines.append({**line, "p": behind.p if behind else None, "p_holm": behind.corrected if behind else None})
        return pd.concat([self.summary, pd.DataFrame(lines, index=self.summary.index, dtype=float)], axis=1)

    @cached_property
    def common(self) -> Array:
        """The values of all ranked configurations on the seeds that all of them have, `(K, S, M)`."""
        return np.stack(on_common_seeds([s.values for s in self.ranked], [s.seeds for s in self.ranked])[1])

    @property
    def common_seeds(self) -> str:
        """The seeds of `common`, for a person; empty where all ranked configurations have the same."""
        if len({scored.seeds for scored in self.ranked}) < 2:
            return ""
        common = [str(seed) for seed in self.ranked[0].seeds if all(seed in scored.seeds for scored in self.ranked)]
        return f"on the seeds that all configurations have ({', '.join(common) or 'none'})"

    @cached_property
    def winner(self) -> Winner | None:
        """How much of the best's lead is luck; None for a single configuration, or without common seeds and samples."""
        if len(self.ranked) < 2 or not self.comparable or not self.common.size:
            return None
        return winner(list(self.common))

    @cached_property
    def budget(self) -> Array:
        """The expected best of 1, 2, … K configurations, `(K,)`."""
        return expected_best([float(s.values.mean()) for s in self.ranked]) if self.ranked else np.zeros(0)

    @cached_property
    def questions(self) -> tuple[Question, ...]:
        """What the configurations that differ in one respect show; nothing in a search, where hardly any do."""
        if not self.comparable or self.store.manifest.space:
            return ()
        ranked = self.ranked
        return questions([s.config for s in ranked], [s.values for s in ranked], [s.seeds for s in ranked])

    @cached_property
    def importance(self) -> tuple[Importance, ...]:
        """Each hyperparameter's share of the variance of accuracy; nothing without common seeds."""
        if not self.ranked or not self.common.size:
            return ()
        return importances([scored.config for scored in self.ranked], self.common)


def analyse(store: Store) -> Analysis:
    """Read what a sweep has recorded; raise InputError if a file of it is missing or damaged."""
    summary = summarise(store)
    finished = list(map(str, ranked(summary)["trial_id"]))
    trials = dict.fromkeys([*finished, *store.recorded((FINISHED, STOPPED))])
    replicates = {trial: store.replicates(trial) for trial in trials}
    examples = {group: trial for trial, group in replicates.items()}  # a trial for each group of replicates
    rows = {group: store.correctness(trial).rows for group, trial in examples.items()}
    folds: dict[int, set[int]] = defaultdict(set)
    for replicate in chain(store.manifest.replicates, *rows):
        folds[replicate.seed].add(replicate.fold)
    indices = {group: positions(rows[group], group, folds) for group in rows}
    samples = [rows[group].ravel()[of_seed] for group in rows for of_seed in indices[group].values()]
    redrawn = any(len(of_seed) < 2 or not np.array_equal(of_seed, samples[0]) for of_seed in samples)
    ratio = validation_ratio(store.split()) if redrawn else None
    configs = {config.id: config for config in store.configs()}
    scored = {t: Scored(configs[t], store.correctness(t), indices[replicates[t]], ratio) for t in trials}
    compared = dict.fromkeys(trial for trial in finished if scored[trial].seeds)
    return Analysis(
        store,
        summary,
        ranked=tuple(scored[trial] for trial in compared),
        stopped=tuple(scored[trial] for trial in trials if trial not in compared),
        rows=np.zeros(0, dtype=np.int32) if redrawn or not samples else samples[0],
    )


def positions(rows: NDArray[np.int32], replicates: Sequence[Replicate], folds: Mapping[int, set[int]]) -> Positions:
    """Return the indices of each seed's values in flattened `(R, N)` arrays, in the order of the samples' row numbers.

    Args:
        rows: `(R, N)` row numbers of the samples.
        replicates: R seeds and folds.
        folds: by seed all of its folds; a seed that lacks some is left out.
    """
    flat, result = rows.ravel(), {}
    seeds = np.repeat([replicate.seed for replicate in replicates], rows.shape[1])
    for seed in dict.fromkeys(replicate.seed for replicate in replicates):
        if folds[seed] == {replicate.fold for replicate in replicates if replicate.seed == seed}:
            indices = np.flatnonzero((seeds == seed) & (flat != NO_ROW))
            result[seed] = indices[np.argsort(flat[indices], kind="stable")]
    return result


def by_seed(values: NDArray[np.generic], positions: Positions, *, redrawn: bool) -> Array:
    """Return values `(R, N)` as seeds × samples `(S, M)`; as the seeds' means `(S, 1)` where samples are `redrawn`."""
    flat = values.astype(np.float64).ravel()
    return np.array([[flat[indices].mean()] if redrawn else flat[indices] for indices in positions.values()])


def validation_ratio(split: Split) -> float:
    """Return the ratio of validation to training samples, averaged over the folds."""
    return float(np.mean([len(split.validation[fold]) / len(split.train[fold]) for fold in split.train]))


def verdict(analysis: Analysis) -> list[str]:
    """Return a sweep's answer in words, a paragraph each; nothing before a configuration was trained to its end."""
    if not analysis.ranked:
        return []
    first, mean = analysis.ranked[0], float(analysis.ranked[0].values.mean())
    line = f"Best of this sweep by cross-fitted accuracy: **{first.config.name}**, {mean:.3f}"
    if first.best and first.last and (interval := first.cross_fitted):
        line += f" (95 % {interval.low:.3f} to {interval.high:.3f}, for {interval.holds_for}; n {interval.n})"
        line += f"; at its best epoch {first.best.mean:.3f}, after the last {first.last.mean:.3f}"
    answers = "\n".join(f"- {question.text} {question.answer}" for question in analysis.questions)
    return [f"{line}.", *filter(None, [_tied(analysis), _luck(analysis), answers])]


def _tied(analysis: Analysis) -> str:
    others, compared, tied = len(analysis.ranked) - 1, len(analysis.against_best), analysis.tied()
    if others and not compared and len(analysis.ranked[0].seeds) < 2 and not analysis.comparable:
        return "Configurations cannot be compared on a single draw of the samples: train at least two seeds."
    text = f"It is better than each of the other {compared} (p below 0.05, Holm over all pairs)." if compared else ""
    if tied:
        names = "; ".join(scored.config.name for scored in tied[:NAMED])
        names += f"; and {len(tied) - NAMED} more" if len(tied) > NAMED else ""
        which = f"{len(tied)} of the other {compared} (p 0.05 or more, Holm over all pairs)"
        text = f"It cannot be distinguished from {which}: {names}."
    alone = f" Not compared, as they share no seed with it: {others - compared}." if compared < others else ""
    return f"{text}{alone}".strip()


def _luck(analysis: Analysis) -> str:
    best = analysis.winner
    if best is None:
        return ""
    name, seeds, count = analysis.ranked[best.index].config.name, analysis.common_seeds, len(analysis.ranked)
    lead = f"{seeds[:1].upper()}{seeds[1:]} the best is {name}; its lead" if seeds else "Its lead"
    return (
        f"{lead} over the mean of all {count} is {100 * best.lead:.1f} points; if all {count} were equally good, the "
        f"best would lead by {100 * best.luck:.1f} points on average, by chance alone (p {best.p:.2g}). Corrected for "
        f"selection, its accuracy is {best.corrected:.3f}."
    )
