"""A call as data: what is sent, what comes back, and whether it may be made twice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Generic, TypeVar

from adscent_client.answers import Item, Page
from adscent_client.errors import AdscentError, Unreachable

Answer = TypeVar("Answer")
Scalar = str | int | float | bool
FeatureValue = Scalar | Sequence[Scalar] | None
Parameter = str | int | float | Sequence[str | int]
Features = Mapping[str, FeatureValue]


@dataclass(frozen=True, slots=True)
class Call(Generic[Answer]):
    """One request, and the type of its answer."""

    method: str
    path: str
    answer: type[Answer]
    body: object = None
    params: Mapping[str, Parameter] = field(default_factory=dict)
    deadline_ms: int | None = None
    is_repeatable: bool = True

    def may_follow(self, error: AdscentError) -> bool:
        """Whether the call may be made again after `error`: a refusal left nothing done.

        One that has a deadline may not: it would come too late.
        """
        if self.deadline_ms is not None:
            return False
        return self.is_repeatable or not isinstance(error, Unreachable)


def next_page(call: Call[Page[Item]], page: Page[Item]) -> Call[Page[Item]] | None:
    """The call for the page after `page`; None after the last."""
    if page.next_cursor is None:
        return None
    return replace(call, params={**call.params, "cursor": page.next_cursor})


def said(**values: object) -> dict[str, object]:
    """What was given: neither None nor empty nor 0, which are what the server takes by itself."""
    return {name: value for name, value in values.items() if value}


def parameters(**values: object) -> dict[str, Parameter]:
    return {
        name: _parameter(value) for name, value in values.items() if value not in (None, "", ())
    }


def _parameter(value: object) -> Parameter:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, list | tuple):
        return [str(each) for each in value]
    return value if isinstance(value, int | float) else str(value)
