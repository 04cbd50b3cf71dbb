"""What a sweep says in the terminal when it ends: the answer first, in at most 25 lines of at most 100 columns."""

import dataclasses
import math
import shlex
import textwrap
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

import pandas as pd

from mvsa_tune.config import Config, flag
from mvsa_tune.data.dataset import DEFAULT_DATA
from mvsa_tune.formats import short
from mvsa_tune.protocols import PROTOCOLS
from mvsa_tune.report.leaderboard import confirmed_analysis, short_names
from mvsa_tune.results.schema import FAILED, FINISHED, RANKED_BY, STOPPED
from mvsa_tune.results.store import Store
from mvsa_tune.stats.analysis import Analysis, share_of_others

WIDTH, LINES = 100, 25
# The flags that say how data and encoders are read, with their defaults.
READ: dict[str, str | None] = dict.fromkeys(
    ("layout", "labels", "merge", "encoding", "cache", "plugin", "weights", "skip_bad")
)
READ["text"] = "reference"


def ending(analysis: Analysis) -> str:
    """Return the end of a sweep as text; a search's answer is that of its finalists, once they were trained again."""
    folder, confirmed = analysis.store.folder, confirmed_analysis(analysis.store)
    page = folder / "report.html"
    files = [f"Report   {page}"] if page.exists() else []
    files += [f"Tables   {folder / 'tables.md'}, rows in trials.csv"]
    files += [f"Curves   tensorboard --logdir {shlex.quote(str(folder / 'tensorboard'))}"]
    answer, unfinished = _answer(analysis, confirmed), _unfinished(analysis)
    rows = LINES - len([*answer, *unfinished, *files]) - 5  # 3 empty lines, the header, and how many more there are
    parts = answer, _table(confirmed or analysis, confirmed and analysis, rows), unfinished, files
    return "\n\n".join("\n".join(part) for part in parts if part)


def command_for(config: Config, store: Store) -> list[str]:
    """Return the command that trains one configuration of a sweep alone, in lines that a shell takes."""
    manifest, asked = store.manifest, store.settings()
    groups = [["--demo"]] if asked.get("demo") else []
    if not groups and Path(manifest.data) != DEFAULT_DATA:
        groups += [["--data", manifest.data]]
    for name, default in READ.items():
        if (value := asked.get(name, default)) != default:
            values = value if isinstance(value, list) else [] if value is True else [value]
            groups.append([flag(name), *map(str, values)])
    default_split = PROTOCOLS["reference"].split_for(
        Path(manifest.data), manifest.label_counts, finetuned=config.finetuned
    )
    if manifest.split != default_split:
        groups.append(["--split", asked.get("split") or manifest.split.replace("files:", f"files:{manifest.data}/")])
    seeds = list(dict.fromkeys(replicate.seed for replicate in store.replicates(config.id)))
    counted = seeds == list(range(42, 42 + len(seeds)))  # as `--seeds` counts them
    groups.append(["--seeds", str(len(seeds))] if counted else ["--seed-list", *map(str, seeds)])
    lines = [f"mvsa-tune {'finetune' if config.finetuned else 'grid'}"]
    for group in map(shlex.join, [*groups, *flags_of(config, store.configs())]):
        if len(lines[-1]) + len(group) > WIDTH - 12:  # beside the indentation and a backslash
            lines[-1] += " \\"
            lines.append(group)
        else:
            lines[-1] += f" {group}"
    return lines


def flags_of(config: Config, others: Sequence[Config] = ()) -> list[list[str]]:
    """Return the flags that ask for a configuration, and for no other, each with its value.

    With one modality a pair has to name an encoder of the other one all the same: one of the `others`, if possible.
    Fields that have their default are left out.
    """
    image, text = (
        getattr(config, name) or next((v for other in others if (v := getattr(other, name))), None)
        for name in ("image_encoder", "text_encoder")
    )
    groups = [["--pairs", f"{image or text}+{text or image}"]]
    for item in dataclasses.fields(config):
        value = getattr(config, item.name)
        if item.metadata and (item.name in ("D", "lr", "batch_size") or value != item.default):
            exact = short(value) == str(value) or type(value)(short(value)) == value
            groups.append([flag(item.name), short(value) if exact else repr(value)])
    return groups


