"""How does a request end that we could not serve? The closed list of reasons, and the one place that turns an error
into an answer.

A stage raises the named error where the fact is known. ErrorsMiddleware, the second stage, is the only place that maps
it to HTTP. The same reason goes into the answer's ``code``, the access log, the metric and the trace.
"""

from __future__ import annotations

import asyncio
import logging
import math
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, ClassVar

import orjson

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

    from discovery.snapshot import Refusal
    from middleware.exchange import Exchange

logger = logging.getLogger(__name__)


class Reason(StrEnum):
    """How a request ended; ``OK`` is not written anywhere, it is the absence of a reason."""

    OK = ""
    INVALID_BODY = "invalid_body"
    INVALID_MODEL = "invalid_model"
    INVALID_PATH = "invalid_path"
    MODEL_NOT_FOUND = "model_not_found"
    MISSING_MODEL = "missing_model"
    ROUTE_NOT_FOUND = "route_not_found"
    REQUEST_TIMEOUT = "request_timeout"
    HEADERS_TOO_LARGE = "headers_too_large"
    REQUEST_TOO_LARGE = "request_too_large"
    INVALID_BACKEND_REF = "invalid_backend_ref"
    INVALID_POLICY = "invalid_policy"
    UNSUPPORTED_FILTER = "unsupported_filter"
    UNSUPPORTED_POLICY = "unsupported_policy"
    RATE_LIMITED = "rate_limited"
    SATURATED = "saturated"
    NO_ENDPOINTS = "no_endpoints"
    OVERLOADED = "overloaded"
    UPSTREAM_UNAVAILABLE = "upstream_unavailable"
    UPSTREAM_PROTOCOL_ERROR = "upstream_protocol_error"
    UPSTREAM_TIMEOUT = "upstream_timeout"
    UPSTREAM_RESET = "upstream_reset"
    UPSTREAM_ERROR_EVENT = "upstream_error_event"
    CLIENT_CLOSED = "client_closed"
    # Not of the contract's list: what an operator injects for a drill must not be taken for a failure of the real ones.
    FAULT_INJECTED = "fault_injected"
    # Nor is this: a defect of ours, which must not look like any of the others.
    INTERNAL_ERROR = "internal_error"


@dataclass(frozen=True, slots=True)
class ReasonFacts:
    """The HTTP status of a reason and Envoy's response flag beside it ("" where Envoy has none)."""

    status: int
    flag: str = ""


REASONS: dict[Reason, ReasonFacts] = {
    Reason.OK: ReasonFacts(200),
    Reason.INVALID_BODY: ReasonFacts(400),
    Reason.INVALID_MODEL: ReasonFacts(400),
    Reason.INVALID_PATH: ReasonFacts(400),
    Reason.MODEL_NOT_FOUND: ReasonFacts(404, "NR"),
    Reason.MISSING_MODEL: ReasonFacts(400, "NR"),
    Reason.ROUTE_NOT_FOUND: ReasonFacts(404, "NR"),
    Reason.REQUEST_TIMEOUT: ReasonFacts(408),
    Reason.HEADERS_TOO_LARGE: ReasonFacts(431),
    Reason.REQUEST_TOO_LARGE: ReasonFacts(413),
    Reason.INVALID_BACKEND_REF: ReasonFacts(500, "NC"),
    Reason.INVALID_POLICY: ReasonFacts(500, "NC"),
    Reason.UNSUPPORTED_FILTER: ReasonFacts(500, "NC"),
    Reason.UNSUPPORTED_POLICY: ReasonFacts(500, "NC"),
    Reason.RATE_LIMITED: ReasonFacts(429, "RL"),
    Reason.SATURATED: ReasonFacts(429, "RL"),
    Reason.NO_ENDPOINTS: ReasonFacts(503, "UH"),
    Reason.OVERLOADED: ReasonFacts(503, "UO"),
    Reason.UPSTREAM_UNAVAILABLE: ReasonFacts(503, "UF"),
    Reason.UPSTREAM_PROTOCOL_ERROR: ReasonFacts(502, "UPE"),
    Reason.UPSTREAM_TIMEOUT: ReasonFacts(504, "UT"),
    Reason.UPSTREAM_RESET: ReasonFacts(502, "UC"),
    Reason.UPSTREAM_ERROR_EVENT: ReasonFacts(200),
    Reason.CLIENT_CLOSED: ReasonFacts(499, "DC"),
    Reason.FAULT_INJECTED: ReasonFacts(503, "FI"),  # and whatever other status the policy says
    Reason.INTERNAL_ERROR: ReasonFacts(500),
}


class GatewayError(Exception):
    """A request that ends with an answer of ours. The message is for the client: no prompt, no credential, no
    secret."""

    reason: ClassVar[Reason]
    param: str | None = None
    retry_after_seconds: float | None = None
    closes: bool = False  # the connection cannot be used for another request
    flag: str | None = None  # where one reason has several of Envoy's flags

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

    @property
    def status(self) -> int:
        """The HTTP status that the reason has in the contract."""
        return REASONS[self.reason].status


class InvalidBodyError(GatewayError):
    """The body does not parse as what its content type says it is."""

    reason = Reason.INVALID_BODY


