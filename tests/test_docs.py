"""The READMEs and the manual: commands parse and run, flags and links exist, the site loads nothing from outside."""

import io
import re
import shlex
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout, suppress
from functools import cache
from pathlib import Path

import pandas as pd
import pytest

from conftest import ROOT, grid
from mvsa_tune import cli
from mvsa_tune.commands import COMMANDS
from mvsa_tune.data.dataset import Dataset
from mvsa_tune.errors import InputError

READMES = ("README.md", "README.zh.md")
PAGES = [*(ROOT / name for name in READMES), *sorted((ROOT / "docs").glob("*.md"))]
SHORT = [ROOT / "data" / "README.md", ROOT / "results" / "README.md"]
PROGRAMS = ("mvsa-tune", "python", "make", "pip", "tensorboard", "git", "sbatch")
ALL_COMMANDS = ("grid", "search", "finetune", *COMMANDS)
FOREIGN_FLAGS = {
    "--head", "--node-ip-address", "--user", "--object-store-memory", "--temp-dir", "--signal", "--no-deps", "--logdir",
}  # fmt: skip


def blocks(text: str, language: str = r"\w*") -> list[str]:
    """Return the fenced code blocks of a page."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def commands(text: str, *programs: str) -> list[str]:
    """Return every command of the code blocks, continued lines joined, comments and alignment left out."""
    lines = "".join(blocks(text)).replace("\\\n", " ").splitlines()
    return [" ".join(re.sub(r"\s#\s.*", "", line).split()) for line in lines if line.split(" ")[0] in programs]


def ours(path: Path) -> list[list[str]]:
    """Return the arguments of every command of this project on a page, in prose too: `[["grid", "--demo"], …]`."""
    text = re.sub(r"\bpython sweeps/(\w+)\.py|\bpython -m mvsa_tune", r"mvsa-tune \1", path.read_text(encoding="utf-8"))
    prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    quoted = re.findall(r"`(mvsa-tune\s[^`]+)`", prose) + re.findall(r"&& (mvsa-tune [^']+)'", text)
    return [shlex.split(line)[1:] for line in commands(text, "mvsa-tune") + quoted]


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def test_both_languages_give_the_same_commands_in_the_same_order() -> None:
    english, chinese = (commands(read(name), *PROGRAMS) for name in READMES)
    assert len(english) > 15
    assert english == chinese


def test_both_languages_give_the_same_figures() -> None:
    english, chinese = (sorted(re.findall(r"\d+\.\d+", read(name))) for name in READMES)
    assert english == chinese


def test_the_readme_is_read_in_minutes() -> None:
    assert len(read("README.md").split()) <= 1500
    assert len(read("README.zh.md").splitlines()) <= len(read("README.md").splitlines()) + 10


@pytest.fixture
def sweep_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The manual's sweep file, wherever a page names one, below the working folder."""
    (example,) = blocks(read("docs/sweeps.md"), "yaml")
    for folder in (tmp_path, tmp_path / "results" / "mine", tmp_path / "results" / "NAME"):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "sweep.yaml").write_text(example, encoding="utf-8")
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("sweep_files")
@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_every_command_parses(path: Path) -> None:
    for words in ours(path):
        if words in (["COMMAND"], []) or "…" in " ".join(words):
            continue
        if "--plugin" in words:  # the file is the page's own example, which runs in a test below
            words = words[: words.index("--plugin")]
            words = [word for word in words if word not in ("--head", "concat", "plain")]
        if words[1:] or words[0] not in COMMANDS:
            cli.parse([word for word in words if word != "--print-config"])


def test_a_flag_that_does_not_exist_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("```\npython sweeps/grid.py --demo   # fine\nmvsa-tune grid \\\n    --sedes 3\n```\n")
    assert ours(page) == [["grid", "--demo"], ["grid", "--sedes", "3"]]
    with pytest.raises(InputError, match="--sedes"):
        cli.parse(ours(page)[1])


