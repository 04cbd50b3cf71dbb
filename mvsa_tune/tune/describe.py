"""A plan for a person: what `--dry-run` prints, the outline at once and the costs once they are known."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from mvsa_tune.config import Config
from mvsa_tune.data.splits import Split
from mvsa_tune.errors import some
from mvsa_tune.tune.plan import Plan

# Seconds that a sweep takes besides its trials, from start to tables, measured on 2 cores (bench/startup.py).
START_SECONDS = 8.5


def show(lines: Iterable[str]) -> None:
    """Print each line as soon as it is known."""
    for line in lines:
        print(line, flush=True)


def outline(plan: Plan) -> list[str]:
    """Write what a plan will do: all that is known without loading an encoder, and without torch."""
    place = plan.placement
    return [
        *(f"{'data':<10}{line}" for line in plan.dataset.description()),
        f"texts     {len(plan.dataset.not_utf8):,} decoded as GB18030",
        f"split     {_sizes(plan.split)}",
        *_what(plan),
        f"stopping  {_stopping(plan)}",
        f"{_where(plan):<10}{place.concurrent} at once on {place.device}, {place.cpus} CPU thread{'s' * (place.cpus > 1)} each"
        + (f", {place.gpus:g} GPU each" if place.gpus else ""),
    ]


def costs(plan: Plan) -> Iterator[str]:
    """Write what a plan has to leave out and, after a calibration of a few seconds, what it will cost.

    A configuration a line; of a search, the corners of its space.
    """
    if plan.skipped:
        yield f"left out  {len(plan.skipped):,} samples, unreadable: {some(list(plan.skipped))}; leaves {_sizes(plan.split)}"
    if plan.not_run:
        yield f"left out  {len(plan.not_run):,} of {len(plan.configs):,} configurations: why, below"
    sized = plan.sized
    unsized = len(plan.configs) - len(sized)
    without = f"; not counting {unsized} configurations: an encoder's width shows once it is loaded" if unsized else ""
    estimates = plan.seconds(sized)
    yield from [
        f"memory    about {plan.memory() / 2**20:,.0f} MiB a worker, beside torch itself{without}",
        f"time      {_time(plan, sized, estimates)}",
        "",
    ]
    width = max(len(config.name) for config in plan.configs)
    for config in plan.configs:
        weights, seconds = "?", []
        if config.id in estimates:
            weights = f"{plan.parameters(config):,}"
            seconds = [f"about {clock(estimates[config.id])}"]
        state = ", ".join([*seconds, *filter(None, [plan.not_run.get(config.id)])])
        yield f"{config.name:<{width}}  {weights:>9} parameters × {len(plan.replicates)}  {state}"


def _where(plan: Plan) -> str:
    return f"{len(plan.placement.nodes)} nodes" if plan.placement.nodes else "machine"


def _sizes(split: Split) -> str:
    """A split's parts: `kfold:5, 5 folds: 3,199 to 3,201 to train on, …`."""
    words = {"train": "to train on", "validation": "to validate", **({"test": "to test"} if split.tested else {})}
    spans = []
    for part, word in words.items():
        sizes = sorted(len(rows) for rows in getattr(split, part).values())
        spans.append(f"{sizes[0]:,}{f' to {sizes[-1]:,}' if sizes[-1] > sizes[0] else ''} {word}")
    folds = "a draw for each seed: " if split.by_seed else f"{len(split.train)} folds: " if len(split.train) > 1 else ""
    return f"{split.name}, {folds}{', '.join(spans)}"


def _what(plan: Plan) -> list[str]:
    names = ", ".join(dict.fromkeys(str(one.seed) for one in plan.replicates))
    folds = "" if plan.split.by_seed or len(plan.split.train) == 1 else f" on {len(plan.split.train)} folds"
    seeds = f"each with {len(plan.replicates)} replicates (seeds {names}{folds})"
    if plan.search is None:
        return [f"trials    {len(plan.configs)} configurations, {seeds}"]
    space = ", ".join(f"{name} {dimension}" for name, dimension in plan.search.space.items())
    return [f"space     {space}", f"trials    proposed by TPE, {seeds}, {plan.search.budget}"]


def _stopping(plan: Plan) -> str:
    if plan.asha is None or not plan.milestones:
        return f"none: every trial is trained for {plan.epochs} epochs"
    rungs = ", ".join(map(str, plan.milestones))
    return (
        f"ASHA: of {plan.epochs} epochs, after {rungs}, where a trial goes on if it is among the best 1 in "
        f"{plan.asha.reduction_factor:g} that came so far"
    )


def _time(plan: Plan, sized: Sequence[Config], estimates: Mapping[str, float]) -> str:
    if plan.search:
        corners = sorted(estimates.values())
        return f"from {clock(corners[0])} to {clock(corners[-1])} a trial" if corners else "unknown"
    early = " at most" if plan.milestones else ""
    missing = (
        f"; {_total(plan, sized, estimates)} with those whose caches are missing" if plan.not_run and sized else ""
    )
    return f"{_total(plan, plan.runnable, estimates)}{early}{missing}"


def _total(plan: Plan, configs: Sequence[Config], estimates: Mapping[str, float]) -> str:
    work = sum(estimates[config.id] for config in configs) / plan.placement.concurrent
    return f"about {clock(START_SECONDS + work)}" if configs else "nothing can run yet"


def clock(seconds: float) -> str:
    """Write a duration for a person: `42 s`, `3 min 10 s`, `2 h 05 min`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02d} min"
