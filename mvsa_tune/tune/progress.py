"""What a person sees while a sweep runs: a line for each finished trial, and a bar with the remaining time."""

import sys
import time
from collections.abc import Mapping

from tqdm import tqdm

from mvsa_tune.config import Config
from mvsa_tune.training.result import TrialResult

BAR = "{desc} {percentage:3.0f}% |{bar:24}| {elapsed}<{remaining}{postfix}"


class Progress:
    """The display of a sweep, whose remaining time follows from the estimated costs of the trials, not their number.

    On a terminal the bar stays on the last line; elsewhere (a log file) only the lines of finished trials are written.
    """

    def __init__(self, expected: int | None, *, quiet: bool) -> None:
        """Start the clock; `expected` is the number of trials, None if it is unknown; if `quiet`, nothing is shown."""
        self.expected, self.quiet, self.started = expected, quiet, time.perf_counter()
        self.costs: Mapping[str, float] = {}
        self.running: dict[str, float] = {}  # the finished share of each running trial, by id
        self.ended = 0
        self.best: tuple[float, str] | None = None  # accuracy and name
        bar, hidden = BAR if expected is not None else "{desc} {elapsed}{postfix}", quiet or not sys.stderr.isatty()
        self.bar = tqdm(total=expected, bar_format=bar, disable=hidden, dynamic_ncols=True, leave=False)
        self._show()

    def weigh(self, costs: Mapping[str, float]) -> None:
        """Take the estimated cost of each trial, by id, in any unit; a trial without an estimate costs 1."""
        self.costs = costs
        self.bar.total = sum(costs.values()) or self.expected

    def start(self, trial: str) -> None:
        """Show one more trial as running."""
        self.advance(trial, self.running.get(trial, 0.0))

    def advance(self, trial: str, share: float) -> None:
        """Show which share of a trial, from 0 to 1, is finished."""
        self.bar.update(self.costs.get(trial, 1.0) * (share - self.running.get(trial, 0.0)))
        self.running[trial] = share
        self._show()

    def finish(self, config: Config, result: TrialResult) -> None:
        """Show the accuracy of a trial that has ended; one that was stopped early cannot be the best."""
        best = result.at_best(result.accuracy)
        spread = f" ± {best.std(ddof=1):.3f}" if len(best) > 1 else ""
        text = f"{best.mean():.3f}{spread} (n {len(best)}) in {result.seconds:.1f} s"
        if result.epochs < config.epochs:
            text = f"stopped at epoch {result.epochs}: {text}"
        elif self.best is None or best.mean() > self.best[0]:
            self.best = (float(best.mean()), config.name)
        self._end(config, text)

    def fail(self, config: Config, reason: str) -> None:
        """Show that a trial has failed for good."""
        self._end(config, f"failed: {reason}")

    def say(self, text: str) -> None:
        """Write a line above the bar."""
        if not self.quiet:
            tqdm.write(text)

    def close(self) -> None:
        """Remove the bar."""
        self.bar.close()

    def _end(self, config: Config, text: str) -> None:
        self.advance(config.id, 1.0)
        del self.running[config.id]
        self.ended += 1
        self.say(f"[{self._count()} {time.perf_counter() - self.started:6.1f} s] {config.name}: {text}")
        self._show()

    def _count(self) -> str:
        total = "" if self.expected is None else f"/{self.expected}"
        return f"{self.ended:>{max(0, len(total) - 1)}}{total}"

    def _show(self) -> None:
        best = f", best {self.best[0]:.3f} ({self.best[1]})" if self.best else ""
        self.bar.set_description_str(f"{self._count().strip()} trials", refresh=False)
        self.bar.set_postfix_str(f"{len(self.running)} running{best}")
