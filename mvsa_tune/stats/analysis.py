"""What a sweep's numbers are worth: intervals, comparisons with the best, luck, questions, importance, and a verdict.

Reads a results folder and trains nothing. Each configuration has the intervals of all its own seeds; configurations are
compared on all of them; where each seed draws its own samples, on the draws that they have in common.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mvsa_tune.config import Config, Replicate
from mvsa_tune.data.splits import Split
from mvsa_tune.results.schema import FINISHED, SCORES, STOPPED
from mvsa_tune.results.store import Store
from mvsa_tune.stats.best import behind_best
from mvsa_tune.stats.differences import ALPHA, Difference, Errors, errors, on_common_seeds, redrawn_errors
from mvsa_tune.stats.importance import Importance, importances
from mvsa_tune.stats.intervals import Array, Interval, accuracy, redrawn
from mvsa_tune.stats.power import Power, power_of
from mvsa_tune.stats.questions import Question, questions
from mvsa_tune.stats.selection import Winner, expected_best, winner
from mvsa_tune.stats.summary import ranked, summarise
from mvsa_tune.training.result import NO_ROW, Correctness

NAMED = 5  # configurations that the verdict names as not distinguishable from the best
WANTED = 0.01  # the difference that the verdict says what it takes to find
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
    _behind: dict[tuple[int, ...], Mapping[str, Difference]] = field(default_factory=dict, init=False, repr=False)

    @cached_property
    def scored(self) -> Mapping[str, Scored]:
        """All of `ranked` and `stopped`, by the configuration's id."""
        return {scored.config.id: scored for scored in (*self.ranked, *self.stopped)}

    @property
    def comparable(self) -> bool:
        """Whether the configurations are scored on the same samples, seed by seed."""
        return bool(self.ranked) and self.ranked[0].ratio is None

    @cached_property
    def errors(self) -> tuple[tuple[int, ...], Errors] | None:
        """The configurations that are compared, as indices of `ranked`, and their errors; None without any.

        Where each seed draws its own samples, these are the ones that share two draws with the best, on the draws that
        all of them have.
        """
        if not self.ranked:
            return None
        if self.comparable:
            return tuple(range(len(self.ranked))), errors([scored.values for scored in self.ranked])
        first = set(self.ranked[0].seeds)
        members = tuple(k for k, scored in enumerate(self.ranked) if len(first.intersection(scored.seeds)) > 1)
        among = [self.ranked[k] for k in members]
        common, values = on_common_seeds([s.values for s in among], [s.seeds for s in among]) if among else ((), [])
        ratio = self.ranked[0].ratio
        if len(common) < 2 or len(among) < 2 or ratio is None:
            return None
        return members, redrawn_errors(np.stack(values)[:, :, 0], ratio)

    @cached_property
    def against_best(self) -> Mapping[str, Difference]:
        """The best minus each other configuration that is compared, by the other's id."""
        return self.behind_best({scored.config.id for scored in self.ranked})

    def behind_best(self, trials: Collection[str]) -> Mapping[str, Difference]:
        """Return the best of some trials minus each other, by the other's id; `adjusted` is p of being the best."""
        members, known = self.errors or ((), None)
        among = tuple(k for k, member in enumerate(members) if self.ranked[member].config.id in trials)
        if known is None or len(among) < 2:
            return {}
        if among not in self._behind:
            self._behind[among] = {
                self.ranked[members[k]].config.id: difference
                for k, difference in zip(among[1:], behind_best(known[among])[1:], strict=True)
            }
        return self._behind[among]

    def may_be_best(self) -> list[Scored]:
        """Return the configurations that may be the best, beside the best itself."""
        may = {trial for trial, difference in self.against_best.items() if difference.adjusted >= ALPHA}
        return [scored for scored in self.ranked if scored.config.id in may]

    def seeds_of(self, scored: Scored) -> str:
        """Return how many seeds an interval is of, on how many folds each, as `3 seeds × 5 folds`."""
        count = len(scored.seeds)
        folds = Counter(replicate.seed for replicate in self.store.replicates(scored.config.id))
        each = max(folds[seed] for seed in scored.seeds)
        return f"{count} seed{'s' * (count != 1)}" + (f" × {each} folds" if each > 1 else "")

    @cached_property
    def power(self) -> Power | None:
        """What differences this sweep can see; None for a single configuration, or where seeds draw their samples."""
        if not self.comparable or self.errors is None:
            return None
        return power_of(self.errors[1], sum(self.store.manifest.label_counts))

    def with_intervals(self) -> pd.DataFrame:
        """Return the summary with the ends of all intervals, and each configuration's difference from the best."""
        lines: list[dict[str, float | None]] = []
        for trial in self.summary["trial_id"]:
            behind = self.against_best.get(trial)
            scored = self.scored.get(trial)
            intervals: dict[str, Any] = {c.name: getattr(scored, c.correctness, None) for c in SCORES if c.correctness}
            intervals["behind_best"] = behind
            line = {f"{name}_{end}": getattr(i, end, None) for name, i in intervals.items() for end in ("low", "high")}
            line["behind_best"] = behind.mean if behind else None
            lines.append({**line, "p": behind.p if behind else None, "p_best": behind.adjusted if behind else None})
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
        if not self.comparable or self.store.manifest.space or self.errors is None:
            return ()
        return questions([scored.config for scored in self.ranked], self.errors[1])

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


