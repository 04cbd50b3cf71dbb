"""A plot's SVG → a piece of a page: no address in it, the page's colours, names that no other plot has."""

import html
import re

from mvsa_tune.report.plots import FAINT, INK, PAPER, SERIES, Plot

# What the page's style sheet sets, for light and dark.
COLOURS = {INK: "currentColor", FAINT: "var(--line)", PAPER: "var(--paper)"} | {
    colour: f"var(--series-{place})" for place, colour in enumerate(SERIES, start=1)
}


def inlined(plot: Plot) -> str:
    """The `<svg>` element alone. What stands in it of the data was escaped by matplotlib, and is not touched here."""
    drawing = plot.svg[plot.svg.index("<svg") :]
    drawing = re.sub(r"<metadata>.*?</metadata>", "", drawing, flags=re.DOTALL)
    opening, rest = drawing.split(">", 1)
    viewbox = re.search(r'viewBox="[\d. ]+"', opening)
    label = html.escape(plot.description, quote=True)
    rest = re.sub(r"<[^>]*>", lambda tag: _tag(tag.group(), plot.name), rest)
    return f'<svg {viewbox.group() if viewbox else ""} role="img" aria-label="{label}">{rest.strip()}'


def _tag(tag: str, name: str) -> str:
    """A tag with ids of its own, the page's colours and its fonts."""
    tag = tag.replace("xlink:href", "href").replace('href="#', f'href="#{name}-').replace("url(#", f"url(#{name}-")
    tag = re.sub(r'(?<= )id="', f'id="{name}-', tag)
    tag = tag.replace("'DejaVu Sans'", "system-ui, sans-serif")
    return re.sub(r"#[0-9a-f]{6}\b", lambda found: COLOURS.get(found.group(), found.group()), tag)
