"""Tables as text; LaTeX that a real pdflatex takes, where there is one."""

import shutil
import subprocess
from pathlib import Path

import pytest

from mvsa_tune.formats import Table, latex, markdown, markdown_section

HOSTILE = r"50% of $x_1$ & {a}~b^c #1 \input{x} < > ± – − × … `"
TABLES = [
    Table(
        HOSTILE,
        ["one", "two"],
        [[HOSTILE, "1"], ["0.7 ± 0.1 [0.6, 0.8]", "2"]],
        "a note: 5 % =",
    ),
    Table("none", (), (), "nothing"),
]


def test_columns_line_up() -> None:
    assert markdown(["a", "long"], [["xyz", "1"]]) == "| a   | long |\n| --- | ---- |\n| xyz | 1    |\n"


def test_a_bar_in_a_cell_ends_no_column() -> None:
    assert markdown(["a"], [["x|y"]]) == "| a    |\n| ---- |\n| x\\|y |\n"


def test_a_table_without_rows_is_its_note() -> None:
    assert markdown_section(TABLES[1]) == "## none\n\nnothing\n"


def test_latex_is_booktabs_and_takes_no_orders_from_the_data() -> None:
    text = latex(TABLES)
    assert text.count(r"\toprule") == text.count(r"\midrule") == text.count(r"\bottomrule") == 1
    assert r"\input{x}" not in text and text.count(r"\textbackslash input\{x\}") == 2


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex here")
def test_latex_compiles(tmp_path: Path) -> None:
    (tmp_path / "tables.tex").write_text(latex(TABLES), encoding="utf-8")
    made = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "tables.tex"], cwd=tmp_path, capture_output=True, timeout=60, check=False
    )  # fmt: skip
    assert made.returncode == 0, made.stdout[-1500:]
    assert (tmp_path / "tables.pdf").read_bytes().startswith(b"%PDF")
