"""The threat model names tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

_TOP = Path(__file__).parents[2]
_NAMED = re.compile(r"`(tests/[\w/]+\.py)(?:::(\w+))?`")


def test_every_test_it_names_exists() -> None:
    """A claim whose test was renamed or deleted is no longer shown by anything."""
    found = _NAMED.findall((_TOP / "docs" / "threat-model.md").read_text())
    assert len(found) > 40
    for file, name in found:
        text = (_TOP / file).read_text()
        assert not name or re.search(rf"^(async )?def {name}\(", text, re.MULTILINE), (file, name)
