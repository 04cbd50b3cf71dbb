"""What ASHA saves, and what it costs: its winner against the full grid's, over repetitions with other seeds.

    python bench/asha.py --name twins --data DIR --pairs mobilenet_v2+minilm --D 128 256 --lr 2e-5 1e-4 --ablation 0 1 2

The full grid is trained once with the seeds of all repetitions (a replicate's numbers do not depend on who else is in
its stack), ASHA once a repetition with its own. Results stay in --results and are reused. Flags of sweeps/grid.py
pass through.

A repetition's *regret* is the full grid's best mean less that of ASHA's winner when trained to the end, on the same
seeds. *Elsewhere* are the two winners' means on the seeds of the other repetitions, which had no part in choosing
them.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).parents[1] / "sweeps"))
import grid
from mvsa_tune.results.store import Store
from mvsa_tune.stats.summary import ranked, summarise


def compare(full: pd.DataFrame, asha: Store) -> dict[str, float]:
    """One repetition.

    Args:
        full: accuracy of every trial and seed of the full grid, trials down, seeds across.
        asha: the sweep with ASHA, on some of those seeds.
    """
    seeds = [one.seed for one in asha.manifest.replicates]
    others = [seed for seed in full.columns if seed not in seeds]
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
    """Run what is not there yet; print a line a repetition."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--name", required=True)
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=3, help="of each repetition")
    for flag in ("--grace-period", "--reduction-factor"):
        parser.add_argument(flag)
    options, rest = parser.parse_known_args()
    shared = [*rest, "--results", str(options.results), "--quiet"]
    asha = [
        word
        for name in ("grace_period", "reduction_factor")
        if (value := getattr(options, name))
        for word in (f"--{name.replace('_', '-')}", value)
    ]
    count = options.repetitions * options.seeds
    grid.main([*shared, "--scheduler", "none", "--seeds", str(count), "--name", f"{options.name}-full"])
    full = Store(options.results / f"{options.name}-full")
    accuracy = full.rows().pivot(index="trial_id", columns="seed", values="val_acc_best")
    lines = []
    for repetition in range(options.repetitions):
        seeds = map(str, range(42 + repetition * options.seeds, 42 + (repetition + 1) * options.seeds))
        name = f"{options.name}-asha-{repetition}"
        grid.main([*shared, *asha, "--seed-list", *seeds, "--name", name])
        lines.append(compare(accuracy, Store(options.results / name)))
    table = pd.DataFrame(lines)
    print(table.to_string(float_format="{:.3f}".format))
    elsewhere = table["elsewhere, ASHA"] - table["elsewhere, full"]
    print(
        f"{options.name}: {len(accuracy)} configurations, {options.repetitions} repetitions of {options.seeds} seeds: "
        f"{table['epochs'].mean():.0%} of the epochs ({table['epochs'].min():.0%} to {table['epochs'].max():.0%}), "
        f"regret {table['regret'].mean():.4f} (at most {table['regret'].max():.4f}; one standard error of the best: "
        f"{table['standard error'].mean():.4f}), elsewhere {elsewhere.mean():+.4f} ± "
        f"{elsewhere.std(ddof=1) / np.sqrt(len(table)):.4f}"
    )


if __name__ == "__main__":
    main()
