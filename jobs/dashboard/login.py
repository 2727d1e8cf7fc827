"""Logging in and out: plain forms, so that they work before any script of ours is loaded."""

from __future__ import annotations

import hashlib
import hmac
import math
import secrets
from html import escape
from urllib.parse import parse_qs

import structlog
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from app.storage import keys
from app.storage.engine import Database
from app.storage.errors import StorageError
from app.storage.keys import ApiKey
from jobs.dashboard.attempts import Attempts
from jobs.dashboard.sessions import COOKIE, Session, Sessions
from jobs.dashboard.style import LOGIN_STYLE

_FORM_COOKIE = "adscent_login"
_FORM_S = 3600
_MOST_BYTES = 4096
_log = structlog.get_logger("dashboard")
_WRONG = (
    "No key with the scope admin has this secret. `adscent keys create NAME --scope admin` makes"
    " one; it is shown once."
)


class Login:
    """The pages of logging in and out.

    `started`: what a first login waits for, such as the database.
    """

    def __init__(self, database: Database, sessions: Sessions, attempts: Attempts) -> None:
        self._database, self._sessions, self._attempts = database, sessions, attempts

    def routes(self) -> list[Route]:
        """`GET` and `POST /login`, `POST /logout`, `GET /healthz`."""
        return [
            Route("/login", self._form, methods=["GET"]),
            Route("/login", self._enter, methods=["POST"]),
            Route("/logout", self._leave, methods=["POST"]),
            Route("/healthz", _alive, methods=["GET"]),
        ]

    async def _form(self, request: Request) -> Response:
        wanted = inside(request.query_params.get("next", ""))
        if request.state.session is not None:
            return RedirectResponse(wanted, 303)
        return self._page(request, wanted=wanted)

    async def _enter(self, request: Request) -> Response:
        form = await _fields(request)
        if form is None or not self._is_own_form(request, form):
            return self._page(request, "This form was too old or not ours. Try again.", 403)
        address = "" if request.client is None else request.client.host
        wanted, wait_s = inside(form.get("next", "")), math.ceil(self._attempts.wait_s(address))
        if wait_s > 0:
            text = f"Too many wrong keys. Wait {wait_s} s, then try again."
            page = self._page(request, text, 429, wanted)
            page.headers["Retry-After"] = str(wait_s)
            return page
        return await self._admitted(request, form.get("key", ""), address, wanted)

    async def _admitted(self, request: Request, secret: str, address: str, wanted: str) -> Response:
        try:
            key = await _admin_key(self._database, secret)
        except StorageError as error:
            text = f"The database does not answer, so no key can be checked: {error}"
            return self._page(request, text, 503, wanted)
        if key is None:
            self._attempts.fail(address)
            _log.warning("login_refused", address=address)
            return self._page(request, _WRONG, 401, wanted)
        session = self._sessions.open(key.id, key.name, secret)
        _log.info("logged_in", key=str(key.id), address=address)
        answer = RedirectResponse(wanted, 303)
        _set(answer, request, COOKIE, self._sessions.cookie(session), None)
        answer.delete_cookie(_FORM_COOKIE)
        return answer

    async def _leave(self, request: Request) -> Response:
        session: Session | None = request.state.session
        form = await _fields(request)
        if session is None or form is None:
            return RedirectResponse("/login", 303)
        if not hmac.compare_digest(form.get("csrf", "").encode(), session.csrf.encode()):
            return PlainTextResponse("This form was not ours. Open the page anew.", 403)
        self._sessions.close(session)
        answer = RedirectResponse("/login", 303)
        answer.delete_cookie(COOKIE)
        return answer

    def _is_own_form(self, request: Request, form: dict[str, str]) -> bool:
        nonce = request.cookies.get(_FORM_COOKIE, "")
        return bool(nonce) and self._sessions.signed(nonce, form.get("csrf", ""))

    def _page(
        self, request: Request, fault: str = "", status: int = 200, wanted: str = "/"
    ) -> Response:
        nonce = secrets.token_urlsafe(24)
        page = HTMLResponse(_markup(self._sessions.sign(nonce), fault, wanted), status)
        _set(page, request, _FORM_COOKIE, nonce, _FORM_S)
        return page


def inside(wanted: str) -> str:
    """The page to go to after the login: one of ours, or the overview. Never another site."""
    is_ours = wanted.startswith("/") and not wanted.startswith(("//", "/login", "/logout"))
    is_plain = "\\" not in wanted and wanted.isprintable()
    return wanted if is_ours and is_plain else "/"


def no_such_page() -> Response:
    """What stands where there is nothing, with a way back."""
    told = "There is no such page here. Ads and snapshots are found on the pages of that name."
    form = f'<form method="get" action="/"><p>{told}</p><button>To the overview</button></form>'
    return HTMLResponse(_document("No such page", form), 404)


async def _alive(_request: Request) -> Response:
    return PlainTextResponse("alive")


async def _admin_key(database: Database, secret: str) -> ApiKey | None:
    """The key of this secret when it is good for administration."""
    found = await keys.verify(database, secret.strip())
    if found is None or "admin" not in found.scopes:
        return None
    digest = hashlib.sha256(secret.strip().encode()).digest()
    return found if hmac.compare_digest(digest, found.sha256) else None


async def _fields(request: Request) -> dict[str, str] | None:
    """The fields of a form; None for what is none."""
    content = b""
    async for part in request.stream():
        content += part
        if len(content) > _MOST_BYTES:
            return None
    try:
        return {name: values[0] for name, values in parse_qs(content.decode("ascii")).items()}
    except ValueError:
        return None


def _set(answer: Response, request: Request, name: str, value: str, age_s: int | None) -> None:
    is_secure = request.url.scheme == "https"
    answer.set_cookie(
        name, value, max_age=age_s, httponly=True, samesite="strict", secure=is_secure, path="/"
    )


def _document(title: str, form: str) -> str:
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title} · Adscent</title><style>{LOGIN_STYLE}</style></head><body><main>"
        f"<h1>Adscent</h1>{form}</main></body></html>"
    )


def _markup(csrf: str, fault: str, wanted: str) -> str:
    told = f'<p class="fault" role="alert">{_code(fault)}</p>' if fault else ""
    return _document(
        "Log in",
        '<form method="post" action="/login"><p>Log in with an API key that has the scope'
        " <code>admin</code>. What you change here is recorded under its name.</p>"
        f'<input type="hidden" name="csrf" value="{escape(csrf)}">'
        f'<input type="hidden" name="next" value="{escape(wanted)}">'
        '<input type="text" autocomplete="username" value="adscent" hidden>'
        '<label for="key">API key</label>'
        '<input id="key" name="key" type="password" autocomplete="current-password" required'
        f' autofocus placeholder="adscent_…">{told}<button>Log in</button>'
        "<details><summary>I have no key</summary><p>On the server:"
        " <code>adscent keys create me --scope admin</code></p></details></form>",
    )


def _code(text: str) -> str:
    """Escaped text in which what stands between backticks is code."""
    parts = escape(text).split("`")
    return "".join(f"<code>{part}</code>" if at % 2 else part for at, part in enumerate(parts))
