"""No body of the size that is allowed keeps a worker busy for long, or brings it down."""

from __future__ import annotations

import time

import msgspec
import pytest

from app.api import body, schemas
from app.settings import Settings

_BYTES = Settings().max_body_bytes
_MANY = b",".join(b'"k%d":"v"' % number for number in range(150_000))

BODIES = {
    "lists in lists": b'{"user":{"geo":' + b"[" * _BYTES,
    "objects in objects": b'{"user":{"geo":' + b'{"a":' * (_BYTES // 5),
    "nested where nothing is known": b'{"x":' + b"[" * _BYTES,
    "an integer of two million digits": b'{"user":{},"slots":' + b"9" * _BYTES + b"}",
    "a value of as many": b'{"user":{"age":' + b"9" * _BYTES + b'},"slots":1}',
    "an exponent of as many": b'{"user":{"age":1e' + b"9" * _BYTES + b'},"slots":1}',
    "many keys": b'{"user":{' + _MANY + b'},"slots":1}',
    "many keys, the last one wrong": b'{"user":{' + _MANY + b',"z":{}},"slots":1}',
    "a key like a message of ours": b'{"' + b" - at `$." * (_BYTES // 9) + b'":1}',
    "a key of backquotes": b'{"' + b"`" * _BYTES + b'":1}',
    "one key again and again": b'{"user":{' + b'"a":1,' * 300_000 + b'"a":{}},"slots":1}',
    "a long list, the last one wrong": (
        b'{"user":{"interest":[' + b'"a",' * 400_000 + b'{}]},"slots":1}'
    ),
    "escapes": b'{"user":{"geo":"' + b"\\u0041" * (_BYTES // 6) + b'"},"slots":1}',
    "no UTF-8": b'{"user":{"geo":"' + b"\xff" * _BYTES + b'"},"slots":1}',
    "nothing but spaces": b" " * _BYTES,
}


@pytest.mark.parametrize("sent", BODIES.values(), ids=BODIES.keys())
def test_refusing_a_body_is_cheap(sent: bytes) -> None:
    """It is refused with a short explanation within half a second of the processor."""
    started = time.thread_time()
    with pytest.raises((msgspec.DecodeError, UnicodeDecodeError, RecursionError)) as refused:
        msgspec.json.decode(sent, type=schemas.DecisionRequest)
    fault = body.explain(refused.value, sent, schemas.DecisionRequest)
    assert time.thread_time() - started < 0.5
    assert len(msgspec.json.encode(fault)) < 1000
