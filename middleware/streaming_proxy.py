"""How does the answer get to the client? Tries upstreams until one answers, then relays its bytes as they come.

The head of an answer is held until the first byte of its body: model servers send it while the request still queues,
and until then everything can be tried again elsewhere. After it, what breaks is said inside the stream where that is
possible and the connection is cut; an answer never ends cleanly that did not end cleanly upstream.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable

import httpx
from starlette.types import Receive, Scope, Send

from discovery.rule_policy import RulePolicy
from middleware.answer_stream import LAST_WORDS_BYTES, is_event_stream, is_mid_event, read_last_words
from middleware.errors import (
    GatewayError,
    NoEndpointsError,
    Reason,
    UpstreamProtocolError,
    UpstreamResetError,
    UpstreamTimeoutError,
    UpstreamUnavailableError,
    error_event,
)
from middleware.exchange import Exchange
from middleware.headers import answer_headers, find_header, upstream_headers
from middleware.model_names import names_for, without_length
from middleware.model_rewriting import Outgoing, outgoing
from middleware.retrying import is_keep_alive_race, may_retry, parse_retry_after, wait_before
from middleware.targets import upstream_target
from middleware.upstream.breaker import NO_PERMIT
from middleware.upstream.outcome import Attempt, Outcome
from middleware.upstream.registry import Pick
from middleware.upstream.transport import Timeouts, UpstreamStream

_TAIL_CHUNKS = 16


class StreamingProxyMiddleware:
    """The last stage: asks `next_pick` before each attempt, and relays the first answer that may not be retried."""

    def __init__(
        self,
        *,
        draw: Callable[[], float] = random.random,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.draw = draw
        self.sleep = sleep
        self.clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange: Exchange = scope["pointsman.exchange"]
        assert exchange.rule is not None
        assert exchange.rule_traffic is not None
        policy = exchange.rule.policy
        traffic = exchange.rule_traffic
        clock = self.clock
        deadline = None
        if policy.request_timeout_seconds is not None:
            deadline = exchange.started_at + policy.request_timeout_seconds
        attempts = exchange.attempts
        pick = self._pick(exchange)
        is_fresh = False
        retry = traffic.retry_permit(policy.limits)
        try:
            while True:
                sent = outgoing(exchange, pick.backend_ref)
                attempt = Attempt(
                    pick=pick,
                    started_at=clock(),
                    pick_seconds=exchange.pick_seconds,
                    model=sent.model if sent.is_drawn else None,
                )
                attempts.append(attempt)
                attempt.permit = pick.upstream.breaker(policy.passive_health).acquire()
                pick.upstream.begin()
                try:
                    answer = await self._attempt(exchange, attempt, sent, policy, deadline=deadline, is_fresh=is_fresh)
                    del sent  # it holds the body, which a stream must not keep
                    try:
                        wait = None
                        if may_retry(policy.retry, attempts) and retry.take():
                            _report(attempt, policy)  # now, so that the next pick sees an ejection
                            retry_after = parse_retry_after(find_header(answer.headers, b"retry-after"))
                            next_pick, wait = self._next(exchange, retry_after, deadline, clock())
                        if wait is None:
                            retry.release()
                            can_add_events = scope["http_version"] == "1.1"
                            await self._relay(exchange, attempt, answer, send, can_add_events=can_add_events)
                            return
                    finally:
                        answer.stream.release()
                except httpx.TransportError as error:
                    if is_keep_alive_race(error, attempts):
                        attempt.outcome = Outcome.STALE
                        is_fresh = True
                        continue
                    attempt.outcome, gateway_error = _failure(error)
                    if attempt.outcome is Outcome.CONNECT_FAILED:
                        pick.upstream.note_refused()
                    if not may_retry(policy.retry, attempts) or not retry.take():
                        raise gateway_error from None
                    _report(attempt, policy)
                    next_pick, wait = self._next(exchange, None, deadline, clock())
                    if wait is None:
                        raise gateway_error from None
                except asyncio.CancelledError:
                    attempt.outcome = Outcome.ABANDONED
                    raise
                finally:
                    attempt.ended_at = clock()
                    _report(attempt, policy)
                    pick.upstream.end()
                if wait:
                    await self.sleep(wait)
                pick, is_fresh = next_pick, False
        finally:
            retry.release()

    def _pick(self, exchange: Exchange) -> Pick:
        assert exchange.next_pick is not None
        began = self.clock()
        pick = exchange.next_pick(exchange.attempts)
        exchange.pick_seconds = self.clock() - began
        return pick

    def _next(
        self, exchange: Exchange, retry_after: float | None, deadline: float | None, now: float
    ) -> tuple[Pick, float | None]:
        """Where the next attempt goes and after how many seconds; None when there is to be none."""
        assert exchange.rule is not None
        policy = exchange.rule.policy
        try:
            pick = self._pick(exchange)
        except NoEndpointsError:
            # The attempts themselves have ejected the last endpoint: what the last one said tells more than that.
            return exchange.attempts[-1].pick, None
        wait = wait_before(policy.retry, pick, exchange.attempts, retry_after_seconds=retry_after, draw=self.draw())
        if wait is not None and deadline is not None and now + wait >= deadline:
            wait = None
        return pick, wait

    async def _attempt(
        self,
        exchange: Exchange,
        attempt: Attempt,
        sent: Outgoing,
        policy: RulePolicy,
        *,
        deadline: float | None,
        is_fresh: bool,
    ) -> _Answer:
        pick = attempt.pick
        first_byte = policy.first_byte_timeout_seconds
        if policy.backend_request_timeout_seconds is not None:
            first_byte = min(first_byte, policy.backend_request_timeout_seconds)
        if policy.retry.per_try_timeout_seconds is not None:
            first_byte = min(first_byte, policy.retry.per_try_timeout_seconds)
        headers = upstream_headers(exchange, pick, sent)
        if exchange.trace is not None:
            headers = exchange.trace.attempt_headers(exchange, attempt, headers)
        stream = await pick.upstream.transport.send(
            method=exchange.method,
            target=upstream_target(exchange, pick),
            headers=headers,
            body=sent.body,
            timeouts=Timeouts(
                policy.connect_timeout_seconds,
                first_byte,
                policy.stream_idle_timeout_seconds,
                None if deadline is None else max(0.0, deadline - attempt.started_at),
            ),
            is_fresh=is_fresh,
        )
        status = attempt.status = stream.status
        head = stream.head
        try:
            first = await stream.read()
        except BaseException:
            stream.abort()
            raise
        attempt.outcome = Outcome.ANSWERED
        attempt.first_byte_at = self.clock()
        return _Answer(status, head, stream, first)

    async def _relay(
        self, exchange: Exchange, attempt: Attempt, answer: _Answer, send: Send, *, can_add_events: bool
    ) -> None:
        # No retry is possible from here on.
        exchange.let_go_of_body()
        pick = attempt.pick
        assert exchange.rule is not None
        if answer.status < 500:
            breaker = pick.upstream.breaker(exchange.rule.policy.passive_health)
            attempt.permit = breaker.first_byte(attempt.permit)
        edits = (exchange.rule.filters.response_headers, pick.backend_ref.filters.response_headers)
        if edits != (None, None):
            exchange.answer_edits = tuple(edit for edit in edits if edit is not None)
        headers = answer_headers(answer.headers, exchange.answer_edits)
        if exchange.session is not None:
            headers += exchange.session.answer_headers(pick.backend_ref)
        if exchange.hash_cookie is not None:
            headers.append((b"set-cookie", exchange.hash_cookie))
        stream, chunk = answer.stream, answer.first
        read = stream.read
        names = names_for(headers, status=answer.status, asked=exchange.model, sent=attempt.model)
        if names is not None:
            headers, read = without_length(headers), names.reading(stream)
            chunk = names.feed(chunk)
            if stream.is_drained:
                chunk += names.flush()
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        tail: deque[bytes] = deque((chunk[-LAST_WORDS_BYTES:],), maxlen=_TAIL_CHUNKS)
        try:
            while not stream.is_drained:
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
                chunk = await read()
                tail.append(chunk[-LAST_WORDS_BYTES:])
        except (httpx.TransportError, asyncio.CancelledError) as error:
            broken = _broken(error, exchange, attempt)
            if broken is None:
                raise
            stream.abort()
            if can_add_events and is_event_stream(headers):
                tail.append(held := names.flush() if names is not None else b"")
                blank = b"\n\n" if is_mid_event(tail) else b""
                event = held + blank + error_event(broken)
                await send({"type": "http.response.body", "body": event, "more_body": True})
            # Returning with the body unfinished makes the server flush, and close without a clean end.
            raise broken from None
        words = read_last_words(tail, headers)
        exchange.input_tokens, exchange.output_tokens = words.input_tokens, words.output_tokens
        exchange.cache_read_tokens, exchange.cache_write_tokens = words.cache_read_tokens, words.cache_write_tokens
        if words.is_error_event and answer.status == 200:
            attempt.outcome = Outcome.ERROR_EVENT
            exchange.reason = Reason.UPSTREAM_ERROR_EVENT
        await send({"type": "http.response.body", "body": chunk, "more_body": False})


class _Answer:
    """The head and the first bytes of an upstream's answer, and the rest to come."""

    __slots__ = ("first", "headers", "status", "stream")

    def __init__(self, status: int, headers: list[tuple[bytes, bytes]], stream: UpstreamStream, first: bytes) -> None:
        self.status = status
        self.headers = headers
        self.stream = stream
        self.first = first


