"""Files of weights: the tensors of a TorchScript archive without its code, and a line for whatever cannot be read."""

import argparse
import io
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from mvsa_tune.encoders.state_dict import read_state_dict
from mvsa_tune.errors import InputError


def small() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Sequential(nn.Flatten(), nn.Linear(16, 2).half()))


def saved(content: Any) -> Callable[[Path], None]:
    return lambda path: torch.save(content, path)


def written(content: bytes) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(content) and None


def cut(path: Path) -> None:
    torch.save(small().state_dict(), path)
    path.write_bytes(path.read_bytes()[:-1000])


def escape(path: Path) -> None:
    torch.save(small().state_dict(), path, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes().replace(b"HalfStorage", b"\x1b[31mlaugh", 1))


def pickled(path: Path) -> None:
    path.write_bytes(pickle.dumps(small().state_dict()))


NO_WEIGHTS: dict[str, tuple[Callable[[Path], None], str]] = {
    "pickled-model.pt": (saved(small()), r"Python object \(torch\.nn\.modules\.\S+\).*torch\.save\(model\.state_dict"),
    "with-arguments.pth": (saved({"model": small().state_dict(), "args": argparse.Namespace()}), "argparse.Namespace"),
    "with-numpy.pth": (saved({"model": small().state_dict(), "best": np.float64(0.7)}), "Python object .numpy"),
    "pickle.pkl": (pickled, "cut off, or no file of tensors"),
    "list.pth": (saved([1, 2]), "holds list, not a state dict"),
    "numbers.pth": (saved({"epoch": 3, 4: torch.ones(1)}), "is no state dict: it has 'epoch', 4"),
    "empty.pth": (saved({}), "it has nothing"),
    "nothing.bin": (written(b""), "cut off, or no file of tensors"),
    "cut.pth": (cut, "cut off, or no file of tensors"),
    "header.safetensors": (written(b"\x10\0\0\0\0\0\0\0{abc"), "cut off, or no file of tensors"),
    "pointer.bin": (written(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"), "git lfs pull"),
    "escape.pt": (escape, "cut off, or no file of tensors"),
    "page.pt": (written(b"<!DOCTYPE html>"), "is a web page"),
    "vectors.npy": (lambda path: np.save(path, np.ones(3)), "cut off, or no file of tensors"),
    "vectors.npz": (lambda path: np.savez(path, a=np.ones(3)), "cut off, or no file of tensors"),
    "folder": (Path.mkdir, "is a folder without weights .*model.safetensors.*: give a file"),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", NO_WEIGHTS)
def test_what_is_no_state_dict_is_one_line_that_says_what_it_is(name: str, tmp_path: Path) -> None:
    make, told = NO_WEIGHTS[name]
    make(tmp_path / name)
    with pytest.raises(InputError, match=told) as caught:
        read_state_dict(tmp_path / name)
    line = str(caught.value)
    assert name in line and line.isprintable() and "weights_only" not in line and len(line) < 400


@pytest.mark.parametrize("how", ["script", "trace"])
def test_a_torchscript_archive_gives_its_state_dict(how: str, tmp_path: Path) -> None:
    model = small().eval()
    model[0].weight = nn.Parameter(model[0].weight.detach().mT.contiguous().mT)  # strides of its own
    model[1].running_mean = model[1].running_var.view(4)  # one storage for two tensors
    scripted = torch.jit.script(model) if how == "script" else torch.jit.trace(model[:2], torch.zeros(1, 3, 4, 4))
    scripted.save(tmp_path / "model.pt")
    tensors, expected = read_state_dict(tmp_path / "model.pt"), scripted.state_dict()
    assert set(tensors) == set(expected)
    for key, value in expected.items():
        assert tensors[key].dtype == value.dtype
        torch.testing.assert_close(tensors[key], value, rtol=0, atol=0)


class Trap:
    """Touches a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


def test_no_code_of_an_archive_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with zipfile.ZipFile(tmp_path / "trap.pt", "w") as archive:
        archive.writestr("archive/constants.pkl", b"")
        archive.writestr("archive/version", b"3\n")
        archive.writestr("archive/data.pkl", pickle.dumps(Trap(tmp_path / "sprung"), protocol=2))
    with pytest.raises(InputError, match=r"trap\.pt has a Python object"):
        read_state_dict(tmp_path / "trap.pt")
    assert not (tmp_path / "sprung").exists()
    torch.jit.script(small()).save(tmp_path / "model.pt")
    monkeypatch.delattr(torch.jit, "load")
    assert read_state_dict(tmp_path / "model.pt")


def test_a_tensor_that_lies_outside_its_storage_is_refused(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.script(nn.Linear(2, 2)), buffer)
    with zipfile.ZipFile(buffer) as good, zipfile.ZipFile(tmp_path / "bad.pt", "w") as bad:
        for name in good.namelist():
            content = good.read(name)
            bad.writestr(name, content[:4] if "/data/" in name else content)
    with pytest.raises(InputError, match="cut off, or no file of tensors"):
        read_state_dict(tmp_path / "bad.pt")
