"""What ASHA saves, and what it costs: compare its winner with the full grid's, over repetitions with other seeds.

    python bench/asha.py --name twins --data DIR --pairs mobilenet_v2+minilm --D 128 256 --lr 2e-5 1e-4

The full grid is trained once with the seeds of all repetitions (a replicate's numbers do not depend on the others in
its stack), ASHA once in each repetition with that repetition's seeds. Results stay in --results and are reused. All
other flags are those of sweeps/grid.py.

The *regret* of a repetition is the full grid's best mean minus the mean of ASHA's winner trained to the end, on the
same seeds. *Elsewhere* are the means of both winners on the seeds of the other repetitions, which had no part in
choosing them.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from mvsa_tune.config import Asha
from mvsa_tune.results.store import Store
from mvsa_tune.stats.summary import ranked, summarise
from mvsa_tune.sweeps import GRID


def compare(full: pd.DataFrame, asha: Store) -> dict[str, float]:
    """Return the figures of a repetition.

    Args:
        full: accuracy of every trial and seed of the full grid, trials down, seeds across.
        asha: the sweep with ASHA, on some of those seeds.
    """
    seeds = [replicate.seed for replicate in asha.manifest.replicates]
    others = sorted(set(full.columns) - set(seeds))
    means = full[seeds].mean(axis=1)
    summary = summarise(asha)
    winner, best = ranked(summary)["trial_id"][0], means.idxmax()
    return {
        "epochs": summary["epochs_run"].sum() / summary["epochs"].sum(),
        "full grid's best": means[best],
        "regret": means[best] - means[winner],
        "standard error": full.loc[best].std(ddof=1) / len(seeds) ** 0.5,
        "elsewhere, full": full.loc[best, others].mean(),
        "elsewhere, ASHA": full.loc[winner, others].mean(),
    }


def main() -> None:
    """Run the sweeps that are missing; print a line for each repetition."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--name", required=True)
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=3, help="of each repetition")
    parser.add_argument("--grace-period", default=str(Asha().grace_period))
    parser.add_argument("--reduction-factor", default=str(Asha().reduction_factor))
    options, rest = parser.parse_known_args()
    shared = [*rest, "--results", str(options.results), "--quiet"]
    asha = ["--grace-period", options.grace_period, "--reduction-factor", options.reduction_factor]
    count = options.repetitions * options.seeds
    GRID.main([*shared, "--scheduler", "none", "--seeds", str(count), "--name", f"{options.name}-full"])
    full = Store(options.results / f"{options.name}-full")
    accuracy = full.rows().pivot(index="trial_id", columns="seed", values="val_acc_best")
    lines = []
    for repetition in range(options.repetitions):
        seeds = map(str, range(42 + repetition * options.seeds, 42 + (repetition + 1) * options.seeds))
        name = f"{options.name}-asha-{repetition}"
        GRID.main([*shared, *asha, "--seed-list", *seeds, "--name", name])
        lines.append(compare(accuracy, Store(options.results / name)))
    table = pd.DataFrame(lines)
    print(table.to_string(float_format="{:.3f}".format))
    epochs, regret = table["epochs"], table["regret"]
    elsewhere = table["elsewhere, ASHA"] - table["elsewhere, full"]
    print(
        f"{options.name}: {len(accuracy)} configurations, {options.repetitions} repetitions of {options.seeds} seeds: "
        f"{epochs.mean():.0%} of the epochs ({epochs.min():.0%} to {epochs.max():.0%}), regret {regret.mean():.4f} "
        f"(at most {regret.max():.4f}; one standard error of the best: {table['standard error'].mean():.4f}), "
        f"elsewhere {elsewhere.mean():+.4f} ± {elsewhere.std(ddof=1) / np.sqrt(len(table)):.4f}"
    )


if __name__ == "__main__":
    main()
