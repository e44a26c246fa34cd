"""Builds the documentation as a site that opens from the disk, with search and without the network.

make docs        (or: zensical build --clean, then python docs/site.py)
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
SITE = ROOT / "site"
SHIM = "https://unpkg.com/iframe-worker/shim"
"""The one script that Zensical's pages would fetch: workers, by which search runs, for pages opened from the disk."""


def main() -> None:
    """Build, let pages use our copy of that script, and check that they fetch nothing."""
    subprocess.run([Path(sys.executable).parent / "zensical", "build", "--clean"], cwd=ROOT, check=True)
    for page in SITE.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        up = "../" * (len(page.relative_to(SITE).parts) - 1)
        text = text.replace(SHIM, f"{up}assets/iframe-worker.js")
        if 'src="http' in text or 'rel="stylesheet" href="http' in text:
            sys.exit(f"{page} fetches something from the network")
        page.write_text(text, encoding="utf-8")
    print(f"Open {SITE / 'index.html'}")


if __name__ == "__main__":
    main()
