import os
from pathlib import Path

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image, PngImagePlugin

from mvsa_tune.data.images import LONGEST, UnreadablePictureError, find_unreadable, keep_middle, open_picture

GREEN = (20, 200, 60)


def photo(size: tuple[int, int] = (40, 20)) -> Image.Image:
    """Green, with a red left quarter."""
    picture = Image.new("RGB", size, GREEN)
    picture.paste((250, 10, 10), (0, 0, size[0] // 4, size[1]))
    return picture


def save(path: Path, picture: Image.Image, **options: object) -> Path:
    picture.save(path, **options)
    return path


MESS = {
    "plain": lambda p: save(p / "a.png", photo()),
    "PNG named jpg": lambda p: save(p / "a.png", photo()).rename(p / "a.jpg"),
    "palette": lambda p: save(p / "a.gif", photo().quantize(8)),
    "CMYK": lambda p: save(p / "a.tif", photo().convert("CMYK")),
    "opaque alpha": lambda p: save(p / "a.png", photo().convert("RGBA")),
    "animated": lambda p: save(
        p / "a.webp", photo(), save_all=True, append_images=[Image.new("RGB", (40, 20))], lossless=True
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", MESS)
def test_a_picture_has_its_colours_in_every_format(tmp_path: Path, case: str) -> None:
    picture = open_picture(MESS[case](tmp_path))
    assert picture.mode == "RGB" and picture.size == (40, 20)
    np.testing.assert_allclose(np.asarray(picture), np.asarray(photo()), atol=3)


def test_grey_keeps_its_brightness_at_any_depth(tmp_path: Path) -> None:
    for name, mode, value in (("a.png", "L", 128), ("b.png", "I;16", 128 * 257)):
        array = np.full((6, 6), value, dtype=np.uint8 if mode == "L" else np.uint16)
        save(tmp_path / name, Image.fromarray(array))
        assert open_picture(tmp_path / name).getpixel((3, 3)) == (128, 128, 128)


def test_transparent_pixels_are_white(tmp_path: Path) -> None:
    picture = Image.new("RGBA", (6, 6), (10, 20, 30, 0))
    picture.putpixel((0, 0), (10, 20, 30, 255))
    assert open_picture(save(tmp_path / "a.png", picture)).getpixel((3, 3)) == (255, 255, 255)
    assert open_picture(tmp_path / "a.png").getpixel((0, 0)) == (10, 20, 30)


def test_a_rotated_camera_gives_an_upright_picture(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned a quarter
    picture = open_picture(save(tmp_path / "a.jpg", photo(), exif=exif))
    assert picture.size == (20, 40)


def test_a_jpeg_may_be_decoded_smaller_but_no_side_below_the_least(tmp_path: Path) -> None:
    path = save(tmp_path / "a.jpg", photo((800, 640)))
    for side, size in ((1, (100, 80)), (81, (200, 160)), (320, (400, 320)), (321, (800, 640)), (5000, (800, 640))):
        picture = open_picture(path, side)
        assert picture.size == size
        assert picture.getpixel((size[0] // 8, 9))[0] > 200 > picture.getpixel((size[0] // 2, 9))[0]
    assert open_picture(save(tmp_path / "a.png", photo()), 5).size == (40, 20)


def test_unreadable_pictures_are_listed_with_their_reasons(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = save(tmp_path / "good.jpg", photo((400, 300)))
    whole = good.read_bytes()
    bad = {
        "empty.jpg": (b"", "empty"),
        "text.jpg": (b"not a picture", "not a picture"),
        "cut.jpg": (whole[: len(whole) // 2], "truncated"),
    }
    for name, (content, _) in bad.items():
        (tmp_path / name).write_bytes(content)
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (90, 90, 3), dtype=np.uint8))
    save(tmp_path / "cut.png", noise)
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:9000])
    save(tmp_path / "bomb.png", Image.new("1", (1200, 1000)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1_000_000)
    unreadable = find_unreadable(sorted(tmp_path.iterdir()), workers=2)
    assert {path.name for path in unreadable} == {*bad, "cut.png", "bomb.png"}
    for name, (_, reason) in bad.items():
        assert reason in unreadable[tmp_path / name]
    assert "pixels" in unreadable[tmp_path / "bomb.png"]
    for path in unreadable:
        with pytest.raises(UnreadablePictureError):
            open_picture(path)


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n%%EOF\n"


def test_a_picture_is_no_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow gives an EPS to Ghostscript, whatever the file is called."""
    ghostscript, trace = tmp_path / "bin" / "gs", tmp_path / "started"
    ghostscript.parent.mkdir()
    ghostscript.write_text(f"#!/bin/sh\ntouch {trace}\n")
    ghostscript.chmod(0o755)
    monkeypatch.setenv("PATH", f"{ghostscript.parent}:{os.environ['PATH']}")
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)
    (tmp_path / "a.jpg").write_bytes(EPS)
    assert "not a picture in a format that is read (JPEG, PNG" in find_unreadable([tmp_path / "a.jpg"], 1).popitem()[1]
    assert not trace.exists()


@pytest.mark.parametrize("suffix", ["ppm", "tga", "pcx", "ico", "dds", "im", "jp2", "sgi", "xbm"])
def test_only_formats_of_photographs_are_opened(tmp_path: Path, suffix: str) -> None:
    picture = photo().convert("1") if suffix == "xbm" else photo()
    save(tmp_path / f"a.{suffix}", picture).rename(tmp_path / "a.jpg")
    with pytest.raises(UnreadablePictureError, match="not a picture in a format that is read"):
        open_picture(tmp_path / "a.jpg")


@pytest.mark.parametrize("suffix", ["jpg", "png", "gif", "webp", "bmp", "tiff", "avif"])
def test_formats_of_photographs_are_opened_whatever_they_are_called(tmp_path: Path, suffix: str) -> None:
    if suffix == "avif" and "AVIF" not in Image.SAVE:
        pytest.skip("this Pillow has no AVIF")
    save(tmp_path / f"a.{suffix}", photo()).rename(tmp_path / "a.picture")
    np.testing.assert_allclose(open_picture(tmp_path / "a.picture").getpixel((30, 10)), GREEN, atol=5)


@pytest.mark.parametrize("error", [RuntimeError, NotImplementedError, KeyError, ZeroDivisionError])
def test_whatever_a_decoder_raises_is_an_unreadable_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    def load(picture: Image.Image) -> None:
        raise error("of a decoder")

    path = save(tmp_path / "a.png", photo())
    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", load)
    assert find_unreadable([path], 1) == {path: f"{error.__name__}: {error('of a decoder')}"}


@pytest.mark.parametrize("size", [(1, 2000), (2000, 1), (3, 1999), (10, 2001)])
def test_the_middle_of_a_long_picture_is_what_a_crop_keeps_of_all_of_it(size: tuple[int, int]) -> None:
    from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Resize

    crop = Compose([Resize(64, InterpolationMode.BICUBIC), CenterCrop(64)])
    values = np.random.default_rng(0).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    picture = Image.fromarray(values)
    middle = keep_middle(picture)
    assert max(middle.size) <= (LONGEST + 1) * min(middle.size)
    np.testing.assert_allclose(np.asarray(crop(middle), int), np.asarray(crop(picture), int), atol=2)


def test_a_picture_that_is_not_very_long_stays_as_it_is() -> None:
    for size in ((300, 200), (64, 1), (10, 640)):
        picture = Image.new("RGB", size)
        assert keep_middle(picture) is picture
