import dataclasses
import re
import shutil
from pathlib import Path

import pytest
from PIL import Image

from conftest import make_set
from mvsa_tune import cli
from mvsa_tune.data.dataset import read_dataset
from mvsa_tune.report.page import (
    COLOURS,
    SAME,
    SAME_BUT_STOPS,
    drawings,
    write_report,
)
from mvsa_tune.report.page import page as page_of
from mvsa_tune.results.store import Store
from mvsa_tune.stats.analysis import Analysis, analyse
from pages import CHROMIUM, Tags, leaving, widths

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
