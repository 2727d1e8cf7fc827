"""Tokens open to what was sealed, and anything else is refused with its reason."""

from __future__ import annotations

import os
from base64 import urlsafe_b64decode, urlsafe_b64encode
from contextlib import suppress
from uuid import UUID

import msgspec
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from app.serving.tokens import (
    CLOCK_SKEW_MS,
    LONGEST,
    MAX_PLACEMENT,
    TokenContent,
    TokenInvalid,
    Tokens,
)

KEY, OTHER = bytes(range(32)), bytes(32)
NOW, LIFETIME = 1_790_000_000_000, 3_600_000
TOKENS = Tokens({3: KEY}, 3, LIFETIME)


def content(**changes: object) -> TokenContent:
    usual = TokenContent(
        decision_id=UUID(int=2**127 + 5),
        decided_ms=NOW,
        ad_id=2**53 - 1,
        slot=1,
        snapshot_id=UUID(int=2**126 + 9),
        catalog_version=123_456,
        price_micros=350_000,
        propensity=1.0,
        placement="home",
        explored=False,
        features=os.urandom(10 + 80),
    )
    return msgspec.structs.replace(usual, **changes)


def reason_of(token: str, now_ms: int = NOW, tokens: Tokens = TOKENS) -> str:
    with pytest.raises(TokenInvalid) as caught:
        tokens.open(token, now_ms)
    return caught.value.reason


def _raw(token: str) -> bytes:
    return urlsafe_b64decode(token + "=" * (-len(token) % 4))


def _text(raw: bytes) -> str:
    return urlsafe_b64encode(raw).rstrip(b"=").decode()


whole = st.integers(0, 2**53)
contents = st.builds(
    TokenContent,
    decision_id=st.uuids(),
    decided_ms=st.integers(NOW - LIFETIME, NOW),
    ad_id=whole,
    slot=st.integers(0, 32_767),
    snapshot_id=st.uuids(),
    catalog_version=whole,
    price_micros=whole,
    propensity=st.floats(0, 1),
    placement=st.text(max_size=32),
    explored=st.booleans(),
    features=st.binary(max_size=2000),
)


@given(contents)
def test_what_is_sealed_comes_back(sealed: TokenContent) -> None:
    """Opening a token gives the very content it was sealed with."""
    assert TOKENS.open(TOKENS.seal(sealed), NOW) == sealed


@given(contents.filter(lambda one: len(one.placement.encode()) <= MAX_PLACEMENT), st.data())
def test_a_token_at_ten_features_has_300_characters_at_most(
    drawn: TokenContent, data: st.DataObject
) -> None:
    """Ten features of a value each: short enough for an URL, whatever the numbers and the place."""
    ids = data.draw(st.binary(min_size=80, max_size=80))
    sealed = msgspec.structs.replace(drawn, features=bytes([1]) * 10 + ids)
    token = TOKENS.seal(sealed)
    assert len(token) <= LONGEST
    assert TOKENS.read(token) == sealed


def test_the_longest_token_at_ten_features_has_299_characters() -> None:
    """The largest of all numbers, a propensity below 1 and the longest placement together."""
    longest = content(
        slot=32_767,
        price_micros=2**53,
        catalog_version=2**53,
        placement="x" * 32,
        propensity=1e-9,
        explored=True,
    )
    assert len(TOKENS.seal(longest)) == 299
    assert TOKENS.read(TOKENS.seal(longest)) == longest


def test_a_short_token_is_of_the_first_version() -> None:
    """What fits is packed as it always was: servers of the version before read it as well."""
    assert _raw(TOKENS.seal(content()))[0] == 1
    assert _raw(TOKENS.seal(content(placement="x" * 32, slot=300)))[0] == 2


def test_a_long_token_of_the_first_version_still_opens() -> None:
    """Tokens in flight from before there was a second version are good to their end."""
    sealed, head, nonce = content(placement="x" * 32, slot=300), bytes((1, 3)), bytes(12)
    plain = msgspec.msgpack.Encoder(uuid_format="bytes").encode(sealed)
    token = _text(head + nonce + AESGCM(KEY).encrypt(nonce, plain, head))
    assert len(token) > LONGEST
    assert TOKENS.open(token, NOW) == sealed


@pytest.mark.parametrize(
    "changes",
    [
        {"ad_id": 2**56},
        {"price_micros": -1},
        {"catalog_version": 2**60},
        {"decided_ms": 2**48},
        {"slot": 2**16},
        {"placement": "é" * 128},
    ],
)
def test_a_number_without_room_is_not_sealed(changes: dict[str, object]) -> None:
    """A value that would run into another's place is refused, not cut."""
    with pytest.raises(OverflowError):
        TOKENS.seal(content(features=bytes(200), **changes))


def test_a_token_says_which_version_it_is() -> None:
    """A tight token under the head of a plain one, or the other way round, is forged."""
    for sealed, other in ((content(), 2), (content(features=bytes(200)), 1)):
        raw = bytearray(_raw(TOKENS.seal(sealed)))
        raw[0] = other
        assert reason_of(_text(bytes(raw))) == "forged"


def test_a_conversion_may_come_later_than_a_click() -> None:
    """Each type has a window of its own, counted from the decision."""
    tokens = Tokens({3: KEY}, 3, LIFETIME, {"conversion": 7 * LIFETIME})
    token = tokens.seal(content())
    assert tokens.open(token, NOW + 7 * LIFETIME, "conversion").slot == 1
    with pytest.raises(TokenInvalid, match="expired"):
        tokens.open(token, NOW + LIFETIME + 1, "click")


