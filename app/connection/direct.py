"""The short way to the busiest calls: the same functions, without the framework's routing.

FastAPI resolves dependencies and serialises answers in general ways that these calls do not use.
Their routes stay in the application: they document the calls, and answer other methods.
"""

from __future__ import annotations

import time
from collections.abc import Iterable

from fastapi import Request, Response
from fastapi.routing import APIRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from app import errors
from app.connection.overload import Limiter


class Direct:
    """Calls the endpoint of a POST to one of some routes; everything else goes on to `app`.

    `routes`: those whose endpoint takes the request alone and returns the response; what
    cannot be answered in time the `limiter` refuses.
    """

    def __init__(self, app: ASGIApp, limiter: Limiter, routes: Iterable[APIRoute]) -> None:
        self._app, self._limiter = app, limiter
        self._routes = {route.path: route for route in routes}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, errors included, or pass the request on."""
        is_post = scope["type"] == "http" and scope["method"] == "POST"
        route = self._routes.get(scope["path"]) if is_post else None
        if route is None:
            await self._app(scope, receive, send)
            return
        scope["route"] = route
        response = self._limiter.refusal(scope) or await self._answer(route, scope, receive)
        await response(scope, receive, send)

    async def _answer(self, route: APIRoute, scope: Scope, receive: Receive) -> Response:
        started_s = time.perf_counter()
        request = Request(scope, receive)
        try:
            response: Response = await route.endpoint(request)
        except errors.KNOWN as error:
            return errors.answer_to(error)
        except Exception as error:  # as the framework's outermost layer does
            return errors.answer_to_unknown(request, error)
        self._limiter.served(route.path, time.perf_counter() - started_s)
        return response