def _answer(analysis: Analysis, confirmed: Analysis | None) -> list[str]:
    """Return the best configuration, its interval, what may be the best as well, and the flags to repeat it."""
    headline = confirmed or analysis
    if not headline.ranked:
        return ["No configuration was trained to its end."]
    best, others = headline.ranked[0], len(headline.ranked) - 1
    of = f"of the {others + 1} finalists, on fresh seeds" if confirmed else f"of {others + 1} trained to the end"
    accuracy = f"cross-fitted accuracy {best.values.mean():.3f}"
    if interval := best.cross_fitted:
        accuracy += (
            f", 95 % {interval.low:.3f} to {interval.high:.3f} for {interval.holds_for} ({headline.seeds_of(best)})"
        )
    compared, rivals = len(headline.against_best), len(headline.may_be_best())
    verdict = f"{share_of_others(rivals, compared)} may be the best as well"
    if not rivals:
        verdict = f"better than {'the other one' if compared == 1 else f'each of the other {compared}'}"
    lines = [
        f"Best {of}: {best.config.name}" if others else f"The only one trained to its end: {best.config.name}",
        f"  {accuracy}",
        *(
            [f"  {verdict} (95 %){': marked =' * (rivals > 0)}"]
            if compared
            else ["  not compared: that takes two seeds or more"]
            if others
            else []
        ),
    ]
    wrapped = (textwrap.wrap(line, WIDTH, subsequent_indent=" " * 9, break_on_hyphens=False) for line in lines)
    first, *more = command_for(best.config, headline.store)
    return [*chain.from_iterable(wrapped), f"  again: {first}", *(f"{' ' * 9}{line}" for line in more)]


def _table(analysis: Analysis, search: Analysis | None, rows: int) -> list[str]:
    """Return a table of the best configurations; with what a search had found of them, if it is given."""
    best = analysis.ranked[:rows]
    if len(best) < 2:
        return []
    rivals, names = {scored.config.id for scored in analysis.may_be_best()}, short_names([s.config for s in best])
    summary, searched = (
        a.summary.set_index("trial_id") if a else pd.DataFrame(columns=[f"{RANKED_BY}_mean"])
        for a in (analysis, search)
    )
    table = [["", "", "cross-fitted", "best epoch", "last epoch", *(["in the search"] if search else []), "n", ""]]
    for rank, scored in enumerate(best, start=1):
        trial, interval = scored.config.id, scored.cross_fitted
        row = summary.loc[trial]
        ends = f" [{interval.low:.3f}, {interval.high:.3f}]" if interval else ""
        scores = [
            f"{scored.values.mean():.3f}{ends}",
            *(_score(row, name) for name in ("val_acc_best", "val_acc_last")),
        ]
        if search:
            scores.append(_score(searched.loc[trial], RANKED_BY))
        table.append([str(rank), "=" * (trial in rivals), *scores, str(row["n"]), names[trial]])
    headed = _aligned([[table[0][0], "may be best" * bool(rivals), *table[0][2:]], *table[1:]])
    lines = headed if max(map(len, headed)) <= WIDTH else _aligned(table)
    more = len(analysis.ranked) - len(best)
    return [_cut(line) for line in lines] + ([f"and {more} more in tables.md"] if more else [])


def _aligned(table: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return ["  ".join(map(str.ljust, cells, widths)).rstrip() for cells in table]


def _score(row: "pd.Series[float]", name: str) -> str:
    mean = float(row[f"{name}_mean"])
    return "–" if math.isnan(mean) else f"{mean:.3f}"


def _unfinished(analysis: Analysis) -> list[str]:
    """Return how many configurations were stopped, failed or have not run, and what to do about it."""
    statuses = analysis.summary["status"]
    stopped, failed = (int(statuses.str.startswith(status).sum()) for status in (STOPPED, FAILED))
    rest = len(statuses) - stopped - failed - int((statuses == FINISHED).sum())
    # A search that goes on leaves its trials as they are.
    hint = (
        ""
        if analysis.store.manifest.space
        else f"; --scheduler none trains {'it' if stopped == 1 else 'them'} to the end"
    )

    def lines() -> Iterator[str]:
        of = f"of {len(statuses)} configurations"
        if stopped:
            yield f"{stopped} {of} {'was' if stopped == 1 else 'were'} stopped early by ASHA{hint}"
        if failed:
            yield f"{failed} {of} failed; {analysis.store.trials_path} says why"
        if rest:
            yield f"{rest} {of} did not run; {analysis.store.folder / 'tables.md'} says why"

    return [_cut(line) for line in lines()]


def _cut(line: str) -> str:
    return line if len(line) <= WIDTH else f"{line[: WIDTH - 1]}…"
