"""A sweep as a notebook shows it: the answer, then a table of its configurations; HTML without scripts."""

import html
import re

import pandas as pd

from mvsa_tune.report.leaderboard import confirmed_analysis
from mvsa_tune.report.tables import score_cell, shown_scores
from mvsa_tune.results.schema import FINISHED
from mvsa_tune.stats.analysis import Analysis, verdict
from mvsa_tune.stats.differences import ALPHA

SHOWN = 20  # configurations


def answer(analysis: Analysis) -> list[str]:
    """Return the answer in words, paragraphs of Markdown; that of a search is of its finalists, on fresh seeds."""
    confirmed = confirmed_analysis(analysis.store)
    told = verdict(confirmed, of="the finalists, on fresh seeds") if confirmed else verdict(analysis)
    return told or ["No configuration was trained to its end."]


def as_html(analysis: Analysis) -> str:
    """Return the answer, the table of the best `SHOWN` configurations, and what the numbers are worth, folded up."""
    lines = [re.sub(r"\*\*(.*?)\*\*|`(.*?)`", r"<b>\1\2</b>", html.escape(line)) for line in answer(analysis)]
    paragraphs = [f"<p>{line.replace(chr(10), '<br>')}</p>" for line in lines]
    rows = ranking(analysis)
    table = rows.head(SHOWN).to_html(index=False, border=0, justify="left")
    table = re.sub(r"(<tr>\s*)<td>", r'\1<td style="text-align: left; min-width: 18em">', table)  # a name may be long
    table = table.replace("<td>", '<td style="text-align: left; white-space: nowrap">')
    more = f"<p>{len(rows) - SHOWN:,} more in <code>summary</code></p>" if len(rows) > SHOWN else ""
    rest = f"<details><summary>More on these numbers</summary>{''.join(paragraphs[2:])}</details>"
    return "".join([*paragraphs[:2], table, more, rest if paragraphs[2:] else ""])


def ranking(analysis: Analysis) -> pd.DataFrame:
    """Return a row for each configuration, the best first; the cells are texts."""
    names = {config.id: config.name for config in analysis.store.configs()}
    ranks = {scored.config.id: rank for rank, scored in enumerate(analysis.ranked)}
    rows = analysis.with_intervals()
    rows = rows.assign(rank=rows["trial_id"].map(ranks)).sort_values("rank", kind="stable")
    may_be_best = (rows["rank"] == 0) | (rows["p_best"] >= ALPHA)
    return pd.DataFrame(
        {
            "configuration": rows["trial_id"].map(names),
            **{column.header: [score_cell(column, row) for _, row in rows.iterrows()] for column in shown_scores(rows)},
            "n": rows["n"],
            "may be the best": may_be_best.map({True: "yes", False: ""}),
            "note": rows["status"].where(rows["status"] != FINISHED, ""),
        }
    )
