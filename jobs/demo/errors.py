"""What can keep a demo from being shown: one root; the messages are for people."""

from __future__ import annotations


class DemoFailed(Exception):
    """Root of this package's errors: the demo could not go on."""


class StartFailed(DemoFailed):
    """A part of the deployment did not start; the message quotes its last words."""


class PartEnded(DemoFailed):
    """A process ended in the middle of the run."""


class ActFailed(DemoFailed):
    """Something on stage did not go as promised."""