def verdict(analysis: Analysis, of: str = "this sweep") -> list[str]:
    """Return a sweep's answer in words, a paragraph each; nothing before a configuration was trained to its end."""
    if not analysis.ranked:
        return []
    first, mean = analysis.ranked[0], float(analysis.ranked[0].values.mean())
    line = f"Best of {of} by cross-fitted accuracy: **{first.config.name}**, {mean:.3f}"
    if first.best and first.last and (interval := first.cross_fitted):
        line += (
            f" (95 % {interval.low:.3f} to {interval.high:.3f}, for {interval.holds_for}; {analysis.seeds_of(first)})"
        )
        line += f"; at its best epoch {first.best.mean:.3f}, after the last {first.last.mean:.3f}"
    answers = "\n".join(f"- {question.text} {question.answer}" for question in analysis.questions)
    sees = f"{analysis.power.sees()} {analysis.power.takes(WANTED)}" if analysis.power else ""
    return [f"{line}.", *filter(None, [_rivals(analysis), sees, _luck(analysis), answers])]


def _rivals(analysis: Analysis) -> str:
    """Return which configurations may be the best instead, and why that is not known."""
    others, compared, rivals = len(analysis.ranked) - 1, len(analysis.against_best), analysis.may_be_best()
    if others and not compared:
        return "Configurations cannot be compared on a single draw of the samples: train at least two seeds."
    text = ""
    if compared and not rivals:
        text = f"It is better than {'the other' if compared == 1 else f'each of the other {compared}'} (95 %)."
    if rivals:
        names = "; ".join(scored.config.name for scored in rivals[:NAMED])
        names += f"; and {len(rivals) - NAMED} more" if len(rivals) > NAMED else ""
        widest = max((analysis.against_best[scored.config.id] for scored in rivals), key=lambda d: d.mean)
        share = share_of_others(len(rivals), compared)
        text = (
            f"{share[0].upper()}{share[1:]} may be the best as well (95 %): {names}. {_why(analysis)}: the "
            f"widest gap among these is {100 * widest.mean:.1f} points, its standard error {100 * widest.error:.1f}."
        )
        if len(rivals) < compared:
            left = compared - len(rivals)
            text += f" It is better than {'the remaining one' if left == 1 else f'each of the remaining {left}'}."
    alone = f" Not compared, as they share too few draws with it: {others - compared}." if compared < others else ""
    return f"{text}{alone}".strip()


def share_of_others(some: int, others: int) -> str:
    """Return how many of the other configurations are meant, in words."""
    if some < others:
        return f"{some} of the other {others}"
    return {1: "the other one", 2: "both others"}.get(others, f"all of the other {others}")


def _why(analysis: Analysis) -> str:
    """Return whether seeds or samples are what is lacking."""
    if analysis.power is None:
        return f"Too few seeds to tell more ({min(len(scored.seeds) for scored in analysis.ranked)})"
    return f"Too few {analysis.power.lacking(WANTED)}"


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
