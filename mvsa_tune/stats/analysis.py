"""What a sweep's numbers are worth: intervals, comparisons with the best, luck, questions, importance, and the answer in words.

Reads a results folder and trains nothing.
"""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mvsa_tune.config import Config, Replicate
from mvsa_tune.data.splits import Split
from mvsa_tune.results.schema import FINISHED, STOPPED
from mvsa_tune.results.store import Store
from mvsa_tune.stats.importance import Importance, importances
from mvsa_tune.stats.intervals import Array, Interval, accuracy, redrawn
from mvsa_tune.stats.questions import Question, questions
from mvsa_tune.stats.selection import Winner, expected_best, winner
from mvsa_tune.stats.summary import ranked, summarise
from mvsa_tune.stats.tests import ALPHA, Comparisons, Difference, on_common_seeds
from mvsa_tune.training.result import NO_ROW, Correctness

NAMED = 5
Positions = Mapping[int, NDArray[np.intp]]


class Scored:
    """A trained configuration with its accuracies; each `Interval` is computed when it is first read.

    Attributes:
        config: the configuration.
        seeds: the S seeds that it has on all of their folds.
        values: `(S, M)` cross-fitted correctness on the M validation samples by row number, a seed's folds put together; or
            `(S, 1)` accuracies where each seed has its own draw of the samples.
        ratio: of validation to training samples where each seed has its own draw; else None.
    """

    def __init__(self, config: Config, correctness: Correctness, positions: Positions, ratio: float | None) -> None:
        self.config, self.seeds, self.ratio = config, tuple(positions), ratio
        self.values, self._best, self._last = (
            by_seed(array, positions, redrawn=ratio is not None)
            for array in (correctness.cross_fitted, correctness.best, correctness.last)
        )

    @cached_property
    def cross(self) -> Interval | None:
        """The cross-fitted accuracy: at the epoch that is best on other samples than those scored."""
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
        """Return the mean with its interval; None without a seed, or for a single draw of the samples."""
        if self.ratio is not None:
            return redrawn(values[:, 0], self.ratio, 0) if len(values) > 1 else None
        return accuracy(values) if len(values) else None


