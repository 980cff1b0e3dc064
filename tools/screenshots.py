"""Makes the README's pictures of a board: ``python tools/screenshots.py [BOARD] [FOLDER]``.

Needs the dev extra and Chromium. The board is ``leaderboard/`` and the folder ``docs/`` unless others are named.
"""

from __future__ import annotations

import io
import shutil
import sys
from pathlib import Path
from urllib.parse import quote

import orjson
from PIL import Image
from playwright.sync_api import Browser, sync_playwright

from harness.board.page import write_board

WIDTH, HEIGHT = 1400, 900


def main(board: Path, folder: Path) -> None:
    """Write ``board.png`` and ``board-dark.png``, and pictures of a comparison and of an entry."""
    write_board(board)
    entries = [
        one for one in orjson.loads((board / "board.json").read_bytes())["entries"] if not one["not_ranked_because"]
    ]
    most = sorted(entries, key=lambda one: -len(one["tasks"]))
    keys = [quote(one["entry"], safe="") for one in most]
    pictures = {
        "board": ("", "light"),
        "board-dark": ("", "dark"),
        "board-compare": (f"#compare/{'/'.join(keys[:2])}", "light"),
        "board-entry": (f"#entry/{keys[0]}", "light"),
    }
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for name, (address, scheme) in pictures.items():
            picture = _picture(browser, f"{(board / 'index.html').resolve().as_uri()}{address}", scheme)
            # A palette takes a third of the bytes; this one keeps the colours of small things.
            small = picture.quantize(256, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
            small.save(folder / f"{name}.png", optimize=True)
            print(folder / f"{name}.png")
        browser.close()


def _picture(browser: Browser, address: str, scheme: str) -> Image.Image:
    page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, color_scheme=scheme)  # type: ignore[arg-type]
    page.goto(address)
    page.locator("svg.marks").first.wait_for()
    if "#entry" in address:
        page.get_by_role("heading", name="Examples").scroll_into_view_if_needed()
        page.mouse.move(WIDTH / 2, HEIGHT / 2)
        page.mouse.wheel(0, HEIGHT - 220)
    page.wait_for_timeout(800)  # scrolling and pictures
    raw = page.screenshot(full_page="#" not in address)
    page.close()
    return Image.open(io.BytesIO(raw)).convert("RGB")


if __name__ == "__main__":
    given = [Path(argument) for argument in sys.argv[1:]]
    main(*[*given, *[Path("leaderboard"), Path("docs")][len(given) :]])
