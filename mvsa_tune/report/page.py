"""The report of a sweep: one page that needs nothing else, and its plots as files. Reads the store alone and trains nothing."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from mvsa_tune.data.dataset import Sample
from mvsa_tune.files import write_text_whole, write_whole
from mvsa_tune.report.inline import inlined
from mvsa_tune.report.sections import Section, sections
from mvsa_tune.stats.analysis import Analysis


def write_report(analysis: Analysis, *, samples: Mapping[str, Sample] | None = None) -> list[Path]:
    """Write `report.html` and `plots/`; return what was written.

    Args:
        analysis: of the sweep.
        samples: the data's samples by guid, to show texts and pictures of those most often wrong; None shows neither.
    """
    folder = analysis.store.folder
    made = sections(analysis, samples)
    drawn = [plot for section in made for plot in section.plots]
    written = [folder / "report.html"]
    for plot in drawn:
        svg, png = (folder / "plots" / f"{plot.name}.{kind}" for kind in ("svg", "png"))
        write_text_whole(svg, plot.svg)
        write_whole(png, lambda file, plot=plot: file.write(plot.png))  # type: ignore[misc]
        written += [svg, png]
    write_text_whole(written[0], page(analysis, made))
    for stale in set((folder / "plots").glob("heat-map-*")) - set(written):
        stale.unlink()
    return written


def page(analysis: Analysis, made: Sequence[Section]) -> str:
    """The page of these sections."""
    environment = Environment(
        loader=PackageLoader("mvsa_tune.report", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )  # fmt: skip
    environment.filters["inlined"] = lambda plot: Markup(inlined(plot))
    sweep = analysis.store.manifest
    first = analysis.ranked[0] if analysis.ranked else None
    return environment.get_template("report.html.j2").render(
        name=analysis.store.folder.name, sections=made, demo=sweep.demo, first=first
    )  # fmt: skip
