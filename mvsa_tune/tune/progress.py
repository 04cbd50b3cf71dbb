"""What a person sees while a sweep runs: a line for each finished trial, and a bar with the time left."""

import sys
import time
from collections.abc import Mapping

from tqdm import tqdm

from mvsa_tune.config import Config
from mvsa_tune.training.result import TrialResult

BAR = "{desc} {percentage:3.0f}% |{bar:24}| {elapsed}<{remaining}{postfix}"
OPEN_BAR = "{desc} {elapsed}{postfix}"


class Progress:
    """Progress of a sweep. Time left goes by each trial's estimated cost, not by the number of trials.

    On a terminal the bar stays on the last line; elsewhere (a log file) only the finished trials' lines are written.
    """

    def __init__(self, expected: int | None, *, quiet: bool) -> None:
        """Start.

        Args:
            expected: how many trials there will be, None if nobody knows.
            quiet: show nothing.
        """
        self.costs: Mapping[str, float] = {}
        self.expected = expected
        self.running: dict[str, float] = {}  # which, and the share of each that is done
        self.ended: set[str] = set()
        self.best: tuple[float, str] | None = None
        self.quiet = quiet
        self.started = time.perf_counter()
        self.bar = tqdm(
            total=expected,
            bar_format=OPEN_BAR if expected is None else BAR,
            disable=quiet or not sys.stderr.isatty(),
            desc=self._count(),
            dynamic_ncols=True,
        )

    def weigh(self, costs: Mapping[str, float]) -> None:
        """Take the estimated cost of each trial to come, by id, in any unit; a trial that is not there costs 1."""
        self.costs = costs
        self.bar.total = sum(costs.values()) or self.expected

    def start(self, trial: str) -> None:
        """Note that a trial has begun."""
        self.running.setdefault(trial, 0.0)
        self._show()

    def advance(self, trial: str, share: float) -> None:
        """Note what share of a running trial is done."""
        self._move(trial, share)
        self._show()

    def finish(self, config: Config, outcome: TrialResult) -> None:
        """Note that a trial was trained to its end, or stopped before it: that one cannot be the best."""
        best = outcome.at_best(outcome.accuracy)
        spread = f" ± {best.std(ddof=1):.3f}" if len(best) > 1 else ""
        text = f"{best.mean():.3f}{spread} (n {len(best)}) in {outcome.seconds:.1f} s"
        if outcome.epochs < config.epochs:
            text = f"stopped at epoch {outcome.epochs}: {text}"
        elif self.best is None or best.mean() > self.best[0]:
            self.best = (float(best.mean()), config.name)
        self._end(config, text)

    def fail(self, config: Config, reason: str) -> None:
        """Note that a trial has failed for good."""
        self._end(config, f"failed: {reason}")

    def say(self, text: str) -> None:
        """Write a line above the bar."""
        if not self.quiet:
            tqdm.write(text)

    def close(self) -> None:
        """Remove the bar."""
        self.bar.leave = False
        self.bar.close()

    def _end(self, config: Config, text: str) -> None:
        self._move(config.id, 1.0)
        self.running.pop(config.id, None)
        self.ended.add(config.id)
        self.say(f"[{self._count()} {time.perf_counter() - self.started:6.1f} s] {config.name}: {text}")
        self._show()

    def _move(self, trial: str, share: float) -> None:
        done = self.running.get(trial, 0.0)
        self.bar.update(self.costs.get(trial, 1.0) * (share - done))
        self.running[trial] = share

    def _count(self) -> str:
        if self.expected is None:
            return f"{len(self.ended)}"
        return f"{len(self.ended):>{len(str(self.expected))}}/{self.expected}"

    def _show(self) -> None:
        best = f", best {self.best[0]:.3f} ({self.best[1]})" if self.best else ""
        self.bar.set_description_str(f"{self._count().strip()} trials", refresh=False)
        self.bar.set_postfix_str(f"{len(self.running)} running{best}")
