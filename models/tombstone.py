"""Which value of a user is meant by an erasure, and whether it can be one person's."""

from __future__ import annotations

from dataclasses import dataclass

from models.errors import FeatureUnknown, FeatureValueInvalid
from models.features import canonical, value_hash
from models.schema import Feature, Schema

_PREFIX = "user."


@dataclass(frozen=True, slots=True)
class Tombstone:
    """A value by its hash; `feature`: as in `user.geo`; `missing`: its hash without a value;
    `text`: the value as targeting compares it, which is never stored.
    """

    feature: str
    hash: int
    missing: int
    text: str


def tombstone(schema: Schema, name: str, value: str) -> Tombstone:
    """The tombstone of a value of the user feature `name`, with or without its `user.`.

    Raises `FeatureUnknown`, and `FeatureValueInvalid` for what is no person's: no value at all, and
    a number, of which only the bucket is known.
    """
    feature = _feature(schema, name)
    if feature.kind == "numeric":
        limit = "only the bucket of a number is kept, which many have"
        raise FeatureValueInvalid(feature.full_name, "a number", limit, "Erase other values.")
    text = canonical(feature, value)
    if not text:
        limit = "a missing value is nobody's"
        raise FeatureValueInvalid(feature.full_name, value, limit, "Give the value to erase.")
    return Tombstone(feature.full_name, value_hash(feature, text), value_hash(feature, ""), text)


def _feature(schema: Schema, name: str) -> Feature:
    for feature in schema.user:
        if name in (feature.name, feature.full_name):
            return feature
    names = ", ".join(feature.name for feature in schema.user)
    limit = f"the schema declares {names} of users"
    raise FeatureUnknown(f"{_PREFIX}{name.removeprefix(_PREFIX)}", None, limit, "Name one of them.")
