"""What a person sees while a sweep runs: a line for each finished trial, and a bar with the time left."""

import sys
import time

from tqdm import tqdm

BAR = "{desc} {percentage:3.0f}% |{bar:24}| {elapsed}<{remaining}{postfix}"


class Progress:
    """Progress of a sweep. Time left goes by each trial's estimated cost, not by the number of trials.

    On a terminal the bar stays on the last line; elsewhere (a log file) only the finished trials' lines are written.
    """

    def __init__(self, costs: dict[str, float], *, quiet: bool) -> None:
        """Start.

        Args:
            costs: estimated cost of each trial to come, by id, in any unit.
            quiet: show nothing.
        """
        self.costs = costs
        self.running: set[str] = set()
        self.ended: set[str] = set()
        self.best: tuple[float, str] | None = None
        self.quiet = quiet
        self.started = time.perf_counter()
        self.bar = tqdm(
            total=sum(costs.values()),
            bar_format=BAR,
            disable=quiet or not sys.stderr.isatty(),
            desc=f"0/{len(costs)} trials",
            dynamic_ncols=True,
        )

    def start(self, trial: str) -> None:
        """Note that a trial has begun."""
        self.running.add(trial)
        self._show()

    def finish(self, trial: str, name: str, accuracy: float | None, result: str) -> None:
        """Note that a trial has ended; `accuracy` is its mean validation accuracy, None if it failed."""
        self.running.discard(trial)
        self.ended.add(trial)
        if accuracy is not None and (self.best is None or accuracy > self.best[0]):
            self.best = (accuracy, name)
        if not self.quiet:
            elapsed, count, total = time.perf_counter() - self.started, len(self.ended), len(self.costs)
            tqdm.write(f"[{count:>{len(str(total))}}/{total} {elapsed:6.1f} s] {name}: {result}")
        self.bar.update(self.costs[trial])
        self._show()

    def close(self) -> None:
        """Remove the bar."""
        self.bar.leave = False
        self.bar.close()

    def _show(self) -> None:
        best = f", best {self.best[0]:.3f} ({self.best[1]})" if self.best else ""
        self.bar.set_description_str(f"{len(self.ended)}/{len(self.costs)} trials", refresh=False)
        self.bar.set_postfix_str(f"{len(self.running)} running{best}")
