"""What can go wrong in a command: one root; the messages are for the person at the terminal."""

from __future__ import annotations

from collections.abc import Sequence

_SHOWN_FAULTS = 20


class CommandError(Exception):
    """Root of all errors raised by `app.commands`."""


class TestsMissing(CommandError):
    """The tests, or what they need, are not installed."""

    __test__ = False  # not a test class, whatever its name looks like to pytest


class ImportInvalid(CommandError):
    """A file with mistakes, of which nothing was imported; `faults` has a line for each."""

    def __init__(self, faults: Sequence[str]) -> None:
        rest = len(faults) - _SHOWN_FAULTS
        lines = [*faults[:_SHOWN_FAULTS], *([f"and {rest} more"] if rest > 0 else [])]
        super().__init__("nothing was imported:\n" + "\n".join(lines))
        self.faults = list(faults)


class DurationInvalid(CommandError):
    """A length of time that is not written as "90d"."""

    def __init__(self, given: str) -> None:
        super().__init__(
            f"{given!r} is no length of time: it is a whole number and s, m, h or d."
            ' Write for instance "90d" or "12h"'
        )
