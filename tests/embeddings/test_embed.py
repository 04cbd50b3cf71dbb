import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from conftest import ROOT, encode_pixels, encode_words, grid
from mvsa_tune.cli import main
from mvsa_tune.data.dataset import Dataset, read_dataset
from mvsa_tune.data.text import normalise
from mvsa_tune.embeddings import embed as embedding
from mvsa_tune.embeddings.cache import cached_encoders, default_folder, open_cache
from mvsa_tune.embeddings.draft import Block, Draft
from mvsa_tune.embeddings.embed import embed
from mvsa_tune.embeddings.pipeline import Settings
from mvsa_tune.encoders.towers import TextTower
from mvsa_tune.errors import InputError
from mvsa_tune.inference.trained import text_normalisation
from mvsa_tune.sweeps import GRID
from tiny_models import text_model

QUIET = Settings(quiet=True)


def stored(dataset: Dataset, encoder: str, modality: str) -> np.ndarray:
    cache = open_cache(dataset, default_folder(dataset.folder), encoder, modality)
    assert cache is not None
    return np.asarray(cache.vectors())


def run(dataset: Dataset, *arguments: str) -> int:
    return main(["embed", "--data", str(dataset.folder), *arguments])


def test_a_cache_holds_what_the_encoder_gives(pairs: Dataset, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(pairs, "--encoder", "demo-pixels", "demo-words") == 0
    pictures = encode_pixels([sample.picture for sample in pairs.samples])
    np.testing.assert_allclose(stored(pairs, "demo-pixels", "image"), pictures, atol=1e-6)
    words = encode_words([normalise(sample.text) for sample in pairs.samples])
    np.testing.assert_allclose(stored(pairs, "demo-words", "text"), words, atol=1e-6)
    assert "660 vectors of width 192" in capsys.readouterr().out
    # a second time there is nothing to do, and the file is not touched
    path = pairs.folder / "embeddings" / "demo-pixels" / "image.npy"
    before = path.stat().st_mtime_ns
    assert run(pairs, "--encoder", "demo-pixels") == 0
    assert path.stat().st_mtime_ns == before


@pytest.mark.ray
def test_batches_blocks_and_workers_do_not_change_a_vector(pairs: Dataset, tmp_path: Path) -> None:
    reference = tmp_path / "reference"
    embed(pairs, reference, "demo-pixels", QUIET)
    whole = (reference / "demo-pixels" / "image.npy").read_bytes()
    for number, settings in enumerate([Settings(batch_size=7, quiet=True), Settings(workers=2, quiet=True)]):
        embed(pairs, tmp_path / str(number), "demo-pixels", settings)
        assert (tmp_path / str(number) / "demo-pixels" / "image.npy").read_bytes() == whole


def test_half_precision_is_half_the_size(pairs: Dataset) -> None:
    assert run(pairs, "--encoder", "demo-pixels", "--dtype", "float16") == 0
    assert stored(pairs, "demo-pixels", "image").dtype == np.float16


def test_a_cache_made_otherwise_is_not_taken_for_this_one(pairs: Dataset) -> None:
    folder = default_folder(pairs.folder)
    embed(pairs, folder, "demo-words", QUIET)
    with pytest.raises(
        InputError, match=r"was made with other settings \(text reference.*not as requested now \(text raw"
    ):
        embed(pairs, folder, "demo-words", Settings(text="raw", quiet=True))


def test_vectors_of_texts_under_older_rules_are_not_taken_for_todays(pairs: Dataset) -> None:
    folder = default_folder(pairs.folder)
    (cache,) = embed(pairs, folder, "demo-words", QUIET)
    assert cache.manifest.preprocessing.startswith("text reference 2; ")
    manifest = folder / "demo-words" / "text.json"
    manifest.write_text(manifest.read_text().replace("text reference 2;", "text reference;"))
    with pytest.raises(InputError, match=r"other settings \(text reference; .*requested now \(text reference 2; "):
        embed(pairs, folder, "demo-words", QUIET)


def test_the_rules_that_a_head_was_trained_under_are_known_or_an_error() -> None:
    def about(preprocessing: str) -> dict[str, object]:
        return {"encoders": {"text": {"preprocessing": preprocessing}}}

    assert text_normalisation(about("text reference 2; tokens")) == "reference"
    assert text_normalisation(about("text raw; tokens")) == "raw"
    assert text_normalisation({"encoders": {}}) == "reference"
    with pytest.raises(InputError, match=r"trained on `text reference`, .*embed and train again"):
        text_normalisation(about("text reference; tokens"))


def test_vectors_made_otherwise_stand_in_a_grid_under_another_name(
    pairs: Dataset, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(pairs, "--encoder", "demo-pixels", "demo-words") == 0
    before = stored(pairs, "demo-words", "text")
    raw = ["--encoder", "demo-words", "--text", "raw", "--as", "words-raw"]
    assert run(pairs, *raw) == run(pairs, *raw) == 0
    words = encode_words([sample.text for sample in pairs.samples])
    np.testing.assert_allclose(stored(pairs, "words-raw", "text"), words, atol=1e-6)
    np.testing.assert_array_equal(stored(pairs, "demo-words", "text"), before)
    cached = cached_encoders(default_folder(pairs.folder))
    assert {name: made[0].encoder for name, made in cached.items()} == {
        "demo-pixels": "demo-pixels", "demo-words": "demo-words", "words-raw": "demo-words"
    }  # fmt: skip
    arguments = ["--data", str(pairs.folder), "--dry-run", "--pairs", "demo-pixels+demo-words", "demo-pixels+words-raw"]
    assert GRID.main([*arguments, "--D", "8"]) == 0
    told = capsys.readouterr().out
    assert "2 configurations" in told and "left out" not in told
    (pairs.folder / "embeddings" / "words-raw" / "text.npy").unlink()
    with pytest.raises(InputError, match="--encoder demo-words --as words-raw"):
        stored(pairs, "words-raw", "text")


@pytest.mark.parametrize("name", ["a+b", "../elsewhere", "demo-pixels", "timm:resnet10t"])
def test_a_name_that_no_pair_could_tell_apart_is_refused(
    name: str, tiny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = list(default_folder(tiny).iterdir())
    assert main(["embed", "--data", str(tiny), "--encoder", "demo-words", "--as", name]) == 2
    assert f"{name} cannot be a cache's name in a pair" in capsys.readouterr().err
    assert list(default_folder(tiny).iterdir()) == before


def finished(folder: Path) -> int:
    """How many blocks a draft has finished."""
    path = folder / ".image.blocks"
    return path.read_text().count("\n") - 1 if path.exists() else 0


@pytest.mark.long
def test_killed_at_any_moment_the_same_command_goes_on_to_the_same_bytes(pairs: Dataset, tmp_path: Path) -> None:
    embed(pairs, tmp_path / "reference", "demo-pixels", QUIET)
    whole = (tmp_path / "reference" / "demo-pixels" / "image.npy").read_bytes()
    code = (
        "import sys, time; from mvsa_tune.embeddings import embed, pipeline; from mvsa_tune.cli import main;"
        "embed.BLOCK['image'] = 16;"
        "encode = pipeline._encode; pipeline._encode = lambda *a: (time.sleep(0.05), encode(*a))[1];"
        "sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", code, "embed", "--data", str(pairs.folder), "--encoder", "demo-pixels"]
    folder = pairs.folder / "embeddings" / "demo-pixels"
    for signal_number, least in ((signal.SIGKILL, 3), (signal.SIGINT, 8), (signal.SIGKILL, 12)):
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        while finished(folder) < least:
            assert process.poll() is None
            time.sleep(0.01)
        os.kill(process.pid, signal_number)
        _, told = process.communicate(timeout=60)
        assert "Traceback" not in told, told
        assert not (folder / "image.json").exists()
    assert finished(folder) >= 12
    assert subprocess.run(command, check=False).returncode == 0
    assert (folder / "image.npy").read_bytes() == whole
    assert not list(folder.glob(".image.npy")) and not list(folder.glob(".image.blocks"))


def test_finished_blocks_of_other_settings_are_not_used(pairs: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*arguments: object, **named: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Draft, "finish", stop)  # every block is done, and then it ends
        with pytest.raises(KeyboardInterrupt):
            embed(pairs, default_folder(pairs.folder), "demo-words", Settings(text="raw", quiet=True))
    embed(pairs, default_folder(pairs.folder), "demo-words", QUIET)
    words = encode_words([normalise(sample.text) for sample in pairs.samples])
    np.testing.assert_allclose(stored(pairs, "demo-words", "text"), words, atol=1e-6)


@pytest.mark.parametrize("workers", [None, pytest.param(2, marks=pytest.mark.ray)])
@pytest.mark.long
def test_cut_texts_are_counted_once_however_often_it_is_interrupted(
    pairs: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int | None
) -> None:
    text_model("Roberta", tmp_path / "model")
    for row in (*range(20), 200, 659):
        (pairs.folder / "data" / f"{pairs.guids[row]}.txt").write_text("ok " * 200)
    pairs = read_dataset(pairs.folder)
    tokenised: list[str] = []
    prepare = TextTower.prepare
    monkeypatch.setattr(TextTower, "prepare", lambda self, text: (tokenised.append(text), prepare(self, text))[1])
    monkeypatch.setitem(embedding.BLOCK, "text", 100)
    settings = Settings(text="raw", workers=workers, quiet=True)
    name = f"hf:{tmp_path / 'model'}"
    write = Draft.write

    def write_three(draft: Draft, block: Block) -> None:
        if len(draft.finished) == 3:
            raise KeyboardInterrupt
        write(draft, block)

    with monkeypatch.context() as patch:
        patch.setattr(Draft, "write", write_three)
        with pytest.raises(KeyboardInterrupt):
            embed(pairs, tmp_path / "cache", name, settings)
    tokenised.clear()
    (cache,) = embed(pairs, tmp_path / "cache", name, settings)
    assert cache.manifest.truncated == 22
    assert len(tokenised) == (0 if workers else 660 - 300)  # each text that was left, once; by Ray's workers not here


@pytest.mark.long
def test_of_two_at_once_the_second_waits_and_says_so(pairs: Dataset) -> None:
    code = (
        "import sys, time; from mvsa_tune.embeddings import pipeline; from mvsa_tune.cli import main;"
        "encode = pipeline._encode; pipeline._encode = lambda *a: (time.sleep(0.5), encode(*a))[1];"
        "sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", code, "embed", "--data", str(pairs.folder), "--encoder", "demo-pixels"]
    both = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    told = [process.communicate(timeout=120)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert sum("another process is embedding" in text for text in told) == 1
    stored(pairs, "demo-pixels", "image")


def test_pictures_that_cannot_be_read_are_all_listed_before_work_starts(
    pairs: Dataset, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second, third = (sample.picture for sample in pairs.samples[:3])
    first.write_bytes(b"")
    second.write_bytes(second.read_bytes()[:500])
    assert run(pairs, "--encoder", "demo-pixels") == 2
    told = capsys.readouterr().err
    assert "2 pictures cannot be read" in told and "--skip-bad" in told
    assert f"{first}: the file is empty" in told and f"{second}: " in told and str(third) not in told
    assert not (pairs.folder / "embeddings" / "demo-pixels" / "image.npy").exists()


def test_skipped_samples_are_named_in_the_manifest_and_the_tables(pairs: Dataset, tmp_path: Path) -> None:
    spoilt = [pairs.samples[row] for row in (0, 5, 650)]
    for sample in spoilt:
        sample.picture.write_bytes(b"no picture")
    pairs = read_dataset(pairs.folder)
    assert run(pairs, "--encoder", "demo-pixels", "--skip-bad") == 0
    assert run(pairs, "--encoder", "demo-words") == 0
    cache = open_cache(pairs, default_folder(pairs.folder), "demo-pixels", "image")
    assert cache is not None and set(cache.manifest.skipped) == {sample.guid for sample in spoilt}
    assert not cache.vectors()[[0, 5, 650]].any() and cache.vectors()[1].any()
    done = grid(
        "--data", pairs.folder, "--pairs", "demo-pixels+demo-words", "--D", 4, "--epochs", 2, "--seeds", 1, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    tables = (tmp_path / "results" / "grid" / "tables.md").read_text()
    assert "Left out: 3 samples whose pictures could not be read" in tables
    predictions = next((tmp_path / "results" / "grid" / "predictions").iterdir())
    with np.load(predictions, allow_pickle=False) as kept:
        assert not {0, 5} & set(kept["rows"].ravel().tolist())


def test_the_grid_makes_missing_caches_when_asked(pairs: Dataset, tmp_path: Path) -> None:
    few = ["--D", 4, "--epochs", 2, "--seeds", 1]
    done = grid("--data", pairs.folder, "--pairs", "demo-pixels+demo-words", *few, "--embed", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "The only one trained to its end: demo-pixels+demo-words D=4" in done.stdout


@pytest.mark.long
def test_memory_does_not_grow_with_the_number_of_samples(tmp_path: Path) -> None:
    peaks = []
    for count in (400, 3200):
        folder = tmp_path / str(count)
        (folder / "data").mkdir(parents=True)
        Image.new("RGB", (500, 500)).save(folder / "data" / "0.jpg")
        for number in range(1, count):
            os.link(folder / "data" / "0.jpg", folder / "data" / f"{number}.jpg")
        for number in range(count):
            (folder / "data" / f"{number}.txt").write_text("x")
        (folder / "train.txt").write_text("".join(f"{number},neutral\n" for number in range(count)))
        code = (
            "import sys, resource; from mvsa_tune.cli import main; main(sys.argv[1:]);"
            "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
        )
        command = [sys.executable, "-c", code, "embed", "--data", str(folder), "--encoder", "demo-pixels"]
        printed = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout
        peaks.append(int(printed.split()[-1]) / 1024)
    assert peaks[1] - peaks[0] < 40, peaks  # MiB, for eight times the samples


@pytest.mark.long
def test_the_bench_of_the_pipeline_needs_no_ray(pairs: Dataset) -> None:
    code = (
        "import runpy, sys; sys.modules['ray'] = None; sys.path.insert(0, 'bench');"
        "runpy.run_path('bench/embed.py', run_name='__main__')"
    )
    for encoder in ("demo-pixels", "demo-words"):
        command = [sys.executable, "-c", code, "--data", str(pairs.folder), "--encoder", encoder, "--rounds", "1"]
        printed = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout
        assert "pipeline / forward" in printed


def test_encoders_lists_what_there_is(pairs: Dataset, capsys: pytest.CaptureFixture[str]) -> None:
    embed(pairs, default_folder(pairs.folder), "demo-words", QUIET)
    assert main(["encoders", "--data", str(pairs.folder)]) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line}
    assert {"clip-vit-b-32", "roberta-base", "resnet50", "demo-words"} <= set(lines)
    assert lines["demo-words"].endswith("text") and lines["demo-pixels"].endswith("none")
    assert "image: 512, text: 512" in lines["clip-vit-b-32"]


def test_an_unknown_encoder_and_odd_settings_are_refused(pairs: Dataset, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, told in (
        (["--encoder", "mystery"], "unknown encoder mystery"),
        (["--encoder", "demo-pixels", "--batch-size", "0"], "must be 1 or more"),
        (["--encoder", "demo-pixels", "--workers", "0"], "must be 1 or more"),
        (["--encoder", "demo-pixels", "demo-words", "--weights", "x"], "--weights and --as are for one encoder"),
        (["--encoder", "demo-pixels", "--device", "cuda"], "has no GPU"),
    ):
        assert run(pairs, *arguments) == 2
        assert told in capsys.readouterr().err
