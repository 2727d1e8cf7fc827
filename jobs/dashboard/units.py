"""Numbers for people: with their units, and as many digits as mean something."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

NONE = "–"
_MICROS = 1_000_000
_TODAY_S = 64_800.0


def count(value: float | None) -> str:
    """A whole number with separators."""
    return NONE if value is None else f"{value:,.0f}"


def decimal(value: float | None, digits: int = 2) -> str:
    """A number with so many decimals."""
    return NONE if value is None else f"{value:,.{digits}f}"


def figures(value: float | None) -> str:
    """A number of unknown size, with four significant digits, large ones whole."""
    if value is None:
        return NONE
    return f"{value:,.0f}" if 1e4 <= abs(value) < 1e15 else f"{value:,.4g}"


def per_second(value: float | None) -> str:
    """A rate: more decimals the smaller it is."""
    if value is None:
        return NONE
    if value == 0 or value >= 100:
        return f"{value:,.0f}"
    return f"{value:,.1f}" if value >= 1 else f"{value:.2f}"


def percent(share: float | None, digits: int = 2) -> str:
    """A share as a percentage."""
    return NONE if share is None else f"{100 * share:.{digits}f} %"


def money(micros: float | None) -> str:
    """Micros of the account's currency as units of it, with two decimals; four for next to none."""
    if micros is None:
        return NONE
    units = micros / _MICROS
    return f"{units:.4f}" if 0 < abs(units) < 0.005 else f"{units:,.2f}"


def amount(micros: int) -> str:
    """Micros to the last digit, for what someone has set: two decimals or as many as there are."""
    whole, _, decimals = f"{micros / _MICROS:,.6f}".partition(".")
    return f"{whole}.{decimals.rstrip('0'):0<2}"


def bid(micros: int, kind: str) -> str:
    """A bid with what it is for."""
    return f"{money(micros)} {_unit(kind)}"


def exact_bid(micros: int, kind: str) -> str:
    """The same to the last digit: where it changes, by however little."""
    return f"{amount(micros)} {_unit(kind)}"


def _unit(kind: str) -> str:
    return "per click" if kind == "cpc" else "per thousand"


def milliseconds(seconds: float | None) -> str:
    """A short time."""
    if seconds is None:
        return NONE
    return f"{1000 * seconds:.1f}" if seconds < 0.1 else f"{1000 * seconds:,.0f}"


def lasting(seconds: float | None) -> str:
    """A duration in its largest sensible unit."""
    if seconds is None:
        return NONE
    if seconds < 10:
        return f"{seconds:.1f} s"
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def ago(then_ms: float, now_s: float) -> str:
    """How long ago something was."""
    seconds = now_s - then_ms / 1000
    return "just now" if seconds < 5 else f"{lasting(seconds)} ago"


def moment(milliseconds_: float | None) -> str:
    """A time in UTC, to the second."""
    if milliseconds_ is None:
        return NONE
    return f"{datetime.fromtimestamp(milliseconds_ / 1000, UTC):%Y-%m-%d %H:%M:%S} UTC"


def clock(milliseconds_: float) -> str:
    """The time of the day in UTC."""
    return f"{datetime.fromtimestamp(milliseconds_ / 1000, UTC):%H:%M:%S}"


def when(milliseconds_: float, now_s: float) -> str:
    """The time of the day in UTC, with the date instead of seconds for what is older."""
    if now_s - milliseconds_ / 1000 < _TODAY_S:
        return clock(milliseconds_)
    return f"{datetime.fromtimestamp(milliseconds_ / 1000, UTC):%d %b %H:%M}"


def short(name: UUID | str) -> str:
    """The last part of a UUID, which tells snapshots of one day apart; the first does not."""
    return str(name)[-8:]
