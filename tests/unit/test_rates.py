"""A key's bucket admits its rate and its burst, whatever the pattern of the requests."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.serving import rates
from app.serving.rates import Bucket


def test_a_silent_key_may_send_two_seconds_worth_at_once() -> None:
    """The 21st of 21 requests at one moment, at ten a second, has to wait for a tenth."""
    bucket = Bucket(10.0, 0.0)
    assert [bucket.wait_s(0.0) for _ in range(20)] == [0.0] * 20
    assert bucket.wait_s(0.0) == pytest.approx(0.1)


def test_after_the_told_wait_a_request_is_admitted() -> None:
    """Retry-After is true: no sooner, and then it is admitted."""
    bucket = Bucket(0.5, 0.0)
    assert bucket.wait_s(0.0) == 0.0
    wait_s = bucket.wait_s(0.0)
    assert bucket.wait_s(wait_s * 0.99) > 0.0
    assert bucket.wait_s(wait_s) == 0.0


@given(
    st.floats(0.1, 1000.0),
    st.lists(st.floats(0.0, 2.0), min_size=1, max_size=200),
)
def test_never_more_than_the_rate_and_the_burst(rate: float, gaps: list[float]) -> None:
    """In any time T at most rate · T and two seconds' worth (or one request) are admitted."""
    bucket, now_s, admitted = Bucket(rate, 0.0), 0.0, 0
    for gap in gaps:
        now_s += gap
        admitted += bucket.wait_s(now_s) == 0.0
        assert admitted <= rate * now_s + max(1.0, 2.0 * rate) + 1e-6


def test_a_bucket_survives_a_new_reading_of_the_keys() -> None:
    """What was used up stays used up, unless the rate changed; no rate is no bucket."""
    bucket = Bucket(5.0, 0.0)
    assert rates.kept(bucket, 5.0, 9.0) is bucket
    assert rates.kept(bucket, 6.0, 9.0) is not bucket
    assert rates.kept(bucket, 0.0, 9.0) is None


def test_a_check_costs_less_than_a_microsecond() -> None:
    """Every request pays it; the best of five rounds, since the machine does other work too."""
    bucket, took = Bucket(1e6, time.monotonic()), []
    for _ in range(5):
        started = time.thread_time()
        for _ in range(20_000):
            bucket.wait_s(time.monotonic())
        took.append((time.thread_time() - started) / 20_000)
    assert min(took) < 1e-6
