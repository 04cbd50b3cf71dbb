"""The README in both languages: the same commands in the same order, the same figures, links that lead somewhere."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
READMES = ("README.md", "README.zh.md")
COMMANDS = ("python", "make", "pip", "tensorboard", "git", "sbatch")


def commands(name: str) -> list[str]:
    """Every command of the fenced code blocks, continued lines joined, comments and alignment left out."""
    blocks = re.findall(r"^```\w*\n(.*?)^```$", (ROOT / name).read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [" ".join(re.sub(r"\s#.*", "", line).split()) for line in lines if line.split(" ")[0].startswith(COMMANDS)]


def test_both_languages_give_the_same_commands_in_the_same_order() -> None:
    english, chinese = (commands(name) for name in READMES)
    assert len(english) > 20
    assert english == chinese


def test_both_languages_give_the_same_figures() -> None:
    english, chinese = (sorted(re.findall(r"\d+\.\d+", (ROOT / name).read_text(encoding="utf-8"))) for name in READMES)
    assert english == chinese


@pytest.mark.parametrize("name", READMES)
def test_every_relative_link_leads_to_a_file(name: str) -> None:
    links = re.findall(r"\]\(([^)#\s]+)", (ROOT / name).read_text(encoding="utf-8"))
    relative = [link for link in links if "://" not in link]
    assert set(READMES) - {name} <= set(relative)
    assert not [link for link in relative if not (ROOT / link).exists()]
