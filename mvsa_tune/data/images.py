"""Picture files of any kind → RGB."""

import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError


class UnreadablePictureError(Exception):
    """A picture that cannot be read; the message says why."""


def open_picture(path: Path, min_side: int | None = None) -> Image.Image:
    """Return a picture as RGB, upright: the first frame of an animation, what is transparent on white.

    With `min_side`, a JPEG is decoded at a half, a quarter or an eighth of its size, if no side falls below that.

    Raises:
        UnreadablePictureError: the file is no picture, empty, cut off, or far larger than any photograph.
    """
    try:
        if path.stat().st_size == 0:
            raise UnreadablePictureError("the file is empty")
        with warnings.catch_warnings():
            # Up to twice its limit of 89 million pixels Pillow only warns.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as picture:
                if min_side is not None:
                    picture.draft("RGB", (min_side, min_side))
                picture.load()
                return _rgb(ImageOps.exif_transpose(picture))
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise UnreadablePictureError(f"too many pixels ({error})") from None
    except UnidentifiedImageError:
        raise UnreadablePictureError("not a picture in any known format") from None
    except (OSError, ValueError, SyntaxError, EOFError) as error:  # what Pillow's many decoders raise
        raise UnreadablePictureError(f"{type(error).__name__}: {error}") from None


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
