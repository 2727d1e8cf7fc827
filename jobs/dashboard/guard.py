"""What every request to the dashboard passes first: origin, session, and headers on its answer."""

from __future__ import annotations

import secrets
from http.cookies import CookieError, SimpleCookie
from urllib.parse import quote

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from jobs.dashboard.sessions import COOKIE, Sessions

PUBLIC = ("/login", "/healthz", "/favicon.ico")
_ASSETS = "/_nicegui/"
_SAFE = ("GET", "HEAD")
_FIXED = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",  # with none, browsers would not say where a form came from
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
}


def policy(nonce: str) -> str:
    """The content security policy: nothing from elsewhere, no script that we did not put there.

    `unsafe-eval` is for Vue, which compiles its templates in the browser; inline styles are for
    Quasar and ECharts, which position what they draw.
    """
    return (
        "default-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; "
        f"script-src 'self' 'nonce-{nonce}' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
        "img-src 'self' data:; font-src 'self' data:; connect-src 'self'"
    )


class Guard:
    """Lets a request through when it comes from our own pages and someone is logged in.

    The session is in `scope["state"]["session"]` afterwards.
    """

    def __init__(self, app: ASGIApp, sessions: Sessions) -> None:
        self._app, self._sessions = app, sessions

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer it."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        state = scope.setdefault("state", {})
        state["session"] = self._sessions.find(_cookie(Headers(scope=scope)))
        refused = _refusal(scope)
        if scope["type"] == "websocket":
            if refused is None:
                await self._app(scope, receive, send)
            else:
                await send({"type": "websocket.close", "code": 1008})
            return
        answer = _Answer(scope, send)
        await (self._app if refused is None else refused)(scope, receive, answer)


def _refusal(scope: Scope) -> Response | None:
    """The answer to a request that may not pass; None for one that may."""
    headers, method = Headers(scope=scope), scope.get("method", "")
    if method not in _SAFE and not _is_same_origin(headers):
        return PlainTextResponse("This request comes from another site. Open the page anew.", 403)
    path: str = scope["path"]
    if path in PUBLIC or scope["state"]["session"] is not None:
        return None
    if method in _SAFE and "text/html" in headers.get("accept", ""):
        return RedirectResponse(
            login_for(path, scope.get("query_string", b"").decode("latin-1")), 303
        )
    return PlainTextResponse("Log in at /login first.", 401)


def login_for(path: str, query: str = "") -> str:
    """Where to log in for a page: the login leads there afterwards."""
    wanted = f"{path}?{query}" if query else path
    return "/login" if wanted == "/" else f"/login?next={quote(wanted, safe='')}"


def _is_same_origin(headers: Headers) -> bool:
    """Whether a form or a socket was opened by our own page: browsers always say where from."""
    _, _, host = headers.get("origin", "").partition("://")
    return bool(host) and host == headers.get("host")


def _cookie(headers: Headers) -> str | None:
    try:
        found = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
    except CookieError:
        return None
    return None if found is None else found.value


class _Answer:
    """Sends an answer with its security headers; scripts in a page of ours get the nonce."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self._send, self._nonce = send, secrets.token_urlsafe(16)
        self._is_asset = scope["path"].startswith(_ASSETS)
        self._start: Message | None = None
        self._page = b""
        if not self._is_asset:
            # Compressing secrets beside what a caller chose would leak them; and pages change here.
            kept = [pair for pair in scope["headers"] if pair[0] != b"accept-encoding"]
            scope["headers"] = kept

    async def __call__(self, message: Message) -> None:
        """Take one message of the application."""
        if message["type"] == "http.response.start":
            await self._started(message)
        elif self._start is not None and message["type"] == "http.response.body":
            self._page += message.get("body", b"")
            if not message.get("more_body"):
                await self._send_page(self._start)
        else:
            await self._send(message)

    async def _started(self, message: Message) -> None:
        headers = MutableHeaders(raw=message.setdefault("headers", []))
        for name, value in _FIXED.items():
            headers[name] = value
        headers["Content-Security-Policy"] = policy(self._nonce)
        if not self._is_asset:
            headers["Cache-Control"] = "no-store"
        if headers.get("content-type", "").startswith("text/html"):
            self._start = message  # its length is known once the page has its nonces
            return
        await self._send(message)

    async def _send_page(self, start: Message) -> None:
        # Whatever people have written stands escaped in a page, so each `<script` is a template's.
        page = self._page.replace(b"<script", f'<script nonce="{self._nonce}"'.encode())
        MutableHeaders(raw=start["headers"])["Content-Length"] = str(len(page))
        await self._send(start)
        await self._send({"type": "http.response.body", "body": page})