@dataclass(frozen=True)
class Analysis:
    """A sweep and what its numbers are worth; everything is computed when it is first read, the same every time.

    Attributes:
        store: the sweep.
        summary: `summarise` of it.
        ranked: the configurations that were trained to their end, the best first, by cross-fitted accuracy.
        stopped: those that the scheduler stopped, in the order of the sweep: they are not compared with the others.
        rows: `(M,)` row numbers of the samples that `Scored.values` are of; empty where each seed has its own draw.
    """

    store: Store
    summary: pd.DataFrame
    ranked: tuple[Scored, ...]
    stopped: tuple[Scored, ...]
    rows: NDArray[np.int32]

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
        """The best minus each other configuration, by the other's id; p is corrected over all pairs."""
        return self.behind_best({scored.config.id for scored in self.ranked})

    def behind_best(self, trials: Collection[str]) -> Mapping[str, Difference]:
        """Return the same among some trials alone; without those that share no seed with the best of them."""
        among = tuple(scored for scored in self.ranked if scored.config.id in trials)
        if among not in self._behind:
            self._behind[among] = differences_from_best(among)
        return self._behind[among]

    @cached_property
    def _behind(self) -> dict[tuple[Scored, ...], Mapping[str, Difference]]:
        return {}

    def tied(self) -> list[Scored]:
        """Return the configurations that cannot be distinguished from the best."""
        behind = self.against_best
        return [scored for scored in self.ranked if (d := behind.get(scored.config.id)) and d.corrected >= ALPHA]

    def with_intervals(self) -> pd.DataFrame:
        """Return the summary with each configuration's intervals, and its difference from the best, as further columns."""
        lines: list[dict[str, float | None]] = []
        for trial in self.summary["trial_id"]:
            scored, behind = self.scored.get(trial), self.against_best.get(trial)
            intervals = {f"val_acc_{name}": getattr(scored, name, None) for name in ("cross", "best", "last")}
            line = {f"{name}_{end}": getattr(i, end, None) for name, i in intervals.items() for end in ("low", "high")}
            difference = behind.interval if behind else None
            line |= {"behind_best": getattr(difference, "mean", None)}
            line |= {f"behind_best_{end}": getattr(difference, end, None) for end in ("low", "high")}
            lines.append({**line, "p": getattr(behind, "p", None), "p_holm": getattr(behind, "corrected", None)})
        return pd.concat([self.summary, pd.DataFrame(lines, index=self.summary.index, dtype=float)], axis=1)

    @cached_property
    def common(self) -> Array:
        """The values of all ranked configurations on the seeds that all of them have, `(K, S, M)`."""
        return np.stack(on_common_seeds([s.values for s in self.ranked], [s.seeds for s in self.ranked])[1])

    @property
    def common_seeds(self) -> str:
        """Which seeds `common` is of, for a person; empty where all ranked configurations have the same seeds."""
        seeds = [scored.seeds for scored in self.ranked]
        if len(set(seeds)) < 2:
            return ""
        common, _ = on_common_seeds([scored.values for scored in self.ranked], seeds)
        return f"on the seeds that all configurations have: {', '.join(map(str, common)) or 'none'}"

    @cached_property
    def winner(self) -> Winner | None:
        """How much of the best's lead is luck; None for fewer than two configurations, or without common seeds and samples."""
        if len(self.ranked) < 2 or not self.comparable or not self.common.size:
            return None
        return winner(list(self.common))

    @cached_property
    def budget(self) -> Array:
        """The expected best of 1, 2, … K configurations, `(K,)`."""
        return expected_best([float(s.values.mean()) for s in self.ranked]) if self.ranked else np.zeros(0)

    @cached_property
    def questions(self) -> tuple[Question, ...]:
        """What the configurations that differ in one respect show of it; nothing in a search, where hardly any do."""
        if not self.comparable or self.store.manifest.space:
            return ()
        return questions(
            [s.config for s in self.ranked], [s.values for s in self.ranked], [s.seeds for s in self.ranked]
        )

    @cached_property
    def importance(self) -> tuple[Importance, ...]:
        """Each hyperparameter's share of the variance of accuracy; nothing without common seeds."""
        if not self.ranked or not self.common.size:
            return ()
        return importances([scored.config for scored in self.ranked], self.common)


def differences_from_best(ranked: Sequence[Scored]) -> dict[str, Difference]:
    """Return the first configuration minus each other, by the other's id, where they share seeds; p is corrected over all pairs."""
    if len(ranked) < 2:
        return {}
    pairs = Comparisons([s.values for s in ranked], [s.seeds for s in ranked], ranked[0].ratio)
    differences = {ranked[k].config.id: pairs.difference(0, k) for k in range(1, len(ranked))}
    return {trial: difference for trial, difference in differences.items() if difference}


def positions(rows: NDArray[np.int32], replicates: Sequence[Replicate], folds: Mapping[int, set[int]]) -> Positions:
    """Return by seed where its values are in flattened `(R, N)` arrays, in the order of the samples' row numbers.

    Args:
        rows: `(R, N)` row numbers of the samples.
        replicates: R seeds and folds.
        folds: by seed all of its folds; a seed that lacks some is left out.
    """
    flat, result = rows.ravel(), {}
    seeds = np.array([replicate.seed for replicate in replicates])
    for seed in dict.fromkeys(replicate.seed for replicate in replicates):
        if folds[seed] <= {replicate.fold for replicate in replicates if replicate.seed == seed}:
            own = np.flatnonzero(np.repeat(seeds == seed, rows.shape[1]) & (flat != NO_ROW))
            result[seed] = own[np.argsort(flat[own], kind="stable")]
    return result


def by_seed(values: NDArray[np.generic], positions: Positions, *, redrawn: bool) -> Array:
    """Return values `(R, N)` as `(S, M)` seeds × samples; as the seeds' means `(S, 1)` where their samples are `redrawn`."""
    flat = values.astype(np.float64).ravel()
    return np.array([[flat[own].mean()] if redrawn else flat[own] for own in positions.values()])


def validation_ratio(split: Split) -> float:
    """Return the ratio of validation to training samples, averaged over the folds."""
    return float(np.mean([len(split.validation[fold]) / len(split.train[fold]) for fold in split.train]))


