"""The picture of the page in the README: a server of the demo's run in a real browser, with a cell hidden, asked for
and explained.

    sensorium demo --minutes 15
    sensorium index runs/demo runs/demo/emoji.parquet --out emoji-index
    python docs/page.py runs/demo emoji-index runs/demo/emoji.parquet

It takes Playwright (`pip install playwright`) and Chromium.
"""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

OUT = Path(__file__).parent / "page.png"
ROW = 2
"""An umbrella."""


def main(run: str, index: str, table: str) -> None:
    """Serve, look, and write the picture."""
    server = subprocess.Popen(
        [sys.executable, "-m", "sensorium", "serve", run, index, "--table", table, "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        address = re.search(r"http://\S+", server.stdout.readline())[0]
        with sync_playwright() as playing:
            found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
            browser = playing.chromium.launch(executable_path=found, args=["--no-sandbox"])
            page = browser.new_page(viewport={"width": 1300, "height": 760})
            page.goto(address)
            page.wait_for_selector(".rows .cell img")
            names = page.locator(".row.head [role=columnheader]").all_inner_texts()
            page.locator(f".rows [data-place='{ROW}'] [data-column='{names.index('group') - 1}']").click()
            page.click("text=Hide it and ask")
            page.wait_for_selector(".answer")
            page.click("text=Why?")
            page.wait_for_selector(".bars", timeout=120_000)
            page.locator(".grid").evaluate("grid => { grid.scrollLeft = 0 }")
            page.wait_for_timeout(1000)
            page.screenshot(path=OUT)
            browser.close()
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(30)
    print(f"Wrote {OUT}")


if __name__ == "__main__":
    main(*sys.argv[1:])
