"""A plan as text: what `--dry-run` prints."""

from collections.abc import Iterator, Sequence

from mvsa_tune.config import Config
from mvsa_tune.data.splits import Split
from mvsa_tune.errors import some
from mvsa_tune.tune.plan import Plan

START_SECONDS = 8.5  # of a sweep besides its trials, from start to tables, on 2 cores (bench/startup.py)


def outline(plan: Plan) -> list[str]:
    """Return the lines of a plan that need neither torch nor an encoder."""
    place = plan.placement
    share = f"{place.cpus} CPU thread{'s' * (place.cpus > 1)}{f' and {place.gpus:g} GPU' if place.gpus else ''} each"
    where = f"{len(place.nodes)} nodes" if place.nodes else "machine"
    return [
        *(f"{'data':<10}{line}" for line in plan.dataset.description()),
        f"texts     {len(plan.dataset.not_utf8):,} decoded as GB18030, the others as UTF-8",
        f"split     {_sizes(plan.split)}",
        *_trials(plan),
        f"stopping  {_stopping(plan)}",
        f"{where:<10}{place.concurrent} trial{'s' * (place.concurrent > 1)} at once on {place.device}, {share}",
    ]


def cost_lines(plan: Plan) -> Iterator[str]:
    """Yield the lines of a plan with costs: what it leaves out, memory and time, and a line for each configuration.

    A search shows the corners of its space.
    """
    total = len(plan.configs)
    if plan.skipped:
        names = some(list(plan.skipped))
        yield f"left out  {len(plan.skipped):,} samples, unreadable: {names}; leaves {_sizes(plan.split)}"
    if plan.not_run:
        yield f"left out  {len(plan.not_run):,} of {total:,} configurations, for the reasons below"
    unknown = total - len(plan.costs)
    without = f"; not counting {unknown} configurations whose encoders have not been loaded" if unknown else ""
    yield f"memory    about {plan.memory / 2**20:,.0f} MiB for each worker, besides Python and torch{without}"
    yield f"time      {_time(plan)}"
    yield ""
    width = max(len(config.name) for config in plan.configs)
    for config in plan.configs:
        cost, reason = plan.costs.get(config.id), plan.not_run.get(config.id)
        parameters, seconds = (f"{cost.parameters:,}", f"about {clock(cost.seconds)}") if cost else ("?", "")
        remarks = "; ".join(filter(None, [seconds, reason and f"left out: {reason}"]))
        yield f"{config.name:<{width}}  {parameters:>9} parameters × {len(plan.replicates)}  {remarks}"


def _sizes(split: Split) -> str:
    """Return the sizes of a split's parts: `kfold:5, 5 folds: 3,199 to 3,201 samples to train, …`."""
    spans = []
    for part, verb in {"train": "samples to train", "validation": "to validate", "test": "to test"}.items():
        sizes = sorted(len(rows) for rows in getattr(split, part).values())
        if sizes[-1]:
            spans.append(f"{sizes[0]:,}{f' to {sizes[-1]:,}' if sizes[-1] > sizes[0] else ''} {verb}")
    folds = ", one fold for each seed" if split.by_seed else f", {len(split.train)} folds" * (len(split.train) > 1)
    return f"{split.name}{folds}: {', '.join(spans)}"


def _trials(plan: Plan) -> list[str]:
    names = ", ".join(dict.fromkeys(str(replicate.seed) for replicate in plan.replicates))
    folds = "" if plan.split.by_seed or len(plan.split.train) == 1 else f" on {len(plan.split.train)} folds"
    seeds = f"each with {len(plan.replicates)} replicates (seeds {names}{folds})"
    if plan.search is None:
        return [f"trials    {len(plan.configs)} configurations, {seeds}"]
    dimensions = [f"space     {name} {dimension}" for name, dimension in plan.search.space.items()]
    return [*dimensions, f"trials    {plan.search.budget}, proposed by TPE, {seeds}"]


def _stopping(plan: Plan) -> str:
    if plan.asha is None or not plan.milestones:
        return f"none: every trial is trained for {plan.epochs} epochs"
    rungs = ", ".join(map(str, plan.milestones))
    best = f"the best 1 in {plan.asha.reduction_factor:g} of the trials that have come as far"
    return f"ASHA: after {rungs} of {plan.epochs} epochs a trial goes on only if it is among {best}"


def _time(plan: Plan) -> str:
    if plan.search:
        seconds = sorted(cost.seconds for cost in plan.costs.values())
        return f"from {clock(seconds[0])} to {clock(seconds[-1])} a trial" if seconds else "unknown"
    text = "nothing can run yet"
    if plan.runnable:
        text = f"about {_total(plan, plan.runnable)}{' at most' * bool(plan.milestones)}"
    measured = [config for config in plan.configs if config.id in plan.costs]
    return f"{text}; about {_total(plan, measured)} with those left out" if plan.not_run and measured else text


def _total(plan: Plan, configs: Sequence[Config]) -> str:
    return clock(START_SECONDS + sum(plan.costs[config.id].seconds for config in configs) / plan.placement.concurrent)


def clock(seconds: float) -> str:
    """Return a duration as text: `42 s`, `3 min 10 s`, `2 h 05 min`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02d} min"
