"""Vowpal Wabbit on the same events, when its Python package is installed.

Its own text format is parsed beforehand and not counted; learning is one call an event from
Python, which costs well under a microsecond of the six or more that an event takes.
"""

from __future__ import annotations

import importlib
import time
from importlib.util import find_spec
from itertools import pairwise
from typing import Any

from jobs.bench.report import Measure, measure
from models.types import Batch, Ragged

HINT = (
    "Vowpal Wabbit is not installed, so it was not compared:"
    " `uv pip install vowpalwabbit` (the extra `vw`) adds it"
)
EVENTS = 50_000
"""So many events of the kernel's are learned in each round."""

_COMMON = "--quiet --loss_function logistic --adaptive --normalized --invariant -b 20"
_SETTINGS = {"vw_pairs": "-q ua", "vw_factors": "--lrq ua4"}


def is_installed() -> bool:
    """Whether the package can be imported."""
    return find_spec("vowpalwabbit") is not None


def vowpal_measures(kernel: Measure, drawn: Batch, rounds: int) -> dict[str, Measure]:
    """Its speed with each setting; the baseline is `kernel`, measured on the same events."""
    lines = _lines(drawn.rows(0, min(EVENTS, len(drawn))))
    found = {}
    for name, setting in _SETTINGS.items():
        speeds = [_speed(lines, setting) for _ in range(rounds)]
        about = (
            f"Vowpal Wabbit `{_COMMON} {setting}`, the user's and the ad's values in namespaces u"
            " and a, examples parsed before; baseline: our kernel on the same events"
        )
        found[name] = measure(speeds, "events/s", about, baseline=[kernel.value] * rounds)
    return found


def _speed(lines: list[str], setting: str) -> float:
    """Events per second of the thread."""
    workspace: Any = importlib.import_module("vowpalwabbit").Workspace(f"{_COMMON} {setting}")
    examples = [workspace.example(line) for line in lines]
    started = time.thread_time()
    for example in examples:
        workspace.learn(example)
    took = time.thread_time() - started
    for example in examples:
        workspace.finish_example(example)
    workspace.finish()
    return len(lines) / took


def _lines(drawn: Batch) -> list[str]:
    """Each event in Vowpal Wabbit's text format; a value's name is its hash."""
    user, ad = _names(drawn.user), _names(drawn.ad)
    labels = ("1" if label else "-1" for label in drawn.label)
    return [f"{y} |u {u} |a {a}" for y, u, a in zip(labels, user, ad, strict=True)]


def _names(block: Ragged) -> list[str]:
    ends = block.ptr[:: block.features].tolist()
    names = [f"f{key & 0xFFFFFFFFFFFFFFFF:x}" for key in block.ids.tolist()]
    return [" ".join(names[first:last]) for first, last in pairwise(ends)]
