"""Seed variances of a few seeds each, moderated: shrunk towards what the configurations have in common.

Three seeds tell little of a configuration's variance over seeds; those of all configurations together tell more. The
true variances are taken as drawn from a scaled inverse χ² distribution with prior degrees of freedom d0, so that the
observed ones follow s0² F(d, d0), and each is replaced by its posterior mean (Smyth 2004, doi 10.2202/1544-6115.1027).

d0 says how alike the true variances are, and few of them say little of that. So d0 is not the best estimate but the
lowest that the data do not contradict: the lower end of its 95 % profile-likelihood interval. A configuration whose
seeds scatter then keeps most of its own variance, and hardly widens the others'. One whose few seeds happen to agree
gets the median of all: its own variance would be too small just where a difference looks clearest (`bench/power.py`).
"""

import numpy as np
from scipy import stats

from mvsa_tune.stats.intervals import Array

PRIOR_DEGREES = np.array([0.5, 1, 1.5, 2, 3, 4, 6, 8, 12, 16, 24, 40, 80, 160])
LOG_SCALES = np.linspace(-4, 1.5, 56)  # of the prior variance over the mean of the variances
DROP = stats.chi2.ppf(0.95, 1) / 2  # of the log-likelihood, at the ends of the profile-likelihood interval
LEAST = 0.01  # variances below this part of their median are raised to it: seeds that agree by chance


def moderate(variances: Array, degrees: Array) -> tuple[Array, Array]:
    """Return the moderated variances and their degrees of freedom, `(K,)` each.

    Args:
        variances: `(K,)`; ignored where `degrees` is 0.
        degrees: `(K,)` degrees of freedom of each, above 0 for one at least.
    """
    known = degrees > 0
    total = degrees.sum()
    if np.ptp(variances[known]) <= 1e-12 * variances[known].max():  # all alike, or a single one: no spread to estimate
        return np.full(len(variances), variances[known][0]), np.full(len(variances), total)
    prior_degrees, prior_variance = prior(variances[known], degrees[known])
    own = np.where(known, variances, 0.0) * degrees
    moderated = (prior_degrees * prior_variance + own) / (prior_degrees + degrees)
    return np.maximum(moderated, np.median(moderated)), np.minimum(prior_degrees + degrees, total)


def prior(variances: Array, degrees: Array) -> tuple[float, float]:
    """Return the prior's degrees of freedom, cautiously low, and its variance, the most likely with those."""
    mean = float(variances @ degrees / degrees.sum())
    raised = np.maximum(variances, LEAST * np.median(variances))[:, None, None]
    scales = mean * np.exp(LOG_SCALES)
    density = stats.f.logpdf(raised / scales[:, None], degrees[:, None, None], PRIOR_DEGREES)
    likelihood = (density - np.log(scales)[:, None]).sum(axis=0)  # scales × prior degrees
    profile = likelihood.max(axis=0)
    lowest = int(np.argmax(profile >= profile.max() - DROP))
    return float(PRIOR_DEGREES[lowest]), float(scales[likelihood[:, lowest].argmax()])
