"""What a page of a report is made of, for tests of the pages."""

from __future__ import annotations

from html.parser import HTMLParser


class Assets(HTMLParser):
    """Collects what a page would load or run, and its drawings."""

    def __init__(self) -> None:
        super().__init__()
        self.outside: list[str] = []
        self.drawings = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note scripts, links and sources."""
        if tag in ("script", "link", "img", "iframe") or any(name == "src" for name, _ in attrs):
            self.outside.append(tag)
        self.drawings += tag == "svg"


def check_stands_alone(page: str, drawings: int) -> None:
    """Nothing is loaded or run, light and dark are there, and so many charts are drawn."""
    assets = Assets()
    assets.feed(page)
    assert assets.outside == []
    assert assets.drawings == drawings
    assert "http" not in page
    assert "prefers-color-scheme:dark" in page
