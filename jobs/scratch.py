"""A DuckDB database in a temporary folder of its own, for files too large for memory."""

from __future__ import annotations

import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

import duckdb


class Scratch:
    """What reads a file through such a database, `_database`. Close it, or use `with`."""

    def __init__(self, name: str) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix=f"adscent-{name}-")
        self._database = duckdb.connect(str(Path(self._folder.name) / f"{name}.duckdb"))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Remove the temporary database."""
        self._database.close()
        self._folder.cleanup()
