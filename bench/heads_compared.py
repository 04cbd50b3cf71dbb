"""Which head pays: every head of a sweep against `concat`, over the same seeds and the same validation samples.

    python bench/heads_compared.py results/NAME

Reads the store alone. Configurations that differ in the head and in nothing else are compared. The interval is for other seeds and
other samples at once: both are drawn with replacement (Efron & Tibshirani 1993), each for itself (the pigeonhole bootstrap, Owen 2007,
doi 10.1214/07-AOAS122, which errs to the wide side). p inverts it, and is corrected (Holm 1979) for the number of heads compared.
"""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mvsa_tune.cli import report_errors
from mvsa_tune.config import Config
from mvsa_tune.differences import holm
from mvsa_tune.errors import InputError
from mvsa_tune.store import Store
from mvsa_tune.tables import markdown

RESAMPLES = 20_000


def resampled(differences: NDArray[np.float64], resamples: int = RESAMPLES) -> NDArray[np.float64]:
    """Means of `(R, N)` differences, seeds and samples each drawn with replacement: `(resamples,)`, the same draws every time."""
    rng = np.random.default_rng(0)
    seeds, samples = (rng.multinomial(n, np.full(n, 1 / n), resamples) for n in differences.shape)
    return np.einsum("br,br->b", seeds, samples @ differences.T) / differences.size


def p_value(means: NDArray[np.float64]) -> float:
    """Two-sided, of no difference: the level at which the percentile interval just holds 0; never quite 0."""
    tail = min((means <= 0).sum(), (means >= 0).sum())
    return min(1.0, 2 * float(tail + 1) / (len(means) + 1))


def right(store: Store, config: Config, which: str) -> NDArray[np.float64]:
    """`(R, N)`: 1 where a replicate is right about a validation sample at its `best` or `last` epoch, else 0."""
    labels = pd.read_csv(store.folder / "samples.csv")["label"].to_numpy()
    outcome = store.outcome(config.id)
    return (getattr(outcome, which) == labels[outcome.rows]).astype(float)


def compare(store: Store, configs: Sequence[Config], which: str) -> str:
    """A table of configurations that differ in the head alone, the best first, against the one whose head is `concat`."""
    scores = {config.head: right(store, config, which) for config in configs}
    means = {head: resampled(score - scores["concat"]) for head, score in scores.items() if head != "concat"}
    p_values = dict(zip(means, holm([p_value(one) for one in means.values()]), strict=True))
    body = []
    for head, score in sorted(scores.items(), key=lambda item: -item[1].mean()):
        accuracy = score.mean(axis=1)
        cells = [f"`{head}`", f"{accuracy.mean():.4f} ± {accuracy.std(ddof=1):.4f}", str(len(accuracy)), "–", "–", "–"]
        if head in means:
            low, high = np.quantile(means[head], [0.025, 0.975])
            difference = (score - scores["concat"]).mean()
            cells[3:] = [f"{difference:+.4f}", f"{low:+.4f} to {high:+.4f}", f"{p_values[head]:.3f}"]
        body.append(cells)
    return markdown(["head", f"accuracy, {which} epoch", "n", "less `concat`", "95 %", "p (Holm)"], body)


def main(folder: Path) -> int:
    """Print two tables, of the best and the last epoch, for each group of configurations that differ in the head alone."""
    store = Store(folder)
    finished = store.recorded()
    groups: dict[Config, list[Config]] = {}
    for config in store.configs():
        if config.id in finished:
            groups.setdefault(replace(config, head="concat"), []).append(config)
    groups = {concat: configs for concat, configs in groups.items() if concat in configs and len(configs) > 1}
    if not groups or len(store.sweep.replicates) < 2:
        raise InputError(
            f"{folder} has no finished `concat` with another head beside it on the same seeds, two at least"
        )
    for concat, configs in groups.items():
        print(f"{concat.name}\n\n{compare(store, configs, 'best')}\n{compare(store, configs, 'last')}")
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path, metavar="results/NAME")
    arguments = parser.parse_args()
    raise SystemExit(report_errors(lambda: main(arguments.folder), "heads_compared.py"))
