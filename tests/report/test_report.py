import base64
import dataclasses
import hashlib
import io
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from conftest import ROOT, make_set
from mvsa_tune import cli
from mvsa_tune.config import Config
from mvsa_tune.data.dataset import Sample, read_dataset
from mvsa_tune.report.drawing import scale, wrapped
from mvsa_tune.report.leaderboard import dimensions, short_names, trials
from mvsa_tune.report.page import (
    COLOURS,
    SAME,
    SAME_ALONE,
    SAME_BUT_STOPS,
    drawings,
    inlined,
    shown_sample,
    write_report,
)
from mvsa_tune.report.page import page as page_of
from mvsa_tune.report.plots import budget, grids
from mvsa_tune.report.search_plots import slices
from mvsa_tune.results.store import Store
from mvsa_tune.stats.analysis import Analysis, analyse

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--enable-logging=stderr",
    "--allow-file-access-from-files",
)  # fmt: skip
HEADINGS = (
    "The answer", "Questions", "Tables", "Learning curves", "Accuracy by configuration", "D × lr",
    "Importance of each hyperparameter", "Expected accuracy of the best by budget", "Scores of the best by class",
    "Samples most often misclassified", "How to reproduce",
)  # fmt: skip
NEEDS_MORE = (
    "Questions", "D × lr", "Importance of each hyperparameter", "Expected accuracy of the best by budget",
)  # fmt: skip


