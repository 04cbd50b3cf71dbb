"""Picture files, as messy as they come → RGB."""

import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError


class UnreadablePictureError(Exception):
    """A picture that cannot be read; the message says why."""


def open_picture(path: Path) -> Image.Image:
    """Read a picture as RGB, upright; of an animated one the first frame, of a transparent one as it looks on white.

    Raises:
        UnreadablePictureError: not a picture, empty, cut off, or far larger than any photograph.
    """
    return _read(path)


def open_small(path: Path, side: int) -> Image.Image:
    """Read a picture as `open_picture` does, JPEGs decoded at a half, a quarter or an eighth where no side falls below `side`.

    Raises:
        UnreadablePictureError: as `open_picture` does.
    """
    return _read(path, side)


def unreadable(paths: Sequence[Path], workers: int) -> dict[Path, str]:
    """Find the pictures that cannot be read, and why.

    Every file is read to its end, so that one that is cut off is found; JPEGs are decoded at an eighth of their size, which
    takes a fraction of the time.
    """

    def reason(path: Path) -> str | None:
        try:
            open_small(path, 1)
        except UnreadablePictureError as error:
            return str(error)
        return None

    with ThreadPoolExecutor(workers) as pool:
        return {path: why for path, why in zip(paths, pool.map(reason, paths), strict=True) if why}


def _read(path: Path, side: int | None = None) -> Image.Image:
    try:
        if path.stat().st_size == 0:
            raise UnreadablePictureError("the file is empty")
        with warnings.catch_warnings():
            # Pillow only warns of a picture up to twice its limit of 89 million pixels, and refuses above.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as picture:
                if side is not None:
                    picture.draft("RGB", (side, side))
                picture.load()
                return _rgb(ImageOps.exif_transpose(picture))
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise UnreadablePictureError(f"too many pixels ({error})") from None
    except UnidentifiedImageError:
        raise UnreadablePictureError("not a picture in any known format") from None
    except (OSError, ValueError, SyntaxError, EOFError) as error:  # what Pillow's many decoders raise
        raise UnreadablePictureError(f"{type(error).__name__}: {error}") from None


def _rgb(picture: Image.Image) -> Image.Image:
    if picture.mode.startswith("I") or picture.mode == "F":
        return _from_deep(picture)
    if picture.mode in ("LA", "PA", "RGBA", "La", "RGBa") or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, "white")
        return Image.alpha_composite(white, picture).convert("RGB")
    return picture.convert("RGB")


def _from_deep(picture: Image.Image) -> Image.Image:
    """16- and 32-bit grey → 8 bits: Pillow's own conversion clips instead of scaling."""
    values = np.asarray(picture, dtype=np.float64)
    top = 65535 if values.max(initial=0) > 255 else 255
    return Image.fromarray((values.clip(0, top) * (255 / top)).round().astype(np.uint8)).convert("RGB")
