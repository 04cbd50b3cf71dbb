"""How much of what configurations differ by goes to each hyperparameter: Optuna's functional ANOVA, with its spread.

The evaluator (Hutter, Hoos & Leyton-Brown 2014, by a random forest) takes the accuracies as they are. They are not exact: so it is asked again for
accuracies whose seeds and samples were drawn anew, and what the answers spread over is told with their mean.
"""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mvsa_tune.config import AXES, Config

DRAWS, TREES = 20, 16
MOST = 300  # configurations in a draw: the forest's time grows faster than their number
FEWER_DRAWS = 5  # where there are so many
LEAST = 4
# Values of a hyperparameter up to which each is a level of its own; beyond, a scale.
LEVELS = 6


@dataclass(frozen=True)
class Importance:
    """A hyperparameter's share of the variance of accuracy over the space that was swept, interactions shared out.

    Attributes:
        name: the hyperparameter; `encoders` for the pair with the ablation.
        mean: over draws.
        low, high: between which nine draws of ten lie.
        std: over draws.
    """

    name: str
    mean: float
    low: float
    high: float
    std: float


def importances(configs: Sequence[Config], values: NDArray[np.float64]) -> tuple[Importance, ...]:
    """Each hyperparameter that varies, the most important first; none for fewer than `LEAST` configurations. The same draws every time.

    Args:
        configs: K of them.
        values: `(K, R, N)` how rightly each sample is answered.
    """
    factors = {name: column for name, column in _columns(configs).items() if len(set(column)) > 1}
    if len(configs) < LEAST or not factors:
        return ()
    rng = np.random.default_rng(0)
    found = [
        _shares(factors, *_drawn(values, rng), seed)
        for seed in range(DRAWS if len(configs) <= MOST / 3 else FEWER_DRAWS)
    ]
    lines = []
    for name in factors:
        shares = [one[name] for one in found]
        low, high = np.quantile(shares, [0.05, 0.95])
        lines.append(Importance(name, float(np.mean(shares)), float(low), float(high), float(np.std(shares, ddof=1))))
    return tuple(sorted(lines, key=lambda line: -line.mean))


def _columns(configs: Sequence[Config]) -> dict[str, list[Any]]:
    """The values of each axis, configuration by configuration."""
    encoders = {"encoders": ["+".join(config.encoders.values()) for config in configs]}
    apart = ("image_encoder", "text_encoder", "ablation", "pair")
    return encoders | {name: [getattr(config, name) for config in configs] for name in AXES if name not in apart}


def _drawn(values: NDArray[np.float64], rng: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Which configurations, `MOST` at most, and their accuracies over seeds and samples drawn with replacement."""
    count, replicates, samples = values.shape
    which = np.sort(rng.choice(count, min(count, MOST), replace=False))
    rows = rng.multinomial(replicates, np.full(replicates, 1 / replicates)) / replicates
    columns = rng.multinomial(samples, np.full(samples, 1 / samples)) / samples
    return which, np.einsum("krn,r,n->k", values[which], rows, columns)


def _shares(
    factors: dict[str, list[Any]], which: NDArray[np.int64], accuracy: NDArray[np.float64], seed: int
) -> dict[str, float]:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    taken = {name: [column[place] for place in which] for name, column in factors.items()}
    spaces = {name: _space(column) for name, column in taken.items()}
    study = optuna.create_study(direction="maximize")
    study.add_trials(
        [
            optuna.trial.create_trial(
                params={name: column[place] for name, column in taken.items()}, distributions=spaces, value=float(value)
            )
            for place, value in enumerate(accuracy)
        ]
    )
    if np.ptp(accuracy) == 0:
        return dict.fromkeys(factors, 0.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        evaluator = optuna.importance.FanovaImportanceEvaluator(n_trees=TREES, seed=seed)
        shares = optuna.importance.get_param_importances(study, evaluator=evaluator)
    return {name: float(shares.get(name, 0.0)) for name in factors}


def _space(column: Sequence[Any]) -> Any:
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    levels = sorted(set(column)) if all(isinstance(value, int | float) for value in column) else []
    if len(levels) <= LEVELS:
        return CategoricalDistribution(list(dict.fromkeys(column)))
    low, high = float(levels[0]), float(levels[-1])
    return FloatDistribution(low, high, log=low > 0 and math.log10(high / low) > 1)