@pytest.fixture(scope="module")
def copied(swept: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the small sweep, with its report."""
    folder = tmp_path_factory.mktemp("report") / "small"
    shutil.copytree(swept, folder)
    write_report(analyse(Store(folder)))
    return folder


@pytest.fixture(scope="module")
def page(copied: Path) -> str:
    return (copied / "report.html").read_text(encoding="utf-8")


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


def test_a_sweep_ends_with_its_report(swept: Path, page: str) -> None:
    assert (swept / "report.html").read_text(encoding="utf-8") == page


def test_the_page_needs_nothing_else(page: str) -> None:
    assert not list(leaving(page))
    assert not re.search(r"https?://|[\"'(]//|@import|url\((?!#)", page)
    assert "default-src 'none'" in page


def test_every_anchor_exists_and_every_id_is_unique(page: str) -> None:
    tags = Tags(page).tags
    names = [attributes["id"] for _, attributes in tags if "id" in attributes]
    assert len(names) == len(set(names))
    pointed = {value[1:] for _, attributes in tags if (value := attributes.get("href") or "").startswith("#")}
    assert pointed <= set(names)
    assert set(re.findall(r"url\(#([^)]+)\)", page)) <= set(names)


def test_the_answer_comes_first_and_nothing_is_missing(page: str, copied: Path) -> None:
    analysis, words = analyse(Store(copied)), Tags(page).words
    commands = Store(copied).rows()["command"]
    assert (SAME if commands.str.contains("--scheduler none").all() else SAME_BUT_STOPS) in words
    starts = [page.index(f'">{heading}</h2>') for heading in HEADINGS if heading != "D × lr"]  # there is one lr
    assert starts == sorted(starts)
    first = analysis.ranked[0]
    assert first.cross_fitted is not None and analysis.winner is not None
    answer = page[starts[0] : starts[1]]
    interval = first.cross_fitted
    for text in (first.config.name, *map("{:.3f}".format, (interval.mean, interval.low, interval.high))):
        assert text in answer
    assert f"{analysis.winner.corrected:.3f}" in answer
    assert f"{len(analysis.may_be_best())} of {len(analysis.ranked) - 1}" in answer
    for question in analysis.questions:
        assert question.answer in words
    store = analysis.store
    assert store.manifest.data_fingerprint[:12] in words and str(store.rows()["code"].iloc[0]) in words
    assert str(store.rows()["command"].iloc[0]) in words


def test_every_figure_has_a_description_with_numbers(page: str) -> None:
    drawings = [attributes for tag, attributes in Tags(page).tags if tag == "svg"]
    assert len(drawings) >= 5
    for drawing in drawings:
        assert drawing["role"] == "img" and re.search(r"\d", drawing["aria-label"] or "")
    assert [dict(attributes)["lang"] for tag, attributes in Tags(page).tags if tag == "html"] == ["en"]


def test_drawings_take_the_pages_colours(page: str, copied: Path) -> None:
    for drawing in re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL):
        assert not [colour for colour in COLOURS if re.search(rf"<[^>]*{colour}\b", drawing)]
        assert "<text" in drawing  # letters stay letters
    assert "#1b1d21" in (copied / "plots" / "curves.svg").read_text(encoding="utf-8")


def test_every_plot_is_a_file_of_each_kind_and_the_same_every_time(copied: Path) -> None:
    written = write_report(analyse(Store(copied)))
    before = {path: path.read_bytes() for path in written}
    assert {path.stem for path in written[1:]} >= {"accuracy", "curves", "loss", "importance", "budget", "confusion"}
    for path in written[1:]:
        if path.suffix == ".png":
            with Image.open(path) as picture:
                picture.verify()
        else:
            assert path.read_text(encoding="utf-8").rstrip().endswith("</svg>")
    stale = copied / "plots" / "heat-map-9.svg"
    stale.write_text("of another day", encoding="utf-8")
    assert {path: path.read_bytes() for path in write_report(analyse(Store(copied)))} == before
    assert not stale.exists()


def test_tweets_and_pictures_are_shown_only_on_request(copied: Path, page: str) -> None:
    dataset = read_dataset(Path(Store(copied).manifest.data))
    assert "<img" not in page and "data:image" not in page
    words = Tags(page).words
    assert not [sample.guid for sample in dataset.samples if sample.text in words]
    assert cli.main(["report", str(copied), "--samples"]) == 0
    shown = (copied / "report.html").read_text(encoding="utf-8")
    write_report(analyse(Store(copied)))
    pictures = [attributes for tag, attributes in Tags(shown).tags if tag == "img"]
    assert pictures and all(max(int(tag["width"] or 0), int(tag["height"] or 0)) <= 128 for tag in pictures)
    words = Tags(shown).words
    assert len({sample.guid for sample in dataset.samples if sample.text in words}) >= len(pictures)
    assert not list(leaving(shown))


def test_samples_of_another_set_are_refused(copied: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Guids may be the same, and texts and pictures others."""
    other = make_set(tmp_path / "other")
    for command in (["report", str(copied), "--samples"], ["errors", str(copied), "--texts"]):
        assert cli.main([*command, "--data", str(other)]) == 2
        assert "is not the data of" in capsys.readouterr().err


def test_hostile_texts_stay_texts(copied: Path) -> None:
    hostile = "</td><script>alert(1)</script><img src=x onerror=alert(2)> \" ' &"
    dataset = read_dataset(Path(Store(copied).manifest.data))
    samples = {s.guid: dataclasses.replace(s, text=hostile, picture=Path("/nowhere")) for s in dataset.samples}
    analysis = analyse(Store(copied))
    analysis.store.__dict__["manifest"] = dataclasses.replace(
        analysis.store.manifest, demo=True, data=hostile, classes=(hostile, "$x^2$", "<b>")
    )
    folder = copied.parent / "hostile"
    shutil.copytree(copied, folder, dirs_exist_ok=True)
    analysis.store.folder = folder
    write_report(analysis, samples=samples)
    shown = (folder / "report.html").read_text(encoding="utf-8")
    assert not list(leaving(shown))
    assert not [tag for tag, _ in Tags(shown).tags if tag in ("img", "b")]
    assert Tags(shown).words.count(hostile) > 1
    assert "demo set" in shown.split("</header>")[0]  # made-up data is called so before any number


def test_a_section_that_would_show_nothing_is_left_out_with_its_heading(copied: Path) -> None:
    whole = analyse(Store(copied))
    for analysis in (
        Analysis(whole.store, whole.summary, (), (), whole.rows),
        Analysis(whole.store, whole.summary, whole.ranked[:1], whole.ranked[1:], whole.rows),
    ):
        shown = re.findall(r"<section .*?</section>", page_of(analysis, drawings(analysis), None), flags=re.DOTALL)
        # a single configuration answers no question, and has no map, importance or budget
        headings = [re.search(r'-heading">(.*?)</h2>', section)[1] for section in shown]
        assert headings == [h for h in HEADINGS if h not in NEEDS_MORE] if analysis.ranked else len(headings) == 3
        nav = page_of(analysis, drawings(analysis), None).split("<nav")[1].split("</nav>")[0]
        assert re.findall(r"<a .*?>(.*?)</a>", nav) == headings
        assert all(re.search(r"<(p|dl|table)\b", section) for section in shown)
    alone = drawings(analysis)
    assert not alone["budget"] and not alone["grids"] and not alone["importance"]
    assert alone["curves"] and alone["classes"]


@pytest.fixture(scope="module")
def searched(swept: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small sweep as if a search had made it, one trial of it stopped, with its report; confirmed by itself."""
    folder = tmp_path_factory.mktemp("report") / "searched"
    shutil.copytree(swept, folder)
    shutil.copytree(swept, folder / "confirmed")
    manifest = json.loads((folder / "sweep.json").read_text())
    space = {"pair": "demo-pixels+demo-words", "D": "4..8", "ablation": "0 1 2"}
    (folder / "sweep.json").write_text(json.dumps({**manifest, "space": space, "configs": []}))
    rows = pd.read_csv(folder / "trials.csv", keep_default_na=False)
    rows.loc[rows["trial_id"] == rows["trial_id"][0], "status"] = "stopped"
    rows.to_csv(folder / "trials.csv", index=False)
    write_report(analyse(Store(folder)))
    return folder


def test_the_page_of_a_search_has_its_finalists_and_all_trials(searched: Path) -> None:
    shown = (searched / "report.html").read_text(encoding="utf-8")
    headings = re.findall(r'-heading">(.*?)</h2>', shown)
    assert headings[:6] == [
        "The answer", "Finalists, on fresh seeds", "Leaderboard", "Best so far", "Accuracy by each setting",
        "Parallel coordinates",
    ]  # fmt: skip
    assert "Table 1" not in shown and SAME_ALONE in Tags(shown).words and SAME not in shown
    assert not list(leaving(shown))
    confirmed, store = analyse(Store(searched / "confirmed")), Store(searched)
    answer = shown.split('id="answer"')[1].split("</section>")[0]
    assert confirmed.ranked[0].config.name in answer and f"{confirmed.ranked[0].values.mean():.3f}" in answer
    # All trials with what was searched, the best first; the one that was stopped is last and has no rank.
    board = shown.split('id="leaderboard"')[1].split("</tbody>")[0]
    cells = [re.findall(r"<td.*?>(.*?)(?: <span|</td>)", row) for row in board.split("<tr>")[2:]]
    summary = analyse(store).summary
    finished = summary[summary["status"] == "finished"].sort_values("val_acc_cross_mean", ascending=False)
    expected = [(f"{row['val_acc_cross_mean']:.3f}", str(row["D"])) for _, row in finished.iterrows()]
    assert [row[0] for row in cells] == [*map(str, range(1, len(finished) + 1)), "–"]
    assert [(row[1], row[3]) for row in cells[:-1]] == expected and cells[-1][-1].startswith("stopped at epoch")


def test_a_point_of_a_search_says_which_trial_it_is(searched: Path) -> None:
    ended = trials(analyse(Store(searched)))
    drawn = (searched / "plots" / "slice-D.svg").read_text(encoding="utf-8")
    points = re.findall(r'<use [^>]*y="([\d.]+)"[^>]*><title>trial (\d+), (.*?): ([\d.]+)', drawn)
    assert len(points) >= ended["finished"].sum() > 2
    for _, number, name, score in points:
        row = ended[ended["number"] == int(number)].iloc[0]
        assert score == f"{row['score']:.3f}" and f"D={row['D']}" in name
    heights = [float(score) for *_, score in sorted(points, key=lambda point: -float(point[0]))]
    assert heights == sorted(heights)


def test_hostile_names_of_trials_stay_texts(searched: Path) -> None:
    hostile = "</title><script>alert(1)</script>"
    ended = trials(analyse(Store(searched))).assign(title=hostile, pair=[hostile, *"abcde"])
    for plot in slices(ended, dimensions(ended), ()):
        shown = str(inlined(plot))
        assert not list(leaving(shown)) and Tags(shown).words.count(hostile) >= 5


def test_a_search_without_finished_trials_has_a_page(searched: Path) -> None:
    whole = analyse(Store(searched))
    nothing = Analysis(whole.store, whole.summary.assign(status="stopped at epoch 1"), (), (), whole.rows)
    assert 'id="leaderboard"' in page_of(nothing, drawings(nothing), None)


def test_names_leave_out_what_all_share() -> None:
    configs = [Config(D=D, epochs=20) for D in (8, 16)]
    assert list(short_names(configs).values()) == ["D=8", "D=16"]
    assert list(short_names(configs[:1]).values()) == [configs[0].name]


def test_axes_and_labels_are_written_as_numbers_and_names_are() -> None:
    texts = re.findall(r">([^<>]+)</text>", budget(np.linspace(0.5, 0.8, 200)).svg)
    assert {"1", "10", "100"} <= set(texts) and not [text for text in texts if "$" in text or "\\" in text]
    position, ticks, labels = scale(np.geomspace(1e-5, 1e-2, 13), log=True)
    assert np.allclose(position, np.linspace(0, 1, 13)) and np.allclose(ticks, [0, 1 / 3, 2 / 3, 1])
    assert labels == ["1e-5", "1e-4", "1e-3", "0.01"]
    position, ticks, labels = scale([512, 32, 32, 64], log=False)
    assert (list(position), ticks, labels) == ([1, 0, 0, 0.5], [0, 0.5, 1], ["32", "64", "512"])
    name = "some-long-encoder+another-one D=128 lr=1e-4 bs=32 head=linear dropout=0.136 weight_decay=3.42e-4 epochs=7"
    assert wrapped(name).replace("\n", " ") == name and max(map(len, wrapped(name).split("\n"))) <= 60


def test_a_grid_holds_the_means_of_its_configurations() -> None:
    class One:
        def __init__(self, config: Config, right: float) -> None:
            self.config, self.values = config, np.full((2, 5), right)

    crossed = [One(Config(D=D, lr=lr), D * lr) for D in (8, 16) for lr in (1e-3, 1e-2)]
    (grid,) = grids(crossed[:3]).values()  # type: ignore[arg-type]
    assert list(grid.index) == ["8", "16"] and list(grid.columns) == ["1e-3", "0.01"]
    assert np.allclose(grid, [[0.008, 0.08], [0.016, np.nan]], equal_nan=True)
    assert not grids(crossed[:2])  # type: ignore[arg-type]
    # Many values become ranges.
    rng = np.random.default_rng(0)
    sampled = [One(Config(D=D, lr=10 ** rng.uniform(-5, -2)), 0.5) for D in (8, 16) * 20]
    (in_ranges,) = grids(sampled).values()  # type: ignore[arg-type]
    assert in_ranges.shape == (2, 6) and np.nanmax(np.abs(in_ranges - 0.5)) < 1e-12


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_a_browser_reports_nothing_and_nothing_is_wider_than_its_window(copied: Path, tmp_path: Path) -> None:
    assert cli.main(["report", str(copied), "--samples"]) == 0
    page = tmp_path / "report.html"
    shutil.copy(copied / "report.html", page)
    write_report(analyse(Store(copied)))
    assert widths(page, tmp_path) == {"1280": [], "390": []}
    # The same measurement sees what is too wide, and what the console says.
    page.write_text(
        page.read_text(encoding="utf-8").replace("<main>", '<main><div style="width:2000px">x</div>'), encoding="utf-8"
    )
    assert all("DIV" in wide for wide in widths(page, tmp_path).values())
    page.write_text(page.read_text(encoding="utf-8").replace("<main>", "<main><script>1</script>"), encoding="utf-8")
    with pytest.raises(AssertionError, match="CONSOLE"):
        widths(page, tmp_path)


BEHAVIOUR = """
  const inside = document.querySelector('iframe').contentDocument, seen = [];
  const table = inside.querySelector('#leaderboard table'), rows = () => [...table.tBodies[0].rows];
  const column = [...table.tHead.rows[0].cells].findIndex(cell => cell.textContent === 'D');
  const sort = () => table.tHead.rows[0].cells[column].querySelector('button').click();
  const shown = () => rows().map(row => row.cells[column].textContent).join(' ');
  sort(); seen.push(shown());
  sort(); seen.push(shown());
  const point = inside.querySelector('#slices use[data-text]'), tip = inside.querySelector('.tip');
  seen.push(tip.hidden);
  point.dispatchEvent(new inside.defaultView.PointerEvent('pointerover', {bubbles: true, clientX: 9, clientY: 9}));
  seen.push(tip.hidden, tip.textContent === point.dataset.text, inside.querySelectorAll('#progress .same').length);
  const long = inside.querySelector('#misclassified'), input = long.querySelector('input');
  input.value = 'Positive 3'; input.dispatchEvent(new Event('input'));
  const left = [...long.querySelectorAll('tbody tr')].filter(row => !row.hidden);
  seen.push(left.length, left.every(row => /positive/.test(row.textContent)), long.querySelector('output').textContent);
  return seen.join(';');
"""


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_tables_are_sorted_and_filtered_and_points_say_what_they_are(searched: Path, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    shutil.copy(searched / "report.html", page)
    assert widths(page, tmp_path) == {"1280": [], "390": []}
    rising, falling, hidden, still, same, marked, left, match, count = in_browser(page, tmp_path, BEHAVIOUR).split(";")
    assert rising == "4 4 4 8 8 8" and falling == "8 8 8 4 4 4"
    assert (hidden, still, same) == ("true", "false", "true") and int(marked) == 2  # by trial, and by time
    assert match == "true" and re.fullmatch(rf" {left} of \d+", count)


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


def test_a_large_picture_is_shown_small(tmp_path: Path) -> None:
    Image.new("RGB", (600, 300), "teal").save(tmp_path / "large.jpg")
    sample = Sample("7", 0, tmp_path / "large.jpg", "a text", "utf-8")
    picture, text = shown_sample("7", {"7": sample})
    (tag,) = (attributes for tag, attributes in Tags(picture).tags if tag == "img")
    assert (tag["width"], tag["height"], text) == ("128", "64", "a text")
    with Image.open(io.BytesIO(base64.b64decode((tag["src"] or "").split(",")[1]))) as drawn:
        assert drawn.size == (128, 64)
