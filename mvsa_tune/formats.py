"""Tables and numbers as text: Markdown for people, LaTeX (booktabs; TeX Live 2020 or later) for papers."""

from collections.abc import Sequence
from dataclasses import dataclass

PREAMBLE = r"""\documentclass{article}
\usepackage[T1]{fontenc}
\usepackage{booktabs,graphicx}
\usepackage[a4paper,landscape,margin=1.5cm]{geometry}
\DeclareUnicodeCharacter{2212}{\ensuremath{-}}
\begin{document}"""
TABLE, TABLE_END = r"\begin{table}[htbp]\centering", r"\end{table}"
FITTED = r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%"


@dataclass(frozen=True)
class Table:
    """A table of texts: title, column headings and rows. The note stands below the rows, or in their place."""

    title: str
    header: Sequence[str]
    body: Sequence[Sequence[str]]
    note: str = ""


def markdown(header: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """Format a Markdown table whose columns line up as text too."""
    rows = [[cell.replace("|", "\\|") for cell in row] for row in (header, *body)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rows.insert(1, ["-" * width for width in widths])
    return "".join(f"| {' | '.join(map(str.ljust, row, widths))} |\n" for row in rows)


def markdown_section(table: Table) -> str:
    """Format a table with its title and note."""
    rows = markdown(table.header, table.body) if table.body else ""
    return "\n".join(filter(None, [f"## {table.title}\n", rows, table.note and f"{table.note}\n"]))


def latex(tables: Sequence[Table]) -> str:
    """Format a document of tables that compiles by itself; each `table` environment can be taken out of it."""
    parts = [PREAMBLE]
    for table in tables:
        title, note = (_tabular([text], ()).splitlines()[2].removesuffix(r" \\") for text in (table.title, table.note))
        rows = [TABLE, rf"\caption{{{title}}}", FITTED, _tabular(table.header, table.body) + "}", "", note, TABLE_END]
        parts += rows if table.body else [rf"\section*{{{title}}}", note]
    return "\n".join([*parts, r"\end{document}", ""])


def _tabular(header: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    import pandas as pd  # half a second, which `--help` need not wait for

    style = pd.DataFrame(list(body), columns=list(header)).style.format(escape="latex").hide(axis="index")
    return style.format_index(escape="latex", axis="columns").to_latex(hrules=True)


def minus(text: str) -> str:
    """Return the text of a number with a minus sign in place of the hyphen."""
    return text.replace("-", "−")


def short(value: object) -> str:
    """Write a value as a person would: 1e-3 for 0.001, 0.01 as it is."""
    if not isinstance(value, float):
        return str(value)
    text = f"{value:.12g}"
    mantissa, _, exponent = f"{value:.11e}".partition("e")
    scientific = f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"
    return scientific if abs(value) < 0.01 and value else text


def clock(seconds: float) -> str:
    """Return a duration as text: `42 s`, `3 min 10 s`, `2 h 05 min`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02d} min"
