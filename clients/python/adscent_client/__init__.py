"""A typed client of Adscent: `Client` and `AsyncClient`, with retries and tokens handled."""

from adscent_client import calls
from adscent_client.aio import AsyncClient
from adscent_client.answers import DecidedAd, Decision, Event
from adscent_client.call import Call
from adscent_client.client import Client
from adscent_client.errors import (
    AdscentError,
    AnswerInvalid,
    Conflict,
    Forbidden,
    Invalid,
    NotFound,
    Overloaded,
    ProblemError,
    RateLimited,
    Unauthorized,
    Unreachable,
)
from adscent_client.retrying import Retries
from adscent_client.sender import EventSender, Outcome

__all__ = [
    "AdscentError",
    "AnswerInvalid",
    "AsyncClient",
    "Call",
    "Client",
    "Conflict",
    "DecidedAd",
    "Decision",
    "Event",
    "EventSender",
    "Forbidden",
    "Invalid",
    "NotFound",
    "Outcome",
    "Overloaded",
    "ProblemError",
    "RateLimited",
    "Retries",
    "Unauthorized",
    "Unreachable",
    "calls",
]
