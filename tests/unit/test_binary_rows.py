"""Impressions and clicks read from binary COPY data, against plain Python."""

from __future__ import annotations

import struct
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.storage.binary_rows import Impressions, Keys, clicked, clicks
from app.storage.incoming import Incoming

HEADER, TRAILER = b"PGCOPY\n\xff\r\n\0" + bytes(8), b"\xff\xff"


class Shown(NamedTuple):
    """An impression; as a tuple it sorts in the order of its key."""

    time_us: int
    decision: bytes
    slot: int
    ad_id: int = 7
    features: bytes = b""


def field(content: bytes) -> bytes:
    """One field of a row."""
    return struct.pack(">i", len(content)) + content


def key_fields(one: Shown) -> bytes:
    """The three fields that impressions and clicks share."""
    parts = (struct.pack(">q", one.time_us), one.decision, struct.pack(">h", one.slot))
    return b"".join(map(field, parts))


def row(one: Shown) -> bytes:
    """An impression's row."""
    rest = field(struct.pack(">q", one.ad_id)) + field(one.features)
    return struct.pack(">h", 5) + key_fields(one) + rest


def copied(shown: list[Shown]) -> bytes:
    """A COPY of impressions."""
    return HEADER + b"".join(map(row, shown)) + TRAILER


def copied_clicks(shown: list[Shown]) -> bytes:
    """A COPY of the clicks on these impressions."""
    rows = (struct.pack(">h", 3) + key_fields(one) for one in shown)
    return HEADER + b"".join(rows) + TRAILER


def impressions(data: bytes) -> Impressions:
    """What a COPY that came at once gives."""
    incoming = Incoming()
    incoming.add(data)
    return incoming.all()


def as_rows(found: Impressions) -> list[Shown]:
    """What was read, as plain Python."""
    keys = found.keys
    decisions = [
        struct.pack(">QQ", high, low) for high, low in zip(keys.high, keys.low, strict=True)
    ]
    columns = keys.time_us.tolist(), decisions, keys.slot.tolist(), found.ad_id.tolist()
    return [Shown(*values) for values in zip(*columns, found.features, strict=True)]


# Few different times, decisions and slots, so that parts of keys repeat.
a_shown = st.builds(
    Shown,
    time_us=st.integers(0, 3) | st.integers(-(2**62), 2**62),
    decision=st.sampled_from([bytes(16), bytes(15) + b"\1", b"\x80" + bytes(15)])
    | st.binary(min_size=16, max_size=16),
    slot=st.integers(0, 2) | st.integers(0, 2**15 - 1),
    ad_id=st.integers(1, 2**53 - 1),
    features=st.binary(max_size=40),
)
some_shown = st.lists(a_shown, max_size=30, unique_by=lambda one: one[:3])


@given(some_shown)
def test_rows_come_back_in_the_order_of_their_keys(shown: list[Shown]) -> None:
    """Every field of every row is read, and rows are sorted by time, decision and slot."""
    assert as_rows(impressions(copied(shown))) == sorted(shown)


@given(some_shown, st.data())
def test_data_that_comes_in_parts_has_the_same_rows(
    shown: list[Shown], data: st.DataObject
) -> None:
    """Wherever the data is cut, and however often what is there is taken apart meanwhile."""
    whole, incoming = copied(shown), Incoming()
    places = data.draw(st.lists(st.integers(0, len(whole)), max_size=6).map(sorted))
    for start, stop in pairwise([0, *places, len(whole)]):
        incoming.add(whole[start:stop])
        if data.draw(st.booleans()):
            incoming.take_apart()
    assert as_rows(incoming.all()) == sorted(shown)


def test_rows_are_taken_apart_while_more_come() -> None:
    """One thread adds, another takes apart, the buffer grows: every row is there."""
    shown = [Shown(n, bytes(16), 0, features=bytes(n % 200)) for n in range(20_000)]
    whole, incoming = copied(shown), Incoming()
    with ThreadPoolExecutor(1) as other:
        parting = [other.submit(incoming.take_apart)]
        for nth, start in enumerate(range(0, len(whole), 10_007)):
            incoming.add(whole[start : start + 10_007])
            if nth % 64 == 63:
                parting[-1].result(timeout=60)
            if parting[-1].done():
                parting.append(other.submit(incoming.take_apart))
        for one in parting:
            one.result()
    assert len(parting) > 2
    assert as_rows(incoming.all()) == shown


def test_data_that_ends_inside_a_row_is_refused() -> None:
    """A COPY that was cut off, and one with something else in it, are not taken for whole."""
    whole = copied([Shown(1, bytes(16), 0, features=b"some")])
    for broken in (whole[:-5], whole[:-2], whole + b"\0", HEADER + b"\0" * 80 + TRAILER):
        with pytest.raises(ValueError, match="is not a row"):
            impressions(broken)


@pytest.mark.parametrize("copies", [1, 3])
def test_features_that_look_like_rows_are_features(copies: int) -> None:
    """A row is found by what comes before it, not by its looks."""
    inner = Shown(1, bytes(16), 0, features=b"inner")
    outer = [Shown(n, bytes(16), 0, features=row(inner) * copies) for n in range(5)]
    assert as_rows(impressions(copied(outer))) == outer


def test_rows_on_both_sides_of_a_slice_are_found() -> None:
    """Data that is searched in several slices has every row."""
    shown = [Shown(n, bytes(16), 0, features=bytes(n % 300)) for n in range(12_000)]
    assert len(copied(shown)) > 2 << 20
    assert as_rows(impressions(copied(shown))) == shown


def test_data_without_rows_is_empty() -> None:
    """A COPY of nothing gives nothing."""
    found = impressions(HEADER + TRAILER)
    assert (len(found.keys), len(found.features)) == (0, 0)
    assert len(clicks(HEADER + TRAILER)) == 0


@given(some_shown, some_shown, st.data())
def test_an_impression_is_clicked_when_a_click_has_its_whole_key(
    shown: list[Shown], others: list[Shown], data: st.DataObject
) -> None:
    """Clicks of the same time, decision or slot alone are those of other impressions."""
    both = shown + [one for one in others if one[:3] not in {each[:3] for each in shown}]
    chosen = data.draw(st.permutations(both))[: len(both) // 2]
    found = impressions(copied(shown))
    expected = [one[:3] in {each[:3] for each in chosen} for one in sorted(shown)]
    assert clicked(found.keys, clicks(copied_clicks(chosen))).tolist() == expected


def test_dtypes_are_as_promised() -> None:
    """Keys are of the machine's byte order whatever the wire has."""
    keys = impressions(copied([Shown(1, bytes(16), 2)])).keys
    assert isinstance(keys, Keys)
    found = [getattr(keys, name).dtype for name in ("time_us", "high", "low", "slot")]
    assert found == [np.int64, np.uint64, np.uint64, np.int16]