def test_a_genuine_token_is_read_at_any_age() -> None:
    """Where it leads does not depend on whether it still counts; a forged one is not read."""
    token = TOKENS.seal(content(decided_ms=0))
    assert TOKENS.read(token).ad_id == 2**53 - 1
    with pytest.raises(TokenInvalid, match="forged"):
        Tokens({3: OTHER}, 3, LIFETIME).read(token)


def test_a_token_is_safe_in_an_url() -> None:
    """Nothing in a token needs escaping."""
    assert all(c.isalnum() or c in "-_" for c in TOKENS.seal(content()))


@given(st.data())
def test_an_altered_character_is_refused(data: st.DataObject) -> None:
    """Any single character replaced by any other makes the token invalid."""
    token = TOKENS.seal(content())
    at = data.draw(st.integers(0, len(token) - 1))
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_ =+/é\0"
    new = data.draw(st.sampled_from(alphabet.replace(token[at], "")))
    assert reason_of(token[:at] + new + token[at + 1 :]) in {"forged", "malformed", "unknown_key"}


@given(st.integers(0, 255), st.integers(1, 255))
def test_an_altered_sealed_byte_is_forged(at: int, flip: int) -> None:
    """A changed byte behind the head fails the authentication."""
    token = TOKENS.seal(content())
    raw = bytearray(urlsafe_b64decode(token + "=" * (-len(token) % 4)))
    raw[2 + at % (len(raw) - 2)] ^= flip
    assert reason_of(urlsafe_b64encode(bytes(raw)).rstrip(b"=").decode()) == "forged"


def test_each_part_of_the_head_has_its_reason() -> None:
    """Another version is malformed, another key id unknown."""
    token = TOKENS.seal(content())
    raw = urlsafe_b64decode(token + "=" * (-len(token) % 4))
    heads = {bytes((3, 3)): "malformed", bytes((1, 4)): "unknown_key"}
    for head, reason in heads.items():
        assert reason_of(urlsafe_b64encode(head + raw[2:]).rstrip(b"=").decode()) == reason


def test_a_truncated_token_is_refused() -> None:
    """Every proper prefix is malformed or fails the authentication."""
    token = TOKENS.seal(content())
    reasons = {reason_of(token[:length]) for length in range(len(token))}
    assert reasons <= {"malformed", "forged"}


@given(st.one_of(st.binary(max_size=400).map(lambda b: urlsafe_b64encode(b).decode()), st.text()))
def test_random_text_is_refused(token: str) -> None:
    """Noise raises `TokenInvalid` and nothing else."""
    assert reason_of(token) in {"malformed", "unknown_key", "forged"}


def test_another_key_of_the_same_id_is_forged() -> None:
    """A token sealed elsewhere under our key id does not open."""
    assert reason_of(Tokens({3: OTHER}, 3, LIFETIME).seal(content())) == "forged"


def test_keys_rotate() -> None:
    """Tokens of the old key open while it is known, and are of an unknown key afterwards."""
    old = TOKENS.seal(content())
    rotated, later = Tokens({3: KEY, 4: OTHER}, 4, LIFETIME), Tokens({4: OTHER}, 4, LIFETIME)
    assert rotated.open(old, NOW).slot == 1
    assert later.open(rotated.seal(content()), NOW).slot == 1
    assert reason_of(old, tokens=later) == "unknown_key"


@pytest.mark.parametrize("age_ms", [LIFETIME + 1, -CLOCK_SKEW_MS - 1])
def test_a_token_outside_its_lifetime_is_expired(age_ms: int) -> None:
    """Too old, or dated ahead of our clock by more than the tolerated skew."""
    assert reason_of(TOKENS.seal(content()), NOW + age_ms) == "expired"


@pytest.mark.parametrize("age_ms", [LIFETIME, 0, -CLOCK_SKEW_MS])
def test_a_token_is_good_to_the_ends_of_its_lifetime(age_ms: int) -> None:
    """The ends are inclusive, the tolerated clock skew included."""
    assert TOKENS.open(TOKENS.seal(content()), NOW + age_ms).ad_id == 2**53 - 1


def test_an_authentic_token_with_other_content_is_malformed() -> None:
    """Content of another shape under our own key is refused, not half read."""
    head, nonce = bytes((1, 3)), bytes(12)
    for plain in (msgspec.msgpack.encode(["x"] * 11), msgspec.msgpack.encode([b"1"]), b"\xc1"):
        raw = head + nonce + AESGCM(KEY).encrypt(nonce, plain, head)
        assert reason_of(_text(raw)) == "malformed"


@given(st.binary(max_size=200))
def test_authentic_noise_of_the_second_version_is_refused_or_read(plain: bytes) -> None:
    """Whatever bytes our own key sealed, opening raises `TokenInvalid` or gives a content."""
    head, nonce = bytes((2, 3)), bytes(12)
    token = _text(head + nonce + AESGCM(KEY).encrypt(nonce, plain, head))
    with suppress(TokenInvalid):
        assert isinstance(TOKENS.read(token), TokenContent)


def test_the_event_of_a_token_carries_its_content() -> None:
    """The event has the decision's own fields, so training sees what serving saw."""
    sealed = content()
    event = sealed.event("click")
    assert event.type == "click"
    assert (event.decision_id, event.ad_id, event.features) == (
        sealed.decision_id,
        sealed.ad_id,
        sealed.features,
    )
    assert (event.price_micros, event.placement) == (sealed.price_micros, sealed.placement)
