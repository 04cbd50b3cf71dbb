"""How far a sweep is, in the terminal: a bar, or without a terminal a line every half minute."""

import sys
import threading
import time
from collections.abc import Mapping

from tqdm import tqdm

from mvsa_tune.config import Config
from mvsa_tune.formats import clock
from mvsa_tune.machine import further_stderr
from mvsa_tune.training.result import TrialResult

BAR = "{desc} {percentage:3.0f}% |{bar:16}| {elapsed}{postfix}"
LINE_SECONDS = 30  # between two lines where there is no terminal
SHOWN = 3  # running trials whose accuracy is shown
# The remaining time follows from what was trained once it is this share of the whole, and took this long.
LEAST_SHARE, LEAST_SECONDS = 0.02, 5.0


class Progress:
    """The display of a sweep, whose remaining time follows from the estimated costs of the trials, not their number.

    On a terminal the bar stays on the last line. Elsewhere (a log file) there are lines: one for each finished trial,
    and one every half minute that says how far the sweep is.
    """

    def __init__(self, expected: int | None, *, quiet: bool) -> None:
        """Start the clock; `expected` is the number of trials, None if it is unknown; if `quiet`, nothing is shown."""
        self.expected, self.quiet, self.estimate = expected, quiet, 0.0
        self.started, self.first_trial = time.perf_counter(), 0.0
        self.waiting = "starting Ray"
        self.costs: Mapping[str, float] = {}
        self.running: dict[str, float] = {}  # the finished share of each running trial, by id
        self.accuracy: dict[str, float] = {}  # of running trials, up to now
        self.ended, self.work = 0, 0.0
        self.best: tuple[float, str] | None = None  # accuracy and name
        self.on_terminal = sys.stderr.isatty()
        bar, hidden = BAR if expected is not None else "{desc} {elapsed}{postfix}", quiet or not self.on_terminal
        file = None if hidden else further_stderr()  # Ray mutes stderr while it starts
        self.bar = tqdm(total=expected, bar_format=bar, disable=hidden, dynamic_ncols=True, leave=False, file=file)
        self._show()
        self._closed = threading.Event()
        if not quiet:
            threading.Thread(target=self._tick, daemon=True).start()

    def weigh(self, costs: Mapping[str, float]) -> None:
        """Take the estimated cost of each trial, by id, in any unit; a trial without an estimate costs 1."""
        self.costs = costs
        self.bar.total = sum(costs.values()) or self.expected
        self.waiting = "starting workers"
        self._show()

    def expect(self, seconds: float, *, at_most: bool) -> None:
        """Take an estimate of what the sweep takes, start and end included; 0 is none."""
        self.estimate = seconds
        if seconds:
            self.say(f"time      about {clock(seconds)}{' at most' * at_most}")

    def start(self, trial: str) -> None:
        """Show one more trial as running."""
        self.first_trial = self.first_trial or time.perf_counter()
        self.waiting = self.waiting and "in the first epochs"
        self.advance(trial, self.running.get(trial, 0.0))

    def advance(self, trial: str, share: float, accuracy: float | None = None) -> None:
        """Show which share of a trial, from 0 to 1, is finished, and its accuracy up to now."""
        done = self.costs.get(trial, 1.0) * (share - self.running.get(trial, 0.0))
        self.work += done
        self.bar.update(done)
        self.running[trial] = share
        if share:
            self.waiting = ""
        if accuracy is not None:
            self.accuracy[trial] = accuracy
        self._show()

    def finish(self, config: Config, result: TrialResult) -> None:
        """Show the accuracy of a trial that has ended, the one that ranks; one stopped early cannot be the best."""
        accuracy = result.correctness.accuracy
        mean, spread = float(accuracy.mean()), f" ± {accuracy.std(ddof=1):.3f}" if len(accuracy) > 1 else ""
        text = f"{mean:.3f}{spread} (n {len(accuracy)}) in {result.seconds:.1f} s"
        if result.epochs < config.epochs:
            text = f"stopped at epoch {result.epochs}: {text}"
        elif self.best is None or mean > self.best[0]:
            self.best = (mean, config.name)
        self._end(config, text)

    def fail(self, config: Config, reason: str) -> None:
        """Show that a trial has failed for good."""
        self._end(config, f"failed: {reason}")

    def say(self, text: str) -> None:
        """Write a line above the bar."""
        if not self.quiet:
            with tqdm.get_lock():
                self.bar.clear(nolock=True)
                print(text, flush=True)
                self.bar.refresh(nolock=True)

    def close(self) -> None:
        """Remove the bar."""
        self._closed.set()
        self.bar.close()

    @property
    def remaining(self) -> float | None:
        """Seconds that are left: as long as what was trained took, or by the estimate; None before that is known."""
        now, total = time.perf_counter(), self.bar.total or 0.0
        trained = now - self.first_trial if self.first_trial else 0.0
        if total and self.work >= LEAST_SHARE * total and trained >= LEAST_SECONDS:
            return trained * max(0.0, total / self.work - 1)
        return max(0.0, self.estimate - (now - self.started)) or None if self.estimate else None

    def _tick(self) -> None:
        """Move the clock each second; write the lines where there is no terminal."""
        while not self._closed.wait(1 if self.on_terminal else LINE_SECONDS):
            if self.on_terminal:
                self._show()
            else:
                self.say(f"[{self._count()} {self._seconds():6.1f} s] {self._state()}")

    def _end(self, config: Config, text: str) -> None:
        self.advance(config.id, 1.0)
        del self.running[config.id]
        self.accuracy.pop(config.id, None)
        self.ended += 1
        self.say(f"[{self._count()} {self._seconds():6.1f} s] {config.name}: {text}")
        self._show()

    def _seconds(self) -> float:
        return time.perf_counter() - self.started

    def _count(self) -> str:
        total = "" if self.expected is None else f"/{self.expected}"
        return f"{self.ended:>{max(0, len(total) - 1)}}{total}"

    def _state(self) -> str:
        left = self.remaining
        accuracies = ", ".join(f"{value:.3f}" for value in list(self.accuracy.values())[-SHOWN:])
        running = f"{len(self.running)} running" + (f" (at {accuracies})" if accuracies else "")
        parts = [
            f"about {clock(left)} left" if left else "",
            self.waiting or running,
            f"best {self.best[0]:.3f} ({self.best[1]})" if self.best else "",
        ]
        return ", ".join(filter(None, parts))

    def _show(self) -> None:
        self.bar.set_description_str(f"{self._count().strip()} trials", refresh=False)
        self.bar.set_postfix_str(self._state())
