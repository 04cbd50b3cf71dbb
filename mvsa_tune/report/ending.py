"""What a sweep says in the terminal when it ends: the answer first, in at most 25 lines of at most 100 columns."""

import dataclasses
import math
import shlex
import textwrap
from collections.abc import Iterator, Sequence

import pandas as pd

from mvsa_tune.config import Config, flag
from mvsa_tune.formats import short
from mvsa_tune.protocols import PROTOCOLS
from mvsa_tune.report.leaderboard import confirmed_analysis
from mvsa_tune.results.schema import FAILED, FINISHED, RANKED_BY, STOPPED
from mvsa_tune.stats.analysis import Analysis, share_of_others

WIDTH, LINES = 100, 25


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


def flags_of(config: Config, others: Sequence[Config] = (), always: Sequence[str] = ()) -> str:
    """Return the flags that ask for a configuration, and for no other.

    With one modality a pair has to name an encoder of the other one all the same: one of the `others`, if possible.
    Fields that have their default are left out, but for those in `always`.
    """
    named = {"D", "lr", "batch_size", *always}
    image, text = (
        getattr(config, name) or next((v for other in others if (v := getattr(other, name))), None)
        for name in ("image_encoder", "text_encoder")
    )
    words = ["--pairs", shlex.quote(f"{image or text}+{text or image}")]
    for item in dataclasses.fields(config):
        value = getattr(config, item.name)
        if item.metadata and (item.name in named or value != item.default):
            exact = short(value) == str(value) or type(value)(short(value)) == value
            words += [flag(item.name), short(value) if exact else repr(value)]
    return " ".join(words)


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
    protocol = PROTOCOLS[analysis.store.manifest.protocol].fields
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
        f"  again: {flags_of(best.config, analysis.store.configs(), list(protocol))}",
    ]
    wrapped = (textwrap.wrap(line, WIDTH, subsequent_indent=" " * 9, break_on_hyphens=False) for line in lines)
    return [part for line in wrapped for part in line]


def _table(analysis: Analysis, search: Analysis | None, rows: int) -> list[str]:
    """Return a table of the best configurations; with what a search had found of them, if it is given."""
    best = analysis.ranked[:rows]
    if len(best) < 2:
        return []
    rivals, names = {scored.config.id for scored in analysis.may_be_best()}, _short_names([s.config for s in best])
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
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = ["  ".join(map(str.ljust, cells, widths)).rstrip() for cells in table]
    more = len(analysis.ranked) - len(best)
    return [_cut(line) for line in lines] + ([f"and {more} more in tables.md"] if more else [])


def _score(row: "pd.Series[float]", name: str) -> str:
    mean = float(row[f"{name}_mean"])
    return "–" if math.isnan(mean) else f"{mean:.3f}"


def _short_names(configs: Sequence[Config]) -> dict[str, str]:
    """Return the configurations' names by id, without the words that all of them share."""
    words = {config.id: config.name.split() for config in configs}
    shared = set.intersection(*map(set, words.values()))
    return {trial: " ".join(word for word in name if word not in shared) for trial, name in words.items()}


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
