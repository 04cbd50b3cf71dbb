"""What tests see in a page: its tags, what leaves it, and what a browser makes of it."""

import base64
import hashlib
import re
import shutil
import subprocess
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

from conftest import ROOT

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--enable-logging=stderr",
    "--allow-file-access-from-files",
)  # fmt: skip


class Tags(HTMLParser):
    """Every tag of a page with its attributes, and its words."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words += data


def leaving(page: str) -> Iterator[str]:
    """What in a page points out of it, or would run in it besides the one script that its policy allows."""
    script = (ROOT / "mvsa_tune" / "report" / "report.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    if f"script-src 'sha256-{digest}'" in page:
        page = page.replace(f"<script>{script}</script>", "", 1)
    for tag, attributes in Tags(page).tags:
        if tag in ("script", "link", "iframe", "object", "embed", "base", "form"):
            yield tag
        for name, value in attributes.items():
            if name.startswith("on"):
                yield name
            inside = (value or "").startswith(("#", "data:image/jpeg;base64,"))
            if name in ("src", "href", "xlink:href", "action", "srcset", "data", "poster") and not inside:
                yield f"{name}={value}"


def in_browser(page: Path, folder: Path, script: str) -> str:
    """Return what a script returns in a document with the page in two frames; fail on any message of the console."""
    frames = "".join(
        f'<iframe src="{page.name}" style="border:0;width:{width}px;height:900px"></iframe>' for width in (1280, 390)
    )
    wrapper = folder / "wrapper.html"
    whole = (
        f"<!doctype html><title></title>{frames}<script>onload = () => document.title = (() => {{{script}}})()</script>"
    )
    wrapper.write_text(whole, encoding="utf-8")
    command = [CHROMIUM, *FLAGS, f"--user-data-dir={folder / 'profile'}", "--dump-dom", wrapper.as_uri()]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)  # type: ignore[arg-type]
    messages = [line for line in ended.stderr.splitlines() if "CONSOLE" in line]
    assert not messages, messages
    title = re.search(r"<title>(.*?)</title>", ended.stdout)
    assert title and title.group(1), ended.stdout[:500]
    return title.group(1)


def widths(page: Path, folder: Path) -> dict[str, list[str]]:
    """Return by width of the window the elements that end beyond it, those in a box that scrolls aside."""
    script = """
      return [...document.querySelectorAll('iframe')].map(frame => {
        const inside = frame.contentDocument, room = frame.clientWidth;
        const wide = [...inside.body.querySelectorAll('*')].filter(tag => tag.getBoundingClientRect().right > room + 0.5
          && (!tag.closest('.scroll') || tag.matches('.scroll')));
        if (inside.documentElement.scrollWidth > room) wide.push(inside.documentElement);
        return room + ':' + [...new Set(wide.map(tag => tag.tagName))].join(',');
      }).join(';')
    """
    parts = dict(part.split(":") for part in in_browser(page, folder, script).split(";"))
    return {width: [tag for tag in tags.split(",") if tag] for width, tags in parts.items()}
