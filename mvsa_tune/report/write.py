"""What a sweep's folder gets once trials are recorded: summary, tables, report. Reads the store alone, so that it can be done again at any time."""

from pathlib import Path

from mvsa_tune.files import write_text_whole, write_whole
from mvsa_tune.formats import latex
from mvsa_tune.report.leaderboard import leaderboard
from mvsa_tune.report.tables import tables, tables_csv, tables_markdown
from mvsa_tune.results.store import Store
from mvsa_tune.stats.analysis import Analysis, analyse


def write_results(store: Store) -> tuple[Analysis, str]:
    """Write `summary.csv`, `tables.md`, `tables.csv` and `tables.tex`; return what they say, and the page."""
    analysis = analyse(store)
    searched = bool(store.manifest.space)
    page = leaderboard(analysis) if searched else tables_markdown(analysis)
    write_text_whole(store.folder / "tables.md", page)
    numbers = tables_csv(analysis)
    write_whole(store.folder / "tables.csv", lambda file: numbers.to_csv(file, index=False, lineterminator="\n"))
    write_text_whole(store.folder / "tables.tex", latex(tables(analysis)))
    summary = analysis.with_intervals()
    write_whole(store.folder / "summary.csv", lambda file: summary.to_csv(file, index=False, lineterminator="\n"))
    return analysis, page


def report(folder: Path, *, quiet: bool) -> None:
    """Write the report of the sweep in a folder, and say where it is."""
    from mvsa_tune.report.page import write_report  # matplotlib takes a while to import

    page, *_ = write_report(analyse(Store(folder)))
    if not quiet:
        print(f"Report: {page}")
