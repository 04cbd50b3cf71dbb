"""What a results folder gets once trials are recorded: summary, tables, report; all can be written again any time."""

from pathlib import Path

import pandas as pd

from mvsa_tune.files import write_text_whole, write_whole
from mvsa_tune.formats import latex
from mvsa_tune.report.leaderboard import leaderboard, sweep_tables
from mvsa_tune.report.tables import table_rows, tables_markdown
from mvsa_tune.results.store import Store
from mvsa_tune.stats.analysis import Analysis, analyse


def write_results(store: Store) -> tuple[Analysis, str]:
    """Write `summary.csv` and `tables.md`, `.csv` and `.tex`; return the analysis and the page of `tables.md`."""
    analysis = analyse(store)
    page = leaderboard(analysis) if store.manifest.space else tables_markdown(analysis)
    write_text_whole(store.folder / "tables.md", page)
    write_text_whole(store.folder / "tables.tex", latex(sweep_tables(analysis)))
    _write_csv(store.folder / "tables.csv", table_rows(analysis))
    _write_csv(store.folder / "summary.csv", analysis.with_intervals())
    return analysis, page


def _write_csv(path: Path, frame: pd.DataFrame) -> None:
    write_whole(path, lambda file: frame.to_csv(file, index=False, lineterminator="\n"))


def report(folder: Path, *, quiet: bool) -> None:
    """Write the report of the sweep in a folder, and print where it is."""
    from mvsa_tune.report.page import write_report  # matplotlib takes a second to import

    page, *_ = write_report(analyse(Store(folder)))
    if not quiet:
        print(f"Report: {page}")
