"""Decision tokens: what a decided ad's events will be trained on, sealed against the client.

A token is URL-safe base64 of: version byte, key id byte, 12-byte nonce, then AES-256-GCM of a
MessagePack array, with the first two bytes authenticated. A browser can neither alter it nor read
the price. Nonces are random, so one key is good for 2³² tokens (NIST SP 800-38D, section 8.3);
rotate it before.
"""

from __future__ import annotations

import binascii
import os
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from typing import Literal
from uuid import UUID

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from models.types import Event, EventType

TokenReason = Literal["malformed", "unknown_key", "forged", "expired"]

VERSION = 1
MAX_PLACEMENT = 32
"""Longest placement in characters: a token has to stay short enough for an URL."""
CLOCK_SKEW_MS = 60_000
"""How far ahead of this host's clock the deciding host's may be."""

_NONCE, _TAG, _HEAD = 12, 16, 2
_MAX_TEXT = 8192
_TO_STANDARD = bytes.maketrans(b"-_", b"+/")


class TokenInvalid(Exception):
    """A token that proves nothing: `reason` is why.

    `malformed`: not a token of this version; `unknown_key`: its key is not (or no longer) known;
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
        self._current, self._head = self._ciphers[current], bytes((VERSION, current))
        self._lifetime_ms, self._windows_ms = lifetime_ms, windows_ms or {}
        self._encode = msgspec.msgpack.Encoder(uuid_format="bytes").encode
        self._decode = msgspec.msgpack.Decoder(TokenContent).decode

    def seal(self, content: TokenContent) -> str:
        """The token of one decided ad: at most 300 characters at ten features, short placement."""
        nonce = os.urandom(_NONCE)
        sealed = self._current.encrypt(nonce, self._encode(content), self._head)
        return urlsafe_b64encode(self._head + nonce + sealed).rstrip(b"=").decode("ascii")

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
        return self._content(plain)

    def _is_timely(self, content: TokenContent, now_ms: int, kind: EventType) -> bool:
        longest_ms = self._windows_ms.get(kind, self._lifetime_ms)
        return -CLOCK_SKEW_MS <= now_ms - content.decided_ms <= longest_ms

    def _content(self, plain: bytes) -> TokenContent:
        try:
            return self._decode(plain)
        except (msgspec.MsgspecError, ValueError) as error:
            raise TokenInvalid("malformed") from error


def _decoded(token: str) -> bytes:
    """The bytes of a token of this version, whole and canonically spelled."""
    try:
        if len(token) > _MAX_TEXT:
            raise TokenInvalid("malformed")
        text = token.encode("ascii")
        padded = text.translate(_TO_STANDARD) + b"=" * (-len(text) % 4)
        raw = binascii.a2b_base64(padded, strict_mode=True)
    except ValueError as error:
        raise TokenInvalid("malformed") from error
    if len(raw) < _HEAD + _NONCE + _TAG or raw[0] != VERSION:
        raise TokenInvalid("malformed")
    # The last character has spare bits: two spellings of one token must not both pass.
    if urlsafe_b64encode(raw).rstrip(b"=") != text:
        raise TokenInvalid("malformed")
    return raw
