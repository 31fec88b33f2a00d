"""What must a trace be asked while a request runs? The headers by which whoever is behind us continues it.

All else of a trace is made by an observer when the request is over. Where tracing is off there is no trace, and what
the client sent (traceparent, tracestate, baggage) passes unchanged.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from middleware.exchange import Exchange
    from middleware.headers import RawHeaders
    from middleware.traffic_mirroring import MirrorRecord
    from middleware.upstream.outcome import Attempt


class RequestTrace(Protocol):
    """One request's trace, put into the Exchange by an observer. Its methods must not raise and must not block.

    It does not hold the Exchange that holds it: a request leaves no reference cycles.
    """

    @property
    def trace_id(self) -> str:
        """32 hexadecimal digits."""

    @property
    def is_sampled(self) -> bool:
        """Whether anybody will see it."""

    def attempt_headers(self, exchange: Exchange, attempt: Attempt, headers: RawHeaders) -> RawHeaders:
        """An attempt begins: its headers with those that name its span to the model server."""

    def copy_headers(self, exchange: Exchange, record: MirrorRecord, headers: RawHeaders) -> RawHeaders:
        """A copy for a mirror begins: its headers with those that name its span, in a trace of its own."""
