"""How much of the variance of accuracy is due to each hyperparameter: Optuna's functional ANOVA, with its uncertainty.

The evaluator (Hutter, Hoos & Leyton-Brown 2014, by a random forest) takes accuracies as exact. They are not, so it is
run again for accuracies of redrawn seeds and samples; the mean and the spread of its answers are reported.
"""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from mvsa_tune.config import AXES, Config
from mvsa_tune.stats.intervals import Array

DRAWS, TREES = 20, 16
MOST = 300  # configurations in a draw; the forest takes more than linear time
FEWER_DRAWS = 5  # for more than MOST / 3 configurations
LEAST = 4  # configurations
LEVELS = 6  # a hyperparameter with more values than this is continuous


@dataclass(frozen=True)
class Importance:
    """A hyperparameter's share of the variance of accuracy over what was swept, with its part of the interactions."""

    name: str  # `encoders` for the pair with the ablation
    mean: float  # over draws, as the others
    low: float  # the 5 % quantile
    high: float  # the 95 % quantile
    std: float


def importances(configs: Sequence[Config], values: Array) -> tuple[Importance, ...]:
    """Return each hyperparameter that varies, the most important first; none for fewer than `LEAST` configurations.

    `values` are the correctness of the K configurations, `(K, R, N)`. The draws are the same every time.
    """
    columns: dict[str, list[Any]] = {"encoders": ["+".join(config.encoders.values()) for config in configs]}
    columns |= {name: [getattr(config, name) for config in configs] for name in AXES if name != "ablation"}
    columns = {name: column for name, column in columns.items() if len(set(column)) > 1}
    K, R, N = values.shape
    if K < LEAST or not columns:
        return ()
    rng, shares = np.random.default_rng(0), []
    for seed in range(DRAWS if K <= MOST / 3 else FEWER_DRAWS):
        drawn = np.sort(rng.choice(K, min(K, MOST), replace=False))
        rows, samples = (rng.multinomial(count, np.full(count, 1 / count)) / count for count in (R, N))
        accuracy = np.einsum("krn,r,n->k", values[drawn], rows, samples)
        shares.append(_shares({name: [column[k] for k in drawn] for name, column in columns.items()}, accuracy, seed))
    result = [
        Importance(str(name), share.mean(), share.quantile(0.05), share.quantile(0.95), share.std())
        for name, share in pd.DataFrame(shares).items()
    ]
    return tuple(sorted(result, key=lambda importance: -importance.mean))


def _shares(columns: dict[str, list[Any]], accuracy: Array, seed: int) -> dict[str, float]:
    """Return each hyperparameter's share, given its values and the accuracies of the configurations."""
    if np.ptp(accuracy) == 0:
        return dict.fromkeys(columns, 0.0)
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    spaces = {name: _distribution(column) for name, column in columns.items()}
    study = optuna.create_study(direction="maximize")
    for point, value in zip(zip(*columns.values(), strict=True), accuracy, strict=True):
        params = dict(zip(columns, point, strict=True))
        study.add_trial(optuna.trial.create_trial(params=params, distributions=spaces, value=float(value)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        evaluator = optuna.importance.FanovaImportanceEvaluator(n_trees=TREES, seed=seed)
        shares = optuna.importance.get_param_importances(study, evaluator=evaluator)
    return {name: float(shares.get(name, 0.0)) for name in columns}


def _distribution(column: Sequence[Any]) -> Any:
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    levels = sorted(set(column)) if all(isinstance(value, int | float) for value in column) else []
    if len(levels) <= LEVELS:
        return CategoricalDistribution(list(dict.fromkeys(column)))
    low, high = float(levels[0]), float(levels[-1])
    return FloatDistribution(low, high, log=low > 0 and math.log10(high / low) > 1)
