"""What every command has in common: how it lists, and how it ends."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from conftest import ROOT, add_cache
from mvsa_tune.cli import main
from mvsa_tune.data.dataset import read_dataset
from mvsa_tune.embeddings.cache import default_folder
from mvsa_tune.embeddings.draft import Block, Draft, Origin
from mvsa_tune.results.manifest import command_line

COMMANDS = {
    "encoders": ["-m", "mvsa_tune", "encoders"],
    "help": ["-m", "mvsa_tune", "embed", "--help"],
    "help of a sweep": [str(ROOT / "sweeps" / "grid.py"), "--help"],
}


@pytest.mark.parametrize("command", [pytest.param("encoders", marks=pytest.mark.long), "help", "help of a sweep"])
def test_a_reader_that_has_enough_is_no_error(command: str) -> None:
    process = subprocess.Popen(
        [sys.executable, *COMMANDS[command]],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONUNBUFFERED": ""},  # buffered, as it is for people: the pipe is met at the end
    )
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    assert process.wait(60) == 0 and process.stderr.read() == b""


def test_the_list_names_caches_as_pairs_do_and_stays_within_the_page(
    tiny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = read_dataset(tiny)
    long = "hf:/models/of/some/length/a-tweet-model@pooler"
    add_cache(dataset, long, "text")
    add_cache(dataset, "demo-pixels", "image")
    (default_folder(tiny) / "eye" / "image.json").write_text("{")  # damaged: left out
    draft = Draft(dataset, default_folder(tiny) / "tweets" / "text.npy", "")
    draft.write(Block(0, np.zeros((len(dataset.samples), 6), dtype=np.float32)))
    draft.finish("minilm", "text", Origin("raw", "embedded by minilm"))
    assert main(["encoders", "--data", str(tiny)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines[1:])) <= 120
    assert f"{long}" in lines and "eye" not in " ".join(lines)
    rows = {line.split()[0]: line for line in lines if line and line[0] != " "}
    assert rows["demo-pixels"].endswith(" image") and rows["roberta-base"].endswith(" none")
    assert "text: 6" in rows["tweets"] and "embedded by minilm" in rows["tweets"] and rows["tweets"].endswith(" text")
    assert rows["minilm"].endswith(" none")


def test_the_program_lists_every_command_and_knows_what_was_meant(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([])
    text = capsys.readouterr().out
    names = "grid search finetune import embed encoders audit predict export errors report compare power"
    assert [name for name in names.split() if f"\n  {name} " not in text] == []
    assert max(map(len, text.splitlines())) <= 100
    assert main(["serch", "--demo"]) == 2
    assert capsys.readouterr().err == "mvsa-tune: unknown command serch; did you mean search? (--help lists all)\n"
    assert main(["embed", "--encodr", "minilm"]) == 2
    assert capsys.readouterr().err.startswith("mvsa-tune embed: ")


def test_a_sweep_is_a_command_of_the_program(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["grid", "--data", "nowhere"]) == 2
    assert capsys.readouterr().err.startswith("mvsa-tune grid: no data folder nowhere")


@pytest.mark.parametrize(
    ("argv", "typed"),
    [
        (["/somewhere/bin/mvsa-tune", "grid", "--name", "a b"], "mvsa-tune grid --name 'a b'"),
        (["/somewhere/mvsa_tune/__main__.py", "grid"], "mvsa-tune grid"),
        (["sweeps/grid.py", "--demo"], "python sweeps/grid.py --demo"),
    ],
)
def test_rows_name_the_command_as_a_person_types_it(
    argv: list[str], typed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", argv)
    assert command_line() == typed