def analyse(store: Store) -> Analysis:
    """Read what a sweep has recorded.

    Raises:
        InputError: a file of it is missing or damaged.
    """
    summary = summarise(store)
    finished = list(map(str, ranked(summary)["trial_id"]))
    trials = list(dict.fromkeys([*finished, *store.recorded((FINISHED, STOPPED))]))
    replicates = {trial: store.replicates(trial) for trial in trials}
    examples = {of_trial: trial for trial, of_trial in replicates.items()}
    folds: dict[int, set[int]] = defaultdict(set)
    for replicate in (*store.manifest.replicates, *(replicate for of_trial in examples for replicate in of_trial)):
        folds[replicate.seed].add(replicate.fold)
    places: dict[tuple[Replicate, ...], Positions] = {}
    samples = []
    for of_trial, trial in examples.items():
        rows = store.correctness(trial).rows
        places[of_trial] = positions(rows, of_trial, folds)
        samples += [rows.ravel()[own] for own in places[of_trial].values()]
    redrawn = any(len(of_seed) < 2 or not np.array_equal(of_seed, samples[0]) for of_seed in samples)
    ratio = validation_ratio(store.split()) if redrawn else None
    configs = {config.id: config for config in store.configs()}
    scored = {t: Scored(configs[t], store.correctness(t), places[replicates[t]], ratio) for t in trials}
    compared = [trial for trial in finished if scored[trial].seeds]
    return Analysis(
        store,
        summary,
        tuple(scored[trial] for trial in compared),
        tuple(scored[trial] for trial in trials if trial not in set(compared)),
        samples[0] if samples and not redrawn else np.zeros(0, dtype=np.int32),
    )


def verdict(analysis: Analysis) -> list[str]:
    """Return a sweep's answer in words, a paragraph each; nothing before a configuration has been trained to its end."""
    if not analysis.ranked:
        return []
    first, mean = analysis.ranked[0], float(analysis.ranked[0].values.mean())
    line = f"Best of this sweep by cross-fitted accuracy: **{first.config.name}**, {mean:.3f}"
    if first.cross and first.best and first.last:
        interval = first.cross
        line += f" (95 % {interval.low:.3f} to {interval.high:.3f}, for {interval.holds_for}; n {interval.n})"
        line += f"; at its best epoch {first.best.mean:.3f}, after the last {first.last.mean:.3f}"
    answers = "\n".join(f"- {question.text} {question.answer}" for question in analysis.questions)
    return [f"{line}.", *filter(None, [_tied(analysis), _luck(analysis), answers])]


def _tied(analysis: Analysis) -> str:
    others, compared, tied = len(analysis.ranked) - 1, len(analysis.against_best), analysis.tied()
    if not others:
        return ""
    if not compared and not analysis.comparable:
        return "Configurations cannot be compared on a single draw of the samples: train at least two seeds."
    alone = f" {others - compared} others share no seed with it and are not compared." if compared < others else ""
    if not compared:
        return alone.strip()
    if not tied:
        return f"It is better than each of the other {compared} (p below 0.05, Holm over all pairs).{alone}"
    names = "; ".join(scored.config.name for scored in tied[:NAMED])
    names += f"; and {len(tied) - NAMED} more" if len(tied) > NAMED else ""
    return (
        f"It cannot be distinguished from {len(tied)} of the other {compared} (p 0.05 or more, Holm over all pairs): "
        f"{names}.{alone}"
    )


def _luck(analysis: Analysis) -> str:
    best = analysis.winner
    if best is None:
        return ""
    which, seeds = "Its", ""
    if analysis.common_seeds:
        seeds = f", {analysis.common_seeds},"
        which = "Its" if best.index == 0 else f"{analysis.ranked[best.index].config.name} is best there; its"
    return (
        f"{which} lead over the mean of all {len(analysis.ranked)}{seeds} is {100 * best.lead:.1f} points; the best of as many "
        f"equally good ones would lead by {100 * best.luck:.1f} (as much or more in {best.p:.2g} of draws). Corrected for the "
        f"choice, its accuracy is {best.corrected:.3f}."
    )