def _report(attempt: Attempt, policy: RulePolicy) -> None:
    """Give the breaker's permit back with what the attempt says of its endpoint; once, later calls do nothing."""
    permit, attempt.permit = attempt.permit, NO_PERMIT
    if permit is not NO_PERMIT:
        breaker = attempt.pick.upstream.breaker(policy.passive_health)
        attempt.is_ejecting = breaker.report(permit, attempt.health(policy.passive_health))


def _failure(error: httpx.TransportError) -> tuple[Outcome, GatewayError]:
    """What a failure before the first byte is called, and what the client is told when it is the last."""
    if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
        return Outcome.CONNECT_FAILED, UpstreamUnavailableError("The model server cannot be reached.")
    if isinstance(error, httpx.TimeoutException):
        return Outcome.TIMEOUT, UpstreamTimeoutError("The model server took too long to answer.")
    if isinstance(error, httpx.RemoteProtocolError):
        return Outcome.PROTOCOL_ERROR, UpstreamProtocolError("The model server's answer was not valid HTTP.")
    reset = UpstreamUnavailableError("The model server closed the connection without an answer.")
    reset.flag = "UC"
    return Outcome.RESET, reset


def _broken(error: BaseException, exchange: Exchange, attempt: Attempt) -> GatewayError | None:
    """What a failure after the first byte is called; None for a cancellation that is not ours to end."""
    attempt.outcome = Outcome.BROKEN
    if isinstance(error, asyncio.CancelledError):
        attempt.outcome = Outcome.ABANDONED
        if exchange.is_cut_by_shutdown and not exchange.client_left:
            return UpstreamResetError("The gateway is shutting down and cut this answer.")
        return None
    if isinstance(error, httpx.TimeoutException):
        timeout = UpstreamTimeoutError("The model server stopped in the middle of its answer.")
        timeout.flag = "SI"
        return timeout
    reset = UpstreamResetError("The model server's answer broke off.")
    reset.flag = "UC"
    return reset
