"""Tables as text: Markdown for people, LaTeX (booktabs) for papers."""

from collections.abc import Sequence
from dataclasses import dataclass

# What LaTeX takes for its own, and the signs that its fonts lack.
LATEX = str.maketrans(
    {
        "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
        "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "–": "--", "−": "$-$", "×": r"$\times$",
        "≥": r"$\geq$", "↓": r"$\downarrow$", "→": r"$\rightarrow$", "<": r"\textless{}", ">": r"\textgreater{}",
    }
)  # fmt: skip


@dataclass(frozen=True)
class Table:
    """A table of texts.

    Attributes:
        title: its heading.
        header: a heading a column.
        body: a text a column, line by line.
        note: what is said in its place, or below it.
    """

    title: str
    header: Sequence[str]
    body: Sequence[Sequence[str]]
    note: str = ""


def markdown(header: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """Format a Markdown table whose columns line up as text too."""
    widths = [max(len(row[column]) for row in [header, *body]) for column in range(len(header))]
    rows = [header, ["-" * width for width in widths], *body]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    return "\n".join(lines) + "\n"


def markdown_section(table: Table) -> str:
    """A table with its heading and note."""
    parts = [
        f"## {table.title}\n",
        markdown(table.header, table.body) if table.body else "",
        f"{table.note}\n" if table.note else "",
    ]
    return "\n".join(part for part in parts if part)


def latex(tables: Sequence[Table]) -> str:
    """A document of tables that compiles by itself; each `table` environment can be taken out of it."""
    parts = [
        r"\documentclass[10pt]{article}",
        r"\usepackage[T1]{fontenc}",
        r"\usepackage[utf8]{inputenc}",
        r"\usepackage{booktabs,graphicx}",
        r"\usepackage[a4paper,landscape,margin=1.5cm]{geometry}",
        r"\begin{document}",
        *(_tabular(table) for table in tables),
        r"\end{document}",
    ]
    return "\n".join(filter(None, parts)) + "\n"


def _tabular(table: Table) -> str:
    title, note = table.title.translate(LATEX), table.note.translate(LATEX)
    if not table.body:
        return f"\\section*{{{title}}}\n{note}\n"
    lines = [" & ".join(cell.translate(LATEX) for cell in row) + r" \\" for row in (table.header, *table.body)]
    return "\n".join(
        [
            r"\begin{table}[htbp]",
            r"\centering",
            f"\\caption{{{title}}}",
            r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
            f"\\begin{{tabular}}{{{'l' * len(table.header)}}}",
            r"\toprule",
            lines[0],
            r"\midrule",
            *lines[1:],
            r"\bottomrule",
            r"\end{tabular}}",
            f"\\par\\smallskip {note}" if note else "",
            r"\end{table}",
        ]
    )


def short(value: object) -> str:
    """Write a value as a person would: 1e-4 for 0.0001."""
    if not isinstance(value, float):
        return str(value)
    text = f"{value:.12g}"
    mantissa, _, exponent = f"{value:.11e}".partition("e")
    scientific = f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"
    return scientific if abs(value) < 1e-3 and value else text
