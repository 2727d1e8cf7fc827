"""Makes docs/screenshots: runs the demo, and looks at its dashboard with a real browser.

python -m tests.acceptance.make_screenshots
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

from playwright.sync_api import Browser

from tests.acceptance.browsing import PHONE, ROOT, Visit, chromium, visiting

FOLDER = ROOT / "docs" / "screenshots"
_SECONDS = 280.0
_SHOOT_S = 168.0  # after the refusal, with time left for slow machines
_SETTLED_MS = 2500
_TOLD = re.compile(r"dashboard is at (\S+); its key for this run is (\S+)")


def main() -> None:
    """Run the demo until it has refused a model, then take the pictures."""
    FOLDER.mkdir(exist_ok=True)
    started = time.monotonic()
    demo = subprocess.Popen(  # noqa: S603  # our own interpreter
        [sys.executable, "-m", "app.cli.main", "demo", "--exit-after", f"{_SECONDS:.0f}"],
        cwd=ROOT,
        env={**os.environ, "NO_COLOR": "1", "COLUMNS": "200"},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        address, key = _told(demo)
        time.sleep(max(0.0, started + _SHOOT_S - time.monotonic()))
        with chromium() as browser:
            _wide(browser, address, key)
            _others(browser, address, key)
    finally:
        demo.terminate()
        demo.wait(60)


def _told(demo: subprocess.Popen[str]) -> tuple[str, str]:
    assert demo.stdout is not None
    for line in demo.stdout:
        found = _TOLD.search(line)
        if found is not None:
            return found[1], found[2]
    raise SystemExit("the demo ended before its dashboard was up")


def _wide(browser: Browser, address: str, key: str) -> None:
    with visiting(browser, address, viewport={"width": 1280, "height": 1000}) as visit:
        visit.log_in(key)
        _shoot(visit, "/", "overview")
        _shoot(visit, "/model", "model")
        refused = visit.page.get_by_label("Refused snapshots, the newest first")
        target = refused.get_by_role("link").first.get_attribute("href")
        _shoot(visit, str(target), "refused")
        visit.open("/ads")
        visit.page.wait_for_timeout(_SETTLED_MS)
        visit.page.get_by_role("button", name=re.compile("Pause ad")).first.click()
        visit.page.get_by_role("button", name="Pause", exact=True).click()
        visit.page.get_by_text("Confirmed by").wait_for()
        _save(visit, "pause")


def _others(browser: Browser, address: str, key: str) -> None:
    dark = {"color_scheme": "dark", "viewport": {"width": 1280, "height": 1000}}
    with visiting(browser, address, **dark) as visit:
        visit.log_in(key)
        _shoot(visit, "/snapshots", "snapshots-dark")
    with visiting(browser, address, viewport=PHONE, device_scale_factor=2) as visit:
        visit.log_in(key)
        _shoot(visit, "/", "overview-phone")


def _shoot(visit: Visit, path: str, name: str) -> None:
    visit.open(path)
    visit.page.wait_for_timeout(_SETTLED_MS)
    _save(visit, name)


def _save(visit: Visit, name: str) -> None:
    path: Path = FOLDER / f"{name}.png"
    visit.page.screenshot(path=path)
    print(f"{path.relative_to(ROOT)}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
