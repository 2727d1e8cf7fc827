"""Settings are read from the environment; what cannot be used is refused with the remedy."""

from __future__ import annotations

import socket
from contextlib import closing

import pytest

from app.settings import AddressUnavailable, SettingInvalid, from_environment, listening


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ADSCENT_RETRAIN_EVERY_S", "nan"),
        ("ADSCENT_RETRAIN_EVERY_S", "inf"),
        ("ADSCENT_RETRAIN_EVERY_S", "0"),
        ("ADSCENT_HORIZON_EVERY_S", "0"),
        ("ADSCENT_RETENTION_EVERY_S", "0"),
        ("ADSCENT_CATALOG_POLL_S", "0"),
        ("ADSCENT_TOKEN_LIFETIME_S", "0"),
        ("ADSCENT_ATTRIBUTION_WINDOW_S", "-1"),
        ("ADSCENT_PORT", "65536"),
        ("ADSCENT_METRICS_PORT", "-1"),
        ("ADSCENT_JOBS_METRICS_PORT", "http"),
        ("ADSCENT_WORKERS", "0"),
        ("ADSCENT_DATABASE_POOL", "0"),
        ("ADSCENT_EVENT_BUFFER", "0"),
        ("ADSCENT_SNAPSHOTS_KEPT", "0"),
        ("ADSCENT_EVENT_RETENTION_DAYS", "0"),
        ("ADSCENT_EVENT_RETENTION_DAYS", "99999999"),
        ("ADSCENT_CANARY_SHARE", "1.5"),
        ("ADSCENT_CANARY_SHARE", "0.9"),
        ("ADSCENT_CANARY_CALIBRATION", "0.9"),
        ("ADSCENT_COMPARE_EVERY_S", "0"),
        ("ADSCENT_LOG_LEVEL", "loud"),
        ("ADSCENT_LOG_REQUESTS", "2"),
        ("ADSCENT_KEY_REQUESTS_PER_S", "-1"),
        ("ADSCENT_REQUEST_TIMEOUT_S", "0"),
        ("ADSCENT_OTEL_ENDPOINT", "collector:4318"),
    ],
)
def test_useless_value_is_refused(name: str, value: str) -> None:
    """The message has the variable, the value, the limit and the remedy, on one line."""
    with pytest.raises(SettingInvalid) as raised:
        from_environment({name: value})
    message = str(raised.value)
    assert message.startswith(f"{name}={value!r} is not allowed: it must be ")
    assert "unset it" in message
    assert "\n" not in message


def test_values_at_the_limits_are_taken() -> None:
    """Port 0 is any port, a window of 0 s attributes nothing later, levels have no case."""
    read = from_environment(
        {
            "ADSCENT_PORT": "0",
            "ADSCENT_METRICS_PORT": "65535",
            "ADSCENT_WORKERS": "1",
            "ADSCENT_ATTRIBUTION_WINDOW_S": "0",
            "ADSCENT_LOG_LEVEL": "INFO",
            "ADSCENT_CANARY_SHARE": "0.5",
        }
    )
    assert (read.port, read.metrics_port, read.workers) == (0, 65535, 1)
    assert (read.attribution_window_s, read.log_level) == (0.0, "info")
    assert read.canary_share == 0.5


def test_limits_are_written_out() -> None:
    """A limit below one or of ten digits is neither rounded nor shortened."""
    with pytest.raises(SettingInvalid, match=r"at least 0 and at most 0\.5\. "):
        from_environment({"ADSCENT_CANARY_SHARE": "0.9"})
    with pytest.raises(SettingInvalid, match=r"at least 1 and at most 2147483647\. "):
        from_environment({"ADSCENT_CONNECTIONS": "0"})


def test_every_fault_is_named_at_once() -> None:
    """Unknown names and useless values together, a line each."""
    given = {"ADSCENT_WORKERS": "0", "ADSCENT_PROT": "1", "ADSCENT_CANARY_SHARE": "0.9"}
    with pytest.raises(SettingInvalid) as raised:
        from_environment(given)
    lines = str(raised.value).splitlines()
    assert len(lines) == 3
    assert all(sum(line.startswith(name) for line in lines) == 1 for name in given)


def test_prefixed_database_url_is_refused() -> None:
    """It would be ignored and another database used: the message names the right variable."""
    with pytest.raises(SettingInvalid, match="Set DATABASE_URL") as raised:
        from_environment({"ADSCENT_DATABASE_URL": "postgresql://u:secret@h/d"})
    assert "secret" not in str(raised.value)
    with pytest.raises(SettingInvalid) as unknown:
        from_environment({"ADSCENT_PROT": "1"})
    assert "ADSCENT_DATABASE_URL" not in str(unknown.value)


@pytest.mark.parametrize(
    "url",
    [
        "mysql://u:secret@h/d",
        "postgresql://u:secret@h:port/d",
        "postgresql://u:secret@h:0/d",
        "postgresql://u:secret@h:65536/d",
        "postgresql://u:secret@[::1/d",
        "postgresql://u:secret/x@h/d",
        "host=h password=secret",
    ],
)
def test_database_url_of_another_form_is_refused(url: str) -> None:
    """The message names the variable and the form, and never a part of the URL."""
    with pytest.raises(SettingInvalid, match=r"^DATABASE_URL .*postgresql://USER") as raised:
        from_environment({"DATABASE_URL": url})
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:p@h:5432/d",
        "postgres://h/d",
        "postgresql+asyncpg://u:p%2Fx@[::1]:6432/d?sslmode=require",
        "postgresql://u:p@a:5432,b:5433/d",
        "postgresql:///d?host=/var/run/postgresql",
        "",
    ],
)
def test_database_urls_of_postgres_are_taken(url: str) -> None:
    """Every form that the driver takes, several hosts and sockets included."""
    assert from_environment({"DATABASE_URL": url}).database_url == url


def test_port_in_use_is_named_with_the_remedy() -> None:
    """The address and the variables that change it."""
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(AddressUnavailable) as raised, closing(socket.socket()) as other:  # noqa: SIM117
            with listening("127.0.0.1", port, "ADSCENT_JOBS_METRICS_"):
                other.bind(("127.0.0.1", port))
    message = str(raised.value)
    assert f"127.0.0.1:{port}" in message
    assert "ADSCENT_JOBS_METRICS_PORT (or ADSCENT_METRICS_HOST)" in message
