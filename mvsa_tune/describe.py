"""A plan for a person: what `--dry-run` prints."""

from collections.abc import Mapping, Sequence

from mvsa_tune.config import Config
from mvsa_tune.errors import some
from mvsa_tune.plan import Plan

# Seconds from starting Ray to the first trained step, measured on 2 cores.
START_SECONDS = 6.0


def describe(plan: Plan) -> str:
    """Write what a plan will do and cost, a configuration a line; of a search, the corners of its space."""
    sized = plan.sized
    estimates = plan.seconds(sized)
    unsized = len(plan.configs) - len(sized)
    without = f"; not counting {unsized} configurations: an encoder's width shows once it is loaded" if unsized else ""
    place, count = plan.placement, len(plan.replicates)
    train, validation = len(plan.split.train[0]), len(plan.split.validation[0])
    samples = plan.dataset
    lines = [
        *(f"{'data':<10}{line}" for line in samples.told()),
        f"split     {train:,} to train on, {validation:,} to validate ({plan.split.name} split); "
        f"{len(samples.not_utf8):,} texts decoded as GB18030"
        + (f"; {len(plan.skipped):,} samples left out, unreadable: {some(list(plan.skipped))}" if plan.skipped else ""),
        *_what(plan),
        f"stopping  {_stopping(plan)}",
        f"machine   {place.concurrent} at once on {place.device}, {place.cpus} CPU thread{'s' * (place.cpus > 1)} each"
        + (f", {place.gpus:g} GPU each" if place.gpus else ""),
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
        lines.append(f"{config.name:<{width}}  {weights:>9} parameters × {count}  {state}")
    return "\n".join(lines)


def _what(plan: Plan) -> list[str]:
    seeds = f"each with {len(plan.replicates)} replicates (seeds {', '.join(str(one.seed) for one in plan.replicates)})"
    if plan.search is None:
        return [f"trials    {len(plan.runnable)} of {len(plan.configs)} configurations, {seeds}"]
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
