"""Two sweeps side by side: what they differ in, and the differences of their bests and of the configurations that both have."""

import numpy as np

from mvsa_tune.config import Config
from mvsa_tune.errors import InputError, some
from mvsa_tune.formats import Table, markdown_section
from mvsa_tune.results.store import Store
from mvsa_tune.stats.analysis import Analysis, analyse
from mvsa_tune.stats.intervals import Array, Crossed
from mvsa_tune.stats.tests import Difference, family, on_common_seeds


def compare(first: Store, second: Store) -> str:
    """Return a Markdown page on the accuracies of the second sweep minus those of the first.

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
            f"{names[0]} and {names[1]} were scored on other samples: {counts}, {len({*guids[0]} & {*guids[1]}):,} of them "
            "the same; only sweeps on the same split of the same data can be compared"
        )
    columns = [np.argsort(of_side) for of_side in guids]
    pairs = {}
    for name, pair in _pairs(sides):
        scored = [side.scored[config.id] for side, config in zip(sides, pair, strict=True)]
        values = [one.values[:, order] for one, order in zip(scored, columns, strict=True)]
        pairs[name] = on_common_seeds(values, [one.seeds for one in scored])
    compared = {name: values for name, (seeds, values) in pairs.items() if seeds}
    if not compared:
        of_sides = (some([str(seed) for seed in _seeds(side)]) for side in sides)
        raise InputError(
            f"{names[0]} and {names[1]} share no seed ({' and '.join(of_sides)}): run one again with the other's, --seed-list"
        )
    differences = family([Crossed(theirs - ours) for ours, theirs in compared.values()])
    found = dict(zip(compared, differences, strict=True))
    body = [[name, *_cells(values, found.get(name))] for name, (_, values) in pairs.items()]
    used = list(dict.fromkeys(seed for seeds, _ in pairs.values() for seed in seeds))
    fewer = "" if all(list(seeds) == used for seeds, _ in pairs.values()) else " (a pair uses those that both have)"
    tests = ", ".join(dict.fromkeys(difference.test for difference in differences))
    note = (
        f"Cross-fitted accuracy, seeds {', '.join(map(str, used))}{fewer}, {len(guids[0]):,} validation samples; tests: {tests}, "
        f"corrected for {len(differences)} comparisons. A best was chosen for its accuracy, which is biased upwards."
    )
    header = ["configuration", *names, f"{names[1]} minus {names[0]}", "95 %", "p", "p (Holm)"]
    facts = [
        f"- {line.replace(' there,', f' in {names[0]},').removesuffix(' now')} in {names[1]}\n"
        for line in first.manifest.differences(second.manifest)
    ]
    differ = (
        "They differ in:\n\n" + "".join(facts)
        if facts
        else "Their data, split, seeds, vectors and code are the same.\n"
    )
    return "\n".join(
        [f"# {names[0]} and {names[1]}\n", differ, markdown_section(Table("Configurations", header, body, note))]
    )


def _analysis(store: Store) -> Analysis:
    analysis = analyse(store)
    if not analysis.ranked:
        raise InputError(f"{store.folder} has no configuration that was trained to its end")
    if not analysis.comparable:
        raise InputError(
            f"{store.folder}: each seed has validation samples of its own ({store.manifest.split}), so that sweeps cannot be "
            "compared sample by sample"
        )
    return analysis


def _seeds(analysis: Analysis) -> list[int]:
    return list(dict.fromkeys(seed for scored in analysis.ranked for seed in scored.seeds))


def _pairs(sides: list[Analysis]) -> list[tuple[str, tuple[Config, Config]]]:
    """Return what is compared: the two bests, and each configuration that both have finished."""
    first, second = ([scored.config for scored in side.ranked] for side in sides)
    known = set(second)
    pairs = [(config.name, (config, config)) for config in first if config in known]
    best = first[0], second[0]
    return pairs if best[0] == best[1] else [(f"the best of each: {best[0].name}; {best[1].name}", best), *pairs]


def _cells(values: list[Array], difference: Difference | None) -> list[str]:
    if difference is None:
        return ["–"] * 6
    interval = difference.interval
    cells = [f"{array.mean():.3f}" for array in values]
    cells += [f"{interval.mean:+.4f}", f"{interval.low:+.4f} to {interval.high:+.4f}"]
    return [*cells, f"{difference.p:.2g}", f"{difference.corrected:.2g}"]
