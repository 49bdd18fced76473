"""The picture of the README: the top of a run's report page, as a browser shows it.

How: python tests/e2e/picture.py runs/NAME/report.html docs/images/report.png
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from browser import Browser, find_browser
from PIL import Image

WIDTH = 1000
END = "Math.floor(document.querySelector('#learning').getBoundingClientRect().top)"  # results and maze stay


def main(page: Path, picture: Path) -> None:
    program = find_browser()
    if program is None:
        raise SystemExit("no Chromium on the PATH")
    with tempfile.TemporaryDirectory() as profile, Browser(program, Path(profile)) as browser:
        browser.open(page.resolve(), WIDTH)
        browser.screenshot(picture)
        height = browser.evaluate(END)
    with Image.open(picture) as image:
        image.crop((0, 0, WIDTH, height)).quantize(128).save(picture, optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
