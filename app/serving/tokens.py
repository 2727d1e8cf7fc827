"""Decision tokens: what a decided ad's events will be trained on, sealed against the client.

A token is URL-safe base64 of: version byte, key id byte, 12-byte nonce, then AES-256-GCM of the
content, with the first two bytes authenticated. A browser can neither alter it nor read the price.
Nonces are random, so one key is good for 2³² tokens (NIST SP 800-38D, section 8.3); rotate it
before.

Content of version 1 is a MessagePack array, which is read fastest. Where that would make a token
longer than 300 characters it is version 2: numbers in fixed places without a byte in between.
"""

from __future__ import annotations

import binascii
import os
import struct
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from typing import Literal
from uuid import UUID

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from models.types import Event, EventType

TokenReason = Literal["malformed", "unknown_key", "forged", "expired"]

LONGEST = 300
"""Characters of the longest token of ten features with a value each and an ASCII placement."""
MAX_PLACEMENT = 32
"""Longest placement in characters: a token has to stay short enough for an URL."""
PLACEMENT_NAME = r"^[A-Za-z0-9_.:/-]*$"
"""What a placement is made of; empty for none."""
CLOCK_SKEW_MS = 60_000
"""How far ahead of this host's clock the deciding host's may be."""

_NONCE, _TAG, _HEAD = 12, 16, 2
_PLAIN, _TIGHT = 1, 2
_ROOM = LONGEST * 3 // 4 - _HEAD - _NONCE - _TAG
"""Bytes of content that make a token of 300 characters."""
_MAX_TEXT = 8192
_TO_STANDARD = bytes.maketrans(b"-_", b"+/")


class TokenInvalid(Exception):
    """A token that proves nothing: `reason` is why.

    `malformed`: not a token of a known version; `unknown_key`: its key is not (or no longer) known;
    `forged`: altered or sealed with another key; `expired`: outside its lifetime, too old or dated
    ahead of this clock by more than a minute.
    """

    def __init__(self, reason: TokenReason) -> None:
        super().__init__(f"the token is {reason}")
        self.reason: TokenReason = reason


