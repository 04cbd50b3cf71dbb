"""Two sweeps side by side: what they differ in, and how the configurations that both have, and their bests, differ."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from mvsa_tune.config import Config
from mvsa_tune.errors import InputError, some
from mvsa_tune.formats import Table, markdown_section, minus
from mvsa_tune.results.store import Store
from mvsa_tune.stats.analysis import Analysis, analyse
from mvsa_tune.stats.differences import Difference, Seeds, errors, on_common_seeds
from mvsa_tune.stats.intervals import Array


@dataclass(frozen=True)
class Comparison:
    """Two sweeps compared on the same samples.

    Attributes:
        names: of the sweeps.
        pairs: by name, what was compared: the seeds that both have, and both values `(R, N)`; no seeds, no values.
        differences: of the pairs with common seeds, by name: the second sweep minus the first.
        samples: how many validation samples.
    """

    names: tuple[str, str]
    pairs: Mapping[str, tuple[Seeds, list[Array]]]
    differences: Mapping[str, Difference]
    samples: int


def compared(first: Store, second: Store) -> Comparison:
    """Compare the cross-fitted accuracies of the configurations that two sweeps share, and of their bests.

    Raises:
        InputError: one has no finished configuration, or they share no seed, or have different validation samples.
    """
    sides = [_analysis(store) for store in (first, second)]
    same_name = first.folder.name == second.folder.name
    names = [str(store.folder) if same_name else store.folder.name for store in (first, second)]
    guids = [side.store.samples()["guid"].to_numpy()[side.rows] for side in sides]
    if sorted(guids[0]) != sorted(guids[1]):
        counts = " and ".join(f"{len(of_side):,}" for of_side in guids)
        raise InputError(
            f"{names[0]} and {names[1]} were scored on other samples: {counts}, {len({*guids[0]} & {*guids[1]}):,} of "
            "them the same; only sweeps on the same split of the same data can be compared"
        )
    columns = [np.argsort(of_side) for of_side in guids]
    pairs = {}
    for name, pair in _pairs(sides).items():
        scored = [side.scored[config.id] for side, config in zip(sides, pair, strict=True)]
        values = [of_side.values[:, order] for of_side, order in zip(scored, columns, strict=True)]
        pairs[name] = on_common_seeds(values, [of_side.seeds for of_side in scored])
    on_seeds = {name: values for name, (seeds, values) in pairs.items() if seeds}
    if not on_seeds:
        seeds = [{str(seed): None for scored in side.ranked for seed in scored.seeds} for side in sides]
        raise InputError(
            f"{names[0]} and {names[1]} share no seed ({' and '.join(some([*of_side]) for of_side in seeds)}): run one "
            "again with the other's, --seed-list"
        )
    paired = errors([values - baseline for baseline, values in on_seeds.values()])
    differences = dict(zip(on_seeds, paired.test_all(np.eye(len(on_seeds))), strict=True))
    return Comparison((names[0], names[1]), pairs, differences, len(guids[0]))


def from_baseline(analysis: Analysis, baseline: str | None = None) -> dict[str, Difference]:
    """Return each other configuration that is compared minus a baseline, by its id, the best first.

    Args:
        analysis: of the sweep.
        baseline: its id, and `adjusted` is p corrected by Holm's method; None for the best, with simultaneous
            intervals, and `adjusted` is p of being the best as well.

    Raises:
        InputError: the baseline cannot be compared with any other.
    """
    members, known = analysis.errors or ((), None)
    ids = [analysis.ranked[member].config.id for member in members]
    if known is None or len(ids) < 2 or baseline not in (None, *ids):
        raise InputError(f"{analysis.store.folder}: nothing can be compared with {baseline or 'the best'}")
    if baseline is None:
        against = analysis.against_best
        return {trial: replace(d, mean=-d.mean, low=-d.high, high=-d.low) for trial, d in against.items()}
    weights = np.eye(len(ids))
    weights[:, ids.index(baseline)] -= 1
    others = [trial for trial in ids if trial != baseline]
    return dict(zip(others, known.test_all(weights[[ids.index(trial) for trial in others]]), strict=True))


def compare(first: Store, second: Store) -> str:
    """Return a Markdown page on the accuracies of the second sweep minus those of the first; InputError as above."""
    comparison = compared(first, second)
    names, pairs, differences = comparison.names, comparison.pairs, comparison.differences
    cells = {
        name: [
            *(f"{array.mean():.3f}" for array in pairs[name][1]),
            minus(f"{difference.mean:+.4f}"),
            minus(f"{difference.low:+.4f} to {difference.high:+.4f}"),
            f"{difference.p:.2g}",
            f"{difference.adjusted:.2g}",
        ]
        for name, difference in differences.items()
    }
    used = list(dict.fromkeys(seed for seeds, _ in pairs.values() for seed in seeds))
    fewer = "" if all(list(seeds) == used for seeds, _ in pairs.values()) else " (each pair those that both have)"
    tests = ", ".join(dict.fromkeys(difference.test for difference in differences.values()))
    corrected = f"corrected for {len(differences)} comparisons" if len(differences) > 1 else "a single comparison"
    note = (
        f"Cross-fitted accuracy, seeds {', '.join(map(str, used))}{fewer}, {comparison.samples:,} validation samples; "
        f"tests: {tests}, {corrected}. The best of a sweep was chosen by its "
        "accuracy, which is therefore biased upwards."
    )
    header = ["configuration", *names, f"{names[1]} minus {names[0]}", "95 %", "p", "p (Holm)"]
    body = [[name, *cells.get(name, ["–"] * 6)] for name in pairs]
    table = markdown_section(Table("Configurations", header, body, note))
    facts = "".join(
        f"- {line.replace(' there,', f' in {names[0]},').removesuffix(' now')} in {names[1]}\n"
        for line in first.trained.differences(second.trained)
    )
    differ = f"They differ in:\n\n{facts}" if facts else "Their data, split, seeds, vectors and code are the same.\n"
    return "\n".join([f"# {' and '.join(names)}\n", differ, table])


def _analysis(store: Store) -> Analysis:
    analysis = analyse(store)
    if not analysis.ranked:
        raise InputError(f"{store.folder} has no configuration that was trained to its end")
    if not analysis.comparable:
        raise InputError(
            f"{store.folder}: each seed has validation samples of its own ({store.manifest.split}), so that it cannot "
            "be compared sample by sample"
        )
    return analysis


def _pairs(sides: list[Analysis]) -> dict[str, tuple[Config, Config]]:
    """Return what is compared, by name: the two bests, and each configuration that both have finished."""
    first, second = ([scored.config for scored in side.ranked] for side in sides)
    bests = (
        {} if first[0] == second[0] else {f"the best of each: {first[0].name}; {second[0].name}": (first[0], second[0])}
    )
    known = set(second)
    return {**bests, **{config.name: (config, config) for config in first if config in known}}
