"""The report of a search."""

import json
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest

from mvsa_tune.report.leaderboard import dimensions, trials
from mvsa_tune.report.page import (
    SAME,
    SAME_ALONE,
    drawings,
    inlined,
    write_report,
)
from mvsa_tune.report.page import page as page_of
from mvsa_tune.report.search_plots import slices
from mvsa_tune.results.store import Store
from mvsa_tune.stats.analysis import Analysis, analyse
from pages import CHROMIUM, Tags, in_browser, leaving, widths


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