class TokenContent(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """One decided ad. Money in micros, times in ms since 1970; `features` is packed.

    `placement` has at most 32 characters. `explored` tells a slot given to exploration.
    """

    decision_id: UUID
    decided_ms: int
    ad_id: int
    slot: int
    snapshot_id: UUID
    catalog_version: int
    price_micros: int
    propensity: float
    placement: str
    explored: bool
    features: bytes

    def event(
        self,
        kind: EventType,
        value_micros: int | None = None,
        quarantined_by: str | None = None,
    ) -> Event:
        """The event that this token proves."""
        return Event(
            kind,
            self.decided_ms,
            self.decision_id,
            self.slot,
            self.ad_id,
            self.snapshot_id,
            self.catalog_version,
            self.price_micros,
            self.propensity,
            self.placement,
            self.features,
            value_micros,
            quarantined_by,
        )


class Tokens:
    """Seals with the current key, opens with any known one. Safe to share between threads.

    `keys`: AES keys of 32 bytes by id (0 … 255); `current`: id of the key that seals;
    `lifetime_ms`: how long after its decision a token is good; `windows_ms`: how long it is for
    events of these types, where that is another time.
    """

    def __init__(
        self,
        keys: Mapping[int, bytes],
        current: int,
        lifetime_ms: int,
        windows_ms: Mapping[EventType, int] | None = None,
    ) -> None:
        self._ciphers = {key_id: AESGCM(key) for key_id, key in keys.items()}
        self._current = self._ciphers[current]
        self._heads = {version: bytes((version, current)) for version in (_PLAIN, _TIGHT)}
        self._lifetime_ms, self._windows_ms = lifetime_ms, windows_ms or {}
        self._encode = msgspec.msgpack.Encoder(uuid_format="bytes").encode
        self._decode = msgspec.msgpack.Decoder(TokenContent).decode

    def seal(self, content: TokenContent) -> str:
        """The token of one decided ad: at most 300 characters at ten features of a value each.

        Raises `OverflowError` for a number that has no room in a token that has to be short.
        """
        plain, head = self._encode(content), self._heads[_PLAIN]
        if len(plain) > _ROOM:
            plain, head = _tight(content), self._heads[_TIGHT]
        nonce = os.urandom(_NONCE)
        sealed = self._current.encrypt(nonce, plain, head)
        return urlsafe_b64encode(head + nonce + sealed).rstrip(b"=").decode("ascii")

    def open(self, token: str, now_ms: int, kind: EventType = "impression") -> TokenContent:
        """What a token proves of an event of this type at `now_ms`. Raises `TokenInvalid`."""
        content = self.read(token)
        if not self._is_timely(content, now_ms, kind):
            raise TokenInvalid("expired")
        return content

    def read(self, token: str) -> TokenContent:
        """What a genuine token says, however old it is. Raises `TokenInvalid`."""
        raw = _decoded(token)
        cipher = self._ciphers.get(raw[1])
        if cipher is None:
            raise TokenInvalid("unknown_key")
        try:
            plain = cipher.decrypt(raw[_HEAD : _HEAD + _NONCE], raw[_HEAD + _NONCE :], raw[:_HEAD])
        except InvalidTag as error:
            raise TokenInvalid("forged") from error
        return self._content(plain, raw[0])

    def _is_timely(self, content: TokenContent, now_ms: int, kind: EventType) -> bool:
        longest_ms = self._windows_ms.get(kind, self._lifetime_ms)
        return -CLOCK_SKEW_MS <= now_ms - content.decided_ms <= longest_ms

    def _content(self, plain: bytes, version: int) -> TokenContent:
        try:
            return self._decode(plain) if version == _PLAIN else _loose(plain)
        except (msgspec.MsgspecError, struct.error, ValueError) as error:
            raise TokenInvalid("malformed") from error


_FIXED = struct.Struct("<16s16sQQQQ")
_PROPENSITY = struct.Struct("<d")
_NUMBER, _TIME = (1 << 56) - 1, (1 << 48) - 1
_EXPLORED, _CERTAIN = 1, 2
_ids = msgspec.msgpack.Decoder(tuple[UUID, UUID]).decode  # a fifth of the time of UUID(bytes=…)


def _tight(content: TokenContent) -> bytes:
    """Two ids; four numbers of 56 or 48 bits, what is left of each holding a part of the slot, the
    flags, the length of the placement; a propensity below 1; the placement; the features.
    """
    ad_id, version, price = content.ad_id, content.catalog_version, content.price_micros
    decided, slot, placement = content.decided_ms, content.slot, content.placement.encode()
    if min(ad_id, version, price, decided, slot) < 0 or (ad_id | version | price) > _NUMBER:
        raise OverflowError("an id, a version or a price is negative or has more than 56 bits")
    if decided > _TIME or slot >> 16 or len(placement) >> 8:
        raise OverflowError(
            "the time has more than 48 bits, the slot 16, or the placement's size 8"
        )
    is_certain = content.propensity == 1.0
    fixed = _FIXED.pack(
        content.decision_id.bytes,
        content.snapshot_id.bytes,
        ad_id | (slot & 255) << 56,
        version | (slot >> 8) << 56,
        price | (_EXPLORED * content.explored | _CERTAIN * is_certain) << 56,
        decided | len(placement) << 48,
    )
    chance = b"" if is_certain else _PROPENSITY.pack(content.propensity)
    return b"".join((fixed, chance, placement, content.features))


def _loose(tight: bytes) -> TokenContent:
    """What `_tight` packed. Raises `struct.error` and `ValueError` for anything else."""
    decision, snapshot, first, second, third, fourth = _FIXED.unpack_from(tight)
    decision_id, snapshot_id = _ids(b"\x92\xc4\x10" + decision + b"\xc4\x10" + snapshot)
    flags, start, propensity = third >> 56, _FIXED.size, 1.0
    if not flags & _CERTAIN:
        (propensity,) = _PROPENSITY.unpack_from(tight, start)
        start += _PROPENSITY.size
    stop = start + (fourth >> 48)
    if fourth >> 56 or flags & ~(_EXPLORED | _CERTAIN) or stop > len(tight):
        raise ValueError("no content was packed like this")
    return TokenContent(
        decision_id,
        fourth & _TIME,
        first & _NUMBER,
        first >> 56 | second >> 56 << 8,
        snapshot_id,
        second & _NUMBER,
        third & _NUMBER,
        propensity,
        tight[start:stop].decode(),
        bool(flags & _EXPLORED),
        tight[stop:],
    )


def _decoded(token: str) -> bytes:
    """The bytes of a token of a known version, whole and canonically spelled."""
    try:
        if len(token) > _MAX_TEXT:
            raise TokenInvalid("malformed")
        text = token.encode("ascii")
        padded = text.translate(_TO_STANDARD) + b"=" * (-len(text) % 4)
        raw = binascii.a2b_base64(padded, strict_mode=True)
    except ValueError as error:
        raise TokenInvalid("malformed") from error
    if len(raw) < _HEAD + _NONCE + _TAG or raw[0] not in (_PLAIN, _TIGHT):
        raise TokenInvalid("malformed")
    # The last character has spare bits: two spellings of one token must not both pass.
    if urlsafe_b64encode(raw).rstrip(b"=") != text:
        raise TokenInvalid("malformed")
    return raw