class InvalidModelError(GatewayError):
    """``model`` is there and is not a usable name."""

    reason = Reason.INVALID_MODEL
    param = "model"


class InvalidPathError(GatewayError):
    """The path has dot segments, encoded slashes, backslashes or NUL: two parties could read it differently."""

    reason = Reason.INVALID_PATH


class ModelNotFoundError(GatewayError):
    """No rule takes this model."""

    reason = Reason.MODEL_NOT_FOUND
    param = "model"


class MissingModelError(GatewayError):
    """No rule takes this request, and it is a POST that names no model."""

    reason = Reason.MISSING_MODEL
    param = "model"


class RouteNotFoundError(GatewayError):
    """No rule takes this request, and it has no model to blame."""

    reason = Reason.ROUTE_NOT_FOUND


class RequestTimeoutError(GatewayError):
    """The client stopped sending in the middle of its request."""

    reason = Reason.REQUEST_TIMEOUT
    closes = True


class RequestTooLargeError(GatewayError):
    """The body is over the listener's limit."""

    reason = Reason.REQUEST_TOO_LARGE
    closes = True


class RefusedByConfigurationError(GatewayError):
    """What the configuration says about this rule or backendRef cannot be served; says so instead of serving less."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.message)
        self.reason = Reason(refusal.reason)  # type: ignore[misc]  # one error class for the four reasons of this kind


class RateLimitedError(GatewayError):
    """A local rate limit has no token left for this request."""

    reason = Reason.RATE_LIMITED

    def __init__(self, message: str, *, retry_after_seconds: float) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class SaturatedError(GatewayError):
    """The pool is full, and the request's priority says that it can wait."""

    reason = Reason.SATURATED
    retry_after_seconds = 1.0


class FaultInjectedError(GatewayError):
    """A policy's faultInjection.abort, with the status that it says."""

    reason = Reason.FAULT_INJECTED

    def __init__(self, status: int) -> None:
        super().__init__("This failure was injected by the operator of the gateway.")
        self._status = status

    @property
    def status(self) -> int:
        return self._status


class NoEndpointsError(GatewayError):
    """The backend is known and has no endpoint that takes requests now."""

    reason = Reason.NO_ENDPOINTS
    retry_after_seconds = 5.0


class OverloadedError(GatewayError):
    """A limit of ours is reached; nothing was sent upstream."""

    reason = Reason.OVERLOADED
    retry_after_seconds = 1.0


class UpstreamUnavailableError(GatewayError):
    """Every attempt failed before the first byte."""

    reason = Reason.UPSTREAM_UNAVAILABLE


class UpstreamProtocolError(GatewayError):
    """The upstream's answer is not HTTP as we understand it."""

    reason = Reason.UPSTREAM_PROTOCOL_ERROR


class UpstreamTimeoutError(GatewayError):
    """A time limit passed, before the first byte or after."""

    reason = Reason.UPSTREAM_TIMEOUT


class UpstreamResetError(GatewayError):
    """The answer broke off after its first byte."""

    reason = Reason.UPSTREAM_RESET


class InternalError(GatewayError):
    """A defect of the gateway; the log has its traceback."""

    reason = Reason.INTERNAL_ERROR


def error_type(status: int) -> str:
    """The ``type`` that SDKs expect beside an HTTP status."""
    if status == 429:
        return "rate_limit_error"
    return "invalid_request_error" if status < 500 else "server_error"


def error_body(error: GatewayError) -> bytes:
    """The JSON of an error: OpenAI's SDKs read ``error``, Anthropic's also the outer ``type``."""
    return orjson.dumps(
        {
            "type": "error",
            "error": {
                "message": error.message,
                "type": error_type(error.status),
                "param": error.param,
                "code": error.reason.value,
            },
        }
    )


def error_event(error: GatewayError) -> bytes:
    """The same as a server-sent event, for a stream whose head is already with the client."""
    return b"event: error\ndata: " + error_body(error) + b"\n\n"


async def send_error(error: GatewayError, send: Send) -> None:
    """Answer with ``error``."""
    body = error_body(error)
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    if error.retry_after_seconds is not None:
        headers.append((b"retry-after", b"%d" % max(1, math.ceil(error.retry_after_seconds))))
    if error.closes:
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})


class ErrorsMiddleware:
    """Turns what the stages behind it raise into the answer and into the exchange's reason."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange: Exchange = scope["pointsman.exchange"]
        try:
            await self.app(scope, receive, send)
        except GatewayError as error:
            exchange.fail(error)
            if exchange.status is None:
                await send_error(error, send)
        except asyncio.CancelledError:
            # The server cancels this task when the client leaves, and marks the exchange. Any other cancellation
            # is not ours to end.
            if exchange.client_left:
                exchange.reason, exchange.flag = Reason.CLIENT_CLOSED, REASONS[Reason.CLIENT_CLOSED].flag
            elif exchange.is_cut_by_shutdown and exchange.status is None:
                cut = UpstreamUnavailableError("The gateway is shutting down.")
                exchange.fail(cut)
                await send_error(cut, send)
            else:
                raise
        except Exception:
            logger.exception("request %s failed on a defect of the gateway", exchange.request_id)
            defect = InternalError("the gateway failed; its log has the details")
            exchange.fail(defect)
            if exchange.status is None:
                await send_error(defect, send)
