"""Two sweeps, side by side: what they differ in, and by how much the configurations that both have, and their bests, differ."""

from dataclasses import dataclass

import numpy as np

from mvsa_tune.config import Config
from mvsa_tune.errors import InputError, some
from mvsa_tune.formats import Table, markdown_section
from mvsa_tune.results.store import Store
from mvsa_tune.stats.alignment import Array
from mvsa_tune.stats.analysis import Analysis, analyse
from mvsa_tune.stats.intervals import Crossed
from mvsa_tune.stats.tests import Difference, family


@dataclass(frozen=True)
class Side:
    """A sweep's answers, seed by seed and sample by sample.

    Attributes:
        analysis: what it has found.
        seeds: of its rows.
        guids: of its columns.
    """

    analysis: Analysis
    seeds: tuple[int, ...]
    guids: tuple[str, ...]

    def values(self, trial: str, seeds: list[int], guids: list[str]) -> Array:
        """`(S, M)` the answers of a trial, to those seeds and samples."""
        rows = [self.seeds.index(seed) for seed in seeds]
        place = {guid: column for column, guid in enumerate(self.guids)}
        return self.analysis.scored[trial].values[np.ix_(rows, [place[guid] for guid in guids])]


def compare(first: Store, second: Store) -> str:
    """A page of the second less the first.

    Raises:
        InputError: one has nothing finished, or they share no seed, or not the same validation samples.
    """
    sides = [_side(store) for store in (first, second)]
    names = [
        store.folder.name if first.folder.name != second.folder.name else str(store.folder) for store in (first, second)
    ]
    seeds = [seed for seed in sides[0].seeds if seed in sides[1].seeds]
    if not seeds:
        told = " and ".join(some([str(seed) for seed in side.seeds]) for side in sides)
        raise InputError(
            f"{names[0]} and {names[1]} share no seed ({told}): run one again with the other's, --seed-list"
        )
    if set(sides[0].guids) != set(sides[1].guids):
        shared = len(set(sides[0].guids) & set(sides[1].guids))
        counts = " and ".join(f"{len(side.guids):,}" for side in sides)
        raise InputError(
            f"{names[0]} and {names[1]} were scored on other samples: {counts}, {shared:,} of them the same; only the same split of the same data can be compared"
        )
    guids = sorted(sides[0].guids)
    pairs = _pairs(sides)
    values = [
        [side.values(config.id, seeds, guids) for side, config in zip(sides, pair, strict=True)] for _, pair in pairs
    ]
    found = family([Crossed(theirs - ours) for ours, theirs in values])
    body = [
        [name, *(f"{one.mean():.3f}" for one in both), *_told(less)]
        for (name, _), both, less in zip(pairs, values, found, strict=True)
    ]
    header = ["configuration", *names, f"{names[1]} less {names[0]}", "95 %", "p", "p (Holm)"]
    note = (
        f"Cross-fitted accuracy, seeds {', '.join(map(str, seeds))}, {len(guids):,} validation samples; tests: "
        f"{', '.join(dict.fromkeys(one.test for one in found))}, corrected for {len(found)} comparisons. A best was chosen for its number, which reads high."
    )
    differ = first.manifest.differences(second.manifest)
    facts = "\n".join(
        f"- {line.replace(' there,', f' in {names[0]},').removesuffix(' now')} in {names[1]}" for line in differ
    )
    parts = [
        f"# {names[0]} and {names[1]}\n",
        f"They differ in:\n\n{facts}\n" if differ else "They are of the same data, split, seeds, vectors and code.\n",
    ]
    return "\n".join([*parts, markdown_section(Table("Configurations", header, body, note))])


def _pairs(sides: list[Side]) -> list[tuple[str, tuple[Config, Config]]]:
    """What is compared: the two bests, and each configuration that both have finished."""
    ranked = [[one.config for one in side.analysis.ranked] for side in sides]
    both = [config for config in ranked[0] if config in ranked[1]]
    best = ranked[0][0], ranked[1][0]
    pairs = [(config.name, (config, config)) for config in both]
    if best[0] == best[1]:
        return pairs
    return [(f"the best of each: {best[0].name}; {best[1].name}", best), *pairs]


def _told(less: Difference) -> list[str]:
    of = less.interval
    return [f"{of.mean:+.4f}", f"{of.low:+.4f} to {of.high:+.4f}", f"{less.p:.2g}", f"{less.corrected:.2g}"]


def _side(store: Store) -> Side:
    analysis = analyse(store)
    if not analysis.ranked:
        raise InputError(f"{store.folder} has no configuration that was trained to its end")
    if not analysis.comparable:
        raise InputError(
            f"{store.folder}: each seed has validation samples of its own ({store.manifest.split}), which cannot be compared one by one"
        )
    guids = store.samples()["guid"].tolist()
    seeds = tuple(dict.fromkeys(one.seed for one in store.manifest.replicates))
    return Side(analysis, seeds, tuple(guids[row] for row in analysis.rows))
