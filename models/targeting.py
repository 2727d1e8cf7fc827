"""Targeting between its JSON form and the dataclass: read strictly, written canonically.

The JSON form is `{"all": [clause…], "any": [clause…], "none": [clause…]}`, each list optional. A
clause names one user feature and either values, `{"user.geo": ["us", "ca"]}`, or an inclusive
range, `{"user.hour": {"min": 8, "max": 22}}`, of which one side may be left out.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Mapping

from models.errors import InvalidInput
from models.types import Clause, Targeting

MAX_CLAUSES = 100
MAX_VALUES = 1000

_LISTS = ("all", "any", "none")
_SIDE = "user."


def parse_targeting(given: object) -> Targeting:
    """The targeting that a decoded JSON object states; `None` and `{}` target everybody.

    Values become text by the rule of categorical features: Unicode NFC, and 7, 7.0 and "7" alike.
    Raises `InvalidInput` naming the clause, as in `targeting.all[1].user.geo`.
    """
    if given is None:
        return Targeting()
    if not isinstance(given, Mapping):
        raise _invalid("targeting", given, "an object is expected", "Give all, any and none.")
    for key in given:
        if key not in _LISTS:
            raise _invalid(f"targeting.{key}", given[key], "unknown key", "Use all, any or none.")
    return Targeting(**{name: _clauses(name, given.get(name)) for name in _LISTS})


def render_targeting(targeting: Targeting) -> dict[str, list[dict[str, object]]]:
    """The JSON form; empty lists are left out. `parse_targeting` gives the same targeting back."""
    lists = {name: getattr(targeting, name) for name in _LISTS}
    return {name: [_render(clause) for clause in found] for name, found in lists.items() if found}


def _clauses(name: str, given: object) -> tuple[Clause, ...]:
    field = f"targeting.{name}"
    if given is None:
        return ()
    if not isinstance(given, list):
        raise _invalid(field, given, "a list of clauses is expected", "Wrap the clause in [].")
    if len(given) > MAX_CLAUSES:
        limit = f"at most {MAX_CLAUSES} clauses"
        raise _invalid(field, len(given), limit, "Join the values of one feature in one clause.")
    return tuple(_clause(f"{field}[{index}]", clause) for index, clause in enumerate(given))


def _clause(field: str, given: object) -> Clause:
    if not isinstance(given, Mapping) or len(given) != 1:
        limit = "a clause is an object with one feature"
        raise _invalid(field, given, limit, 'Write {"user.geo": ["us"]}.')
    [(feature, condition)] = given.items()
    if not isinstance(feature, str) or not feature.startswith(_SIDE) or feature == _SIDE:
        limit = "only user features can be targeted"
        raise _invalid(f"{field}.{feature}", feature, limit, "Name it user.<feature>.")
    if isinstance(condition, Mapping):
        return _range(f"{field}.{feature}", feature, condition)
    return Clause(feature, values=_values(f"{field}.{feature}", condition))


def _values(field: str, given: object) -> tuple[str, ...]:
    if not isinstance(given, list) or not 1 <= len(given) <= MAX_VALUES:
        limit = f"a list of 1 to {MAX_VALUES} values, or a range, is expected"
        raise _invalid(field, given, limit, 'Write ["us"] or {"min": 8, "max": 22}.')
    texts = (_text(f"{field}[{index}]", value) for index, value in enumerate(given))
    return tuple(dict.fromkeys(texts))


def _text(field: str, value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str) and value:
        return unicodedata.normalize("NFC", value)
    if isinstance(value, int) or (isinstance(value, float) and math.isfinite(value)):
        return str(int(value)) if value == int(value) else repr(value)
    raise _invalid(field, value, "text, a number or a boolean is expected", "Leave it out.")


def _range(field: str, feature: str, given: Mapping[str, object]) -> Clause:
    if not given or set(given) - {"min", "max"}:
        limit = "a range has min, max or both"
        raise _invalid(field, dict(given), limit, 'Write {"min": 8, "max": 22}.')
    low, high = (_bound(f"{field}.{side}", given.get(side)) for side in ("min", "max"))
    if low is not None and high is not None and low > high:
        raise _invalid(field, dict(given), "min is above max", "Swap them.")
    if low is None and high is None:
        raise _invalid(field, dict(given), "both sides are null", "Give min, max or both.")
    return Clause(feature, minimum=low, maximum=high)


def _bound(field: str, value: object) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise _invalid(field, value, "a finite number is expected", "Give a number.")
    return float(value)


def _render(clause: Clause) -> dict[str, object]:
    if clause.values is not None:
        return {clause.feature: list(clause.values)}
    sides = {"min": clause.minimum, "max": clause.maximum}
    return {clause.feature: {side: bound for side, bound in sides.items() if bound is not None}}


def _invalid(field: str, value: object, limit: str, remedy: str) -> InvalidInput:
    return InvalidInput(field, value, limit, remedy)
