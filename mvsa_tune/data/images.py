"""Picture files of any kind → RGB."""

import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

# Pillow itself knows forty more, and tries them whatever a file is called: one starts Ghostscript, some crash.
FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "AVIF", "HEIF")
LONGEST = 64  # times the shorter side: what is further from the middle can be cut off before a resize


class UnreadablePictureError(Exception):
    """A picture that cannot be read; the message says why."""


def open_picture(path: Path, min_side: int | None = None) -> Image.Image:
    """Return a picture as RGB, upright: the first frame of an animation, what is transparent on white.

    With `min_side`, a JPEG is decoded at a half, a quarter or an eighth of its size, if no side falls below that.

    Raises:
        UnreadablePictureError: the file is no picture of `FORMATS`, empty, cut off, or far larger than any photograph.
    """
    try:
        if path.stat().st_size == 0:
            raise UnreadablePictureError("the file is empty")
        with warnings.catch_warnings():
            # Up to twice its limit of 89 million pixels Pillow only warns.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=_formats()) as picture:
                if min_side is not None:
                    picture.draft("RGB", (min_side, min_side))
                picture.load()
                return _rgb(ImageOps.exif_transpose(picture))
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise UnreadablePictureError(f"too many pixels ({error})") from None
    except UnidentifiedImageError:
        raise UnreadablePictureError(f"not a picture in a format that is read ({', '.join(_formats())})") from None
    except UnreadablePictureError:
        raise
    except Exception as error:  # Pillow's decoders raise whatever they like
        raise UnreadablePictureError(f"{type(error).__name__}: {error}") from None


@cache
def _formats() -> list[str]:
    """Return those of `FORMATS` that this Pillow has."""
    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


def keep_middle(picture: Image.Image) -> Image.Image:
    """Return a picture without what a crop of its middle square drops, `LONGEST` times longer than wide at most.

    Resizing the shorter side of 1 × 20,000 pixels to 224 would take gigabytes; pictures that are not so long stay as
    they are.
    """
    (width, height), longest = picture.size, LONGEST * min(picture.size)
    x, y = (max(0, (side - longest) // 2) for side in (width, height))
    return picture.crop((x, y, width - x, height - y)) if x or y else picture


def find_unreadable(paths: Sequence[Path], workers: int) -> dict[Path, str]:
    """Return the pictures that cannot be read, each with the reason.

    Every file is read to its end, but JPEGs are decoded at an eighth of their size, which takes a fraction of the time.
    """

    def reason(path: Path) -> str:
        try:
            open_picture(path, min_side=1)
        except UnreadablePictureError as error:
            return str(error)
        return ""

    with ThreadPoolExecutor(workers) as pool:
        return {path: why for path, why in zip(paths, pool.map(reason, paths), strict=True) if why}


def _rgb(picture: Image.Image) -> Image.Image:
    if picture.mode.startswith("I") or picture.mode == "F":  # 16 and 32 bits, which Pillow clips instead of scaling
        values = np.asarray(picture, dtype=np.float64)
        top = 65535 if values.max(initial=0) > 255 else 255
        return Image.fromarray((values.clip(0, top) * (255 / top)).round().astype(np.uint8)).convert("RGB")
    if picture.mode in ("LA", "PA", "RGBA", "La", "RGBa") or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, "white")
        return Image.alpha_composite(white, picture).convert("RGB")
    return picture.convert("RGB")
