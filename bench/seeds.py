"""What `--seeds FIRST..LAST` saves and what it costs, beside the full grid with the last number of seeds.

    python bench/seeds.py        # simulated sweeps of 24 and 100 configurations: three minutes
    python bench/seeds.py --name twins --data DIR --pairs mobilenet_v2+minilm resnet50v2s3+minilm --D 128 256 \
        --lr 2e-5 1e-4 --ablation 0 1 2    # a real grid; all flags of sweeps/grid.py

A real grid is trained once with all seeds (a replicate's numbers do not depend on the others in its stack), and ASHA
once in each repetition, on its first seeds. A repetition takes the seeds in another order. Results stay in --results.

*Trainings* is the share of the full grid's epochs that are trained. *Regret* is the full grid's best mean minus the
mean of the winner, both with all seeds; *error* the standard error of that best mean. Both are in points.
"""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mvsa_tune.results.store import Store
from mvsa_tune.stats.allocation import allocate
from mvsa_tune.stats.analysis import analyse
from mvsa_tune.stats.summary import summarise
from mvsa_tune.sweeps import GRID
from mvsa_tune.tune.seeds import SeedCounts
from simulated import TRUTH, case

GAPS = {
    "half normal, 3 points": lambda rng, K: np.abs(rng.normal(0, 0.03, K)),
    "even, up to 10 points": lambda rng, K: rng.uniform(0, 0.1, K),
    "none": lambda rng, K: np.zeros(K),
}


def figures(accuracy: NDArray[np.float64], finished: Sequence[int], first: int) -> dict[str, float]:
    """Return the figures of one sweep.

    Args:
        accuracy: `(K, R)` of all seeds, in the order in which they are trained.
        finished: the configurations that were trained to their end.
        first: the seeds that all have.
    """
    K, last = accuracy.shape
    seeds = allocate(list(accuracy[finished]), first, last)
    winner = finished[int(np.argmax([accuracy[k, :n].mean() for k, n in zip(finished, seeds, strict=True)]))]
    best = int(accuracy.mean(axis=1).argmax())
    return {
        "trainings": (K * first + (seeds - first).sum()) / (K * last),
        "most seeds": float(seeds.max()),
        "regret": 100 * (accuracy[best].mean() - accuracy[winner].mean()),
        "error": 100 * accuracy[best].std(ddof=1) / np.sqrt(last),
    }


def simulated(first: int, last: int, sweeps: int, repetitions: int) -> Iterator[dict[str, object]]:
    """Yield the mean figures of each repetition of so many simulated sweeps."""
    for K in (24, 100):
        for name, gaps in GAPS.items():
            for repetition in range(repetitions):
                lines = []
                for number in range(sweeps):
                    rng = np.random.default_rng([repetition, number])
                    correct = case(rng, TRUTH - gaps(rng, K), last, samples=400).correct
                    lines.append(figures(correct.mean(axis=2), range(K), first))
                yield {"sweep": f"{K} configurations, gaps {name}", **pd.DataFrame(lines).mean()}


def real(options: argparse.Namespace, rest: Sequence[str], first: int, last: int) -> Iterator[dict[str, object]]:
    """Yield the figures of each repetition on a real grid, without and with ASHA."""
    shared = [*rest, "--results", str(options.results), "--quiet"]
    if GRID.main([*shared, "--scheduler", "none", "--seeds", str(last), "--name", f"{options.name}-full"]):
        raise SystemExit("the full grid has not finished")
    full = Store(options.results / f"{options.name}-full")
    scored = analyse(full).scored
    trials = [config.id for config in full.configs()]
    accuracy = np.stack([scored[trial].values.mean(axis=1) for trial in trials])
    for repetition in range(options.repetitions):
        turned = np.roll(accuracy, -repetition * (last // options.repetitions), axis=1)
        yield {"sweep": options.name, **figures(turned, range(len(trials)), first)}
        seeds = [str(42 + (repetition * (last // options.repetitions) + n) % last) for n in range(first)]
        name = f"{options.name}-asha-{first}-{repetition}"
        GRID.main([*shared, "--seed-list", *seeds, "--name", name])
        store = Store(options.results / name)
        summary, finished = summarise(store), set(store.recorded())
        line = figures(turned, [k for k, trial in enumerate(trials) if trial in finished], first)
        saved = first * (1 - summary["epochs_run"].sum() / summary["epochs"].sum()) / last
        yield {"sweep": f"{options.name}, ASHA", **line, "trainings": line["trainings"] - saved}


def main() -> None:
    """Print a line for each kind of sweep: the mean over repetitions, and their least and greatest."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--name", help="of a real grid's results folders")
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--seeds", default="2..20")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--sweeps", type=int, default=20, help="simulated sweeps in each repetition")
    options, rest = parser.parse_known_args()
    first, last = SeedCounts.parse(options.seeds)
    lines = (
        real(options, rest, first, last)
        if options.name
        else simulated(first, last, options.sweeps, options.repetitions)
    )
    for name, of in pd.DataFrame(list(lines)).groupby("sweep", sort=False):
        numbers = of.drop(columns="sweep")
        cells = [f"{key} {x.mean():.3f} ({x.min():.3f} to {x.max():.3f})" for key, x in numbers.items()]
        print(f"{name}, seeds {options.seeds}: {'; '.join(cells)}")


if __name__ == "__main__":
    main()