@cache
def every_flag() -> frozenset[str]:
    """Return the flags that `--help-all`, or `--help`, of any command shows."""
    shown = io.StringIO()
    for name in ALL_COMMANDS:
        for flag in ("--help", "--help-all"):
            with redirect_stdout(shown), redirect_stderr(io.StringIO()), suppress(SystemExit):
                cli.main([name, flag])
    return frozenset(re.findall(r"--[A-Za-z][\w-]*", shown.getvalue()))


@pytest.mark.parametrize("path", [*PAGES, *SHORT], ids=lambda path: f"{path.parent.name}-{path.name}")
def test_every_flag_in_prose_exists(path: Path) -> None:
    prose = re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    named = set(re.findall(r"(?<![\w-])--[A-Za-z][\w-]*", prose))
    assert not named - every_flag() - FOREIGN_FLAGS


@pytest.mark.parametrize("path", [*PAGES, *SHORT], ids=lambda path: f"{path.parent.name}-{path.name}")
def test_every_relative_link_leads_to_a_file(path: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)", path.read_text(encoding="utf-8"))
    assert not [link for link in links if "://" not in link and not (path.parent / link).exists()]


def test_each_readme_links_to_the_other_and_to_every_page_of_the_manual() -> None:
    pages = {f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")}
    for name in READMES:
        assert set(re.findall(r"\]\(([^)#\s]+)", read(name))) >= pages | (set(READMES) - {name})


@pytest.mark.long
def test_the_manual_is_built_strictly_and_loads_nothing_from_outside(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    ended = subprocess.run(build, capture_output=True, text=True, cwd=ROOT, check=False)
    assert ended.returncode == 0, ended.stderr
    pages = list(tmp_path.glob("*.html"))
    assert len(pages) >= len(PAGES) - len(READMES)
    loaded = (
        r"""<(?:script|img)[^>]*\ssrc=["']?(?:https?:)?//|<link[^>]*(?:stylesheet|preconnect)[^>]*href=["']?https?:"""
    )
    for path in pages:
        assert not re.search(loaded, path.read_text(encoding="utf-8")), path.name
    # An example that begins with `>>>` must stand under "Examples:", or it becomes a quotation.
    assert "<blockquote" not in (tmp_path / "api.html").read_text(encoding="utf-8")
    for style in tmp_path.rglob("*.css"):
        assert not re.search(r"(?:url\(|@import )[\"']?https?:", style.read_text(encoding="utf-8")), style.name


@pytest.fixture
def tweets(pairs: Dataset, tmp_path: Path) -> Path:
    """A CSV of the demo set's pairs, in a folder of its own, like a user's."""
    rows = [(sample.guid, sample.picture.relative_to(tmp_path), sample.text) for sample in pairs.samples]
    table = pd.DataFrame(rows, columns=["id", "image", "text"])
    table["label"] = pd.Series([pairs.classes[label] for label in pairs.labels])
    table.to_csv(tmp_path / "tweets.csv", index=False)
    return tmp_path


def test_the_five_lines_and_the_tutorial_do_what_they_say(tweets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the demo set's encoders and fewer epochs; the tutorial's second sweep is only parsed."""
    monkeypatch.chdir(tweets)
    readme, tutorial = (commands(read(name), "mvsa-tune") for name in ("README.md", "docs/tutorial.md"))
    recipe = [line for line in readme if "tweets.csv" in line or "results/mine" in line]
    assert len(recipe) == 5
    for line in [*recipe, *(line for line in tutorial if "folds" not in line)]:
        words = line.replace("mobilenet_v2", "demo-pixels").replace("minilm", "demo-words").split()[1:]
        if words[0] == "grid" and "--dry-run" not in words:
            ended = grid(*words[1:], "--epochs", 3, cwd=tweets)  # without its report: `report` follows
            assert ended.returncode == 0, (line, ended.stderr)
        else:
            assert cli.main(words) == 0, line
    results = tweets / "results"
    labelled = (results / "mine" / "predicted.txt").read_text(encoding="utf-8").splitlines()
    assert len([line for line in labelled if line.split(",")[-1] in ("negative", "neutral", "positive")]) == 60
    for name in ("mine/report.html", "first/report.html", "first/predicted.probabilities.csv", "first/errors.md"):
        assert (results / name).is_file(), name
