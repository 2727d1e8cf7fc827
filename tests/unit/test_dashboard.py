"""What the dashboard is made of below its pages: sessions, the guard, samples, words."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any
from uuid import UUID

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from app.settings import Settings, from_environment
from app.storage.audit import AuditRow
from app.storage.snapshots import Promotion
from jobs.dashboard.attempts import Attempts
from jobs.dashboard.guard import Guard, login_for
from jobs.dashboard.login import inside
from jobs.dashboard.measured import History, Sample, parsed, percentile, rate
from jobs.dashboard.pages.snapshot import limit_of
from jobs.dashboard.readings import Picture
from jobs.dashboard.sessions import COOKIE, Session, Sessions
from jobs.dashboard.units import bid, exact_bid, figures, lasting, money, percent
from jobs.dashboard.words import changes, difference
from models.schema import GateSettings
from models.snapshot import Check

KEY, OTHER = UUID(int=1), UUID(int=2)
HERE = "http://dashboard"


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    """A clock at 0."""
    return Clock()


@pytest.fixture
def sessions(clock: Clock) -> Sessions:
    """Sessions of a minute."""
    return Sessions(clock, 60.0)


@pytest.fixture
def session(sessions: Sessions) -> Session:
    """Someone who is logged in."""
    return sessions.open(KEY, "ana", "adscent_secret")


def test_a_cookie_finds_its_session(sessions: Sessions, session: Session) -> None:
    """Until it expires."""
    assert sessions.find(sessions.cookie(session)) is session


def test_a_session_expires(sessions: Sessions, session: Session, clock: Clock) -> None:
    """After its lifetime no cookie finds it, and it is not live."""
    clock.now_s = 60.0
    assert sessions.find(sessions.cookie(session)) is None
    assert not sessions.is_live(session)


@given(forged=st.text(max_size=200))
def test_no_forged_cookie_finds_a_session(forged: str) -> None:
    """Whatever a browser sends that was not signed here."""
    sessions = Sessions(Clock(), 60.0)
    session = sessions.open(KEY, "ana", "adscent_secret")
    assert sessions.find(forged) is None
    assert sessions.find(f"{session.id}.{forged}") is None


def test_sessions_of_revoked_keys_end(sessions: Sessions, session: Session) -> None:
    """Those of other keys stay."""
    other = sessions.open(OTHER, "ben", "adscent_other")
    sessions.keep({OTHER})
    assert not sessions.is_live(session)
    assert sessions.is_live(other)


def test_a_session_does_not_print_its_secrets(session: Session) -> None:
    """So that none of them gets into a log."""
    shown = repr(session)
    assert session.secret not in shown
    assert session.csrf not in shown
    assert session.id not in shown


def test_failed_logins_make_one_wait(clock: Clock) -> None:
    """After five in a minute; another address need not wait; a minute later nobody has to."""
    attempts = Attempts(clock)
    for _ in range(5):
        assert attempts.wait_s("a") == 0.0
        attempts.fail("a")
    assert attempts.wait_s("a") == pytest.approx(60.0)
    assert attempts.wait_s("b") == 0.0
    clock.now_s = 60.0
    assert attempts.wait_s("a") == 0.0


def test_failed_logins_of_many_make_all_wait(clock: Clock) -> None:
    """Changing the address does not help for ever."""
    attempts = Attempts(clock)
    for number in range(100):
        attempts.fail(str(number))
    assert attempts.wait_s("someone") > 0.0


def _page(request: Request) -> Response:
    return HTMLResponse(f"<script>1</script>{request.state.session}")


def _ask(
    sessions: Sessions, method: str, path: str, session: Session | None, headers: Mapping[str, str]
) -> httpx.Response:
    routes = [Route("/login", _page), Route("/page", _page, methods=["GET", "POST"])]
    transport = httpx.ASGITransport(Guard(Starlette(routes=routes), sessions))
    cookies = {} if session is None else {COOKIE: sessions.cookie(session)}

    async def ask() -> httpx.Response:
        async with httpx.AsyncClient(transport=transport, base_url=HERE, cookies=cookies) as client:
            return await client.request(method, path, headers=headers)

    return asyncio.run(ask())


@pytest.mark.parametrize(
    ("headers", "status"), [({"Accept": "text/html"}, 303), ({"Accept": "application/json"}, 401)]
)
def test_nobody_passes_without_a_session(
    sessions: Sessions, headers: dict[str, str], status: int
) -> None:
    """A page leads to the login, anything else is refused."""
    assert _ask(sessions, "GET", "/page", None, headers).status_code == status


@pytest.mark.parametrize(
    ("origin", "status"), [(HERE, 200), ("http://elsewhere", 403), ("null", 403), (None, 403)]
)
def test_only_our_own_pages_may_send(
    sessions: Sessions, session: Session, origin: str | None, status: int
) -> None:
    """A form or a socket of another site is refused, also for someone who is logged in."""
    headers = {} if origin is None else {"Origin": origin}
    assert _ask(sessions, "POST", "/page", session, headers).status_code == status


def test_every_answer_has_the_security_headers(sessions: Sessions) -> None:
    """The scripts of a page carry the nonce that the policy names, a new one each time."""
    first, second = (_ask(sessions, "GET", "/login", None, {}) for _ in range(2))
    policy = first.headers["content-security-policy"]
    assert "frame-ancestors 'none'" in policy
    assert "default-src 'none'" in policy
    assert first.headers["x-content-type-options"] == "nosniff"
    assert first.headers["referrer-policy"] == "same-origin"
    assert first.headers["cache-control"] == "no-store"
    nonce = first.text.partition('nonce="')[2].partition('"')[0]
    assert f"'nonce-{nonce}'" in policy
    assert f"'nonce-{nonce}'" not in second.headers["content-security-policy"]


def test_a_socket_of_another_site_is_closed(sessions: Sessions, session: Session) -> None:
    """Before the application hears of it."""
    heard: list[Any] = []
    sent: list[Any] = []

    async def application(*given: Any) -> None:
        heard.append(given)

    async def send(message: Any) -> None:
        sent.append(message)

    async def connect(origin: str) -> None:
        cookie = f"{COOKIE}={sessions.cookie(session)}"
        headers = {"host": "dashboard", "origin": origin, "cookie": cookie}
        raw = [(name.encode(), value.encode()) for name, value in headers.items()]
        scope = {"type": "websocket", "path": "/_nicegui_ws/socket.io/", "headers": raw}
        await Guard(application, sessions)(scope, send, send)  # type: ignore[arg-type]

    asyncio.run(connect("http://elsewhere"))
    assert heard == []
    assert sent[0]["type"] == "websocket.close"
    asyncio.run(connect(HERE))
    assert len(heard) == 1


def _exposed(count: int, slow: int) -> str:
    name, route = "adscent_request_seconds", 'route="/v1/decisions"'
    return (
        f'# TYPE adscent_requests counter\nadscent_requests_total{{{route},status="200"}} {count}\n'
        f"# TYPE {name} histogram\n"
        f'{name}_bucket{{le="0.01",{route}}} {count - slow}\n'
        f'{name}_bucket{{le="0.02",{route}}} {count}\n{name}_bucket{{le="+Inf",{route}}} {count}\n'
        f"{name}_count{{{route}}} {count}\n{name}_sum{{{route}}} 1\n"
    )


def test_rates_and_percentiles_are_between_two_samples() -> None:
    """What was before the first sample does not count; replicas are summed."""
    first = parsed([_exposed(1000, 1000), _exposed(0, 0)], 0.0)
    last = parsed([_exposed(1050, 1000), _exposed(50, 2)], 10.0)
    assert rate(first, last, "adscent_requests_total", route="/v1/decisions") == 10.0
    assert percentile(first, last, 0.5) == pytest.approx(0.01 * 50 / 98)
    assert percentile(first, last, 0.99) == pytest.approx(0.015)


def test_a_restarted_process_has_no_rate() -> None:
    """A counter that is lower than before was reset."""
    first, last = parsed([_exposed(1000, 0)], 0.0), parsed([_exposed(10, 0)], 1.0)
    assert rate(first, last, "adscent_requests_total") is None
    assert rate(first, last, "unknown_total") is None


def test_samples_too_close_together_are_one() -> None:
    """Rates between them would be noise."""
    history = History()
    for at_s in (0.0, 0.1, 2.0):
        history.add(Sample(at_s))
    assert [last.at_s for _, last in history.spans] == [2.0]


def test_a_change_is_told_with_before_and_after() -> None:
    """Bids with their unit, what did not change not at all."""
    before = {"id": 42, "state": "active", "bid_micros": 350_000, "bid_type": "cpc", "version": 1}
    after = {**before, "state": "paused", "bid_micros": 400_000, "version": 2}
    told = difference(before, after)
    assert told == "state active → paused, bid 0.35 per click → 0.40 per click"
    assert difference(None, AuditRow(1, 0, "", "", "", None, None).after) == ""


@pytest.mark.parametrize(
    ("shown", "text"),
    [
        (money(0), "0.00"),
        (money(1_234_560_000), "1,234.56"),
        (money(40_000), "0.04"),
        (money(400_000), "0.40"),
        (money(1_200), "0.0012"),
        (bid(518_239, "cpc"), "0.52 per click"),
        (exact_bid(1_234_500, "cpc"), "1.2345 per click"),
        (figures(1e6), "1,000,000"),
        (figures(-9.035), "-9.035"),
        (bid(2_000_000, "cpm"), "2.00 per thousand"),
        (percent(0.0123), "1.23 %"),
        (lasting(3.2), "3.2 s"),
        (lasting(600), "10 min"),
        (lasting(None), "–"),
    ],
)
def test_numbers_have_units(shown: str, text: str) -> None:
    """As many digits as mean something, and a dash for nothing."""
    assert shown == text


def test_what_people_do_outlasts_many_runs() -> None:
    """Runs that pass one after the other are one row, on either side of what someone did."""
    promotions = [
        Promotion(n, UUID(int=n), "training", "training", 1000 * n) for n in range(60, 0, -1)
    ]
    paused = AuditRow(1, 10_500, "ana", "patch", "ad:7", {"state": "active"}, {"state": "paused"})
    found = changes(Picture(promotions=promotions, changes=[paused]), 14)
    assert [one.who for one in found] == ["training", "ana", "training"]
    assert found[0].what.startswith("50 snapshots passed the gate")
    assert found[0].target == f"/snapshots/{UUID(int=60)}"


def test_a_login_leads_to_the_page_that_was_asked_for(sessions: Sessions) -> None:
    """With what was searched there; the overview needs no telling."""
    found = _ask(sessions, "GET", "/page?q=a b", None, {"Accept": "text/html"})
    assert found.headers["location"] == "/login?next=%2Fpage%3Fq%3Da%2520b"
    assert login_for("/") == "/login"


@pytest.mark.parametrize(
    "wanted", ["", "http://elsewhere", "//elsewhere", "/\\elsewhere", "/logout", "/a\nb"]
)
def test_a_login_leads_nowhere_else(wanted: str) -> None:
    """Not to another site, and not out again."""
    assert inside(wanted) == "/"


@pytest.mark.parametrize(("value", "limit"), [(0.99, 0.8), (1.1, 1.25)])
def test_calibration_has_two_limits(value: float, limit: float) -> None:
    """Whichever the verdict names; only that one when the settings are no longer the same."""
    check = Check("calibration", value, limit, True, "")
    assert limit_of(check, GateSettings()) == "0.8 to 1.25"
    assert limit_of(check, GateSettings(0.5, 2.0, 0.02, 0.7, 1.3)) == f"{limit:g}"
    assert limit_of(Check("drift", 0.1, 3.0, True, ""), GateSettings()) == "3"


def test_the_port_is_a_setting() -> None:
    """And the address is this machine's own unless someone says otherwise."""
    assert Settings().dashboard_host == "127.0.0.1"
    assert from_environment({"ADSCENT_DASHBOARD_PORT": "9000"}).dashboard_port == 9000
