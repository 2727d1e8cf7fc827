"""The performance report as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from datetime import UTC

from app.api.moments import moment
from app.storage.statistics import Dimension, Key, PerformanceRow

MEASURES = (
    *("impressions", "clicks", "ctr", "conversions", "conversion_value_micros"),
    *("closes", "spend_micros", "ecpm_micros"),
)
_COLUMNS = {name: f"{name}_id" for name in ("ad", "campaign", "advertiser", "snapshot")}


def table(group_by: Sequence[Dimension], rows: Iterable[PerformanceRow]) -> str:
    """A header, then a line for each row; what is not known is empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns(group_by))
    writer.writerows(cells(row) for row in rows)
    return text.getvalue()


def columns(group_by: Sequence[Dimension]) -> list[str]:
    """The names of the columns."""
    return [*(_COLUMNS.get(name, name) for name in group_by), *MEASURES]


def cells(row: PerformanceRow) -> list[str]:
    """The texts of one row."""
    measures = [getattr(row, name) for name in MEASURES]
    return [
        *(_text(name, key) for name, key in row.keys.items()),
        *("" if one is None else str(one) for one in measures),
    ]


def time_text(ms: int) -> str:
    """A time as RFC 3339, without milliseconds where there are none."""
    spec = "seconds" if ms % 1000 == 0 else "milliseconds"
    found = moment(ms).astimezone(UTC).replace(tzinfo=None)
    return f"{found.isoformat(timespec=spec)}Z"


def _text(dimension: Dimension, key: Key) -> str:
    if dimension in ("hour", "day"):
        return time_text(int(str(key)))
    return "" if key == 0 else str(key)
