"""Write the README's pictures: a sweep's interval plot, and the top of its report as a browser shows it.

    python bench/pictures.py results/grid --out docs/images

NAME.svg and NAME.png are named after the results folder. The page needs Chromium; it shows numbers alone, no samples.
"""

import argparse
import shutil
import subprocess
import tempfile
from pathlib import Path

from PIL import Image

from mvsa_tune.report.page import write_report
from mvsa_tune.results.store import Store
from mvsa_tune.stats.analysis import analyse

SIZE = (1280, 1000)  # pixels
BROWSER = ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--force-color-profile=srgb")


def main() -> None:
    """Write both pictures."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("sweep", type=Path)
    parser.add_argument("--out", type=Path, default=Path("docs/images"))
    options = parser.parse_args()
    page, *_ = write_report(analyse(Store(options.sweep)))
    options.out.mkdir(parents=True, exist_ok=True)
    plot, picture = (options.out / f"{options.sweep.name}.{kind}" for kind in ("svg", "png"))
    shutil.copy(options.sweep / "plots" / "accuracy-wide.svg", plot)
    browser = shutil.which("chromium") or shutil.which("google-chrome") or "chromium-browser"
    with tempfile.TemporaryDirectory() as scratch:
        window = f"--window-size={SIZE[0]},{SIZE[1]}"
        where = [f"--user-data-dir={scratch}/profile", f"--screenshot={scratch}/page.png"]
        subprocess.run([browser, *BROWSER, window, *where, page.resolve().as_uri()], check=True, capture_output=True)
        with Image.open(Path(scratch) / "page.png") as whole:
            whole.convert("RGB").quantize(64).save(picture, optimize=True)  # few colours: a small file
    for path in (plot, picture):
        print(f"{path}: {path.stat().st_size / 1000:,.0f} kB")


if __name__ == "__main__":
    main()
