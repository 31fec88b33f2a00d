"""How busy is one endpoint? What its metrics said last, and what this process knows beyond them.

A reading is up to a second old, and an engine shows a request up to 200 ms after it came. What was sent since is known
here at once, so it is added: without it a burst would pile onto whoever looked idle a moment ago. And the metrics of a
frozen engine keep their last values for ever (recorded from vLLM), so an endpoint that has requests of ours and has
been silent for long counts as busy with all of them, whatever it says.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from enum import StrEnum

from discovery.model_servers.server_load import Adapters, KvCache, ServerLoad

SILENCE_SECONDS = 5.0  # without a byte of any answer while requests are in flight


class Knowledge(StrEnum):
    """What is known of an endpoint's own view of itself."""

    UNREAD = "unread"  # nobody has asked yet, or the first answer is still to come
    FRESH = "fresh"
    STALE = "stale"  # the last reading that worked is too old, or there never was one
    NONE = "none"  # it answers and has no metrics


class Load:
    """What is known of one endpoint, kept up to date; scorers read the plain fields.

    Single-threaded: changed from the event loop only. Times are those of one monotonic clock, in seconds.
    """

    __slots__ = (
        "_begun",
        "_seen",
        "adapters",
        "in_flight",
        "interval_seconds",
        "is_gone",
        "is_silent",
        "is_unreachable",
        "knowledge",
        "kv_cache",
        "kv_usage",
        "last_failure",
        "may_be_compared",
        "prefix_slot",
        "queue",
        "read_at",
        "running",
        "waiting",
        "working",
    )

    def __init__(self) -> None:
        # As the endpoint itself said.
        self.waiting = 0
        self.running = 0
        self.kv_usage = 0.0
        self.adapters: Adapters | None = None
        self.kv_cache: KvCache | None = None
        self.read_at = -math.inf  # when the reading was asked for
        self.interval_seconds = 0.0  # from that reading to the next
        self.knowledge = Knowledge.UNREAD
        self.may_be_compared = False  # whether its numbers mean something beside those of others
        self.last_failure = ""  # why the last reading failed, for people
        self.is_unreachable = False  # the last reading found nobody there
        # As we know.
        self.in_flight = 0
        self.is_gone = False  # no snapshot names the endpoint any more
        self.is_silent = False
        self._begun = 0
        self._seen = 0
        # Both together.
        self.queue = 0  # waiting, with what the metrics cannot show yet
        self.working = 0  # running, with the same
        self.prefix_slot = -1  # the prefix index's

    def begin(self) -> None:
        """A request of ours goes there."""
        self.in_flight += 1
        self._begun += 1
        self._estimate()

    def end(self) -> None:
        """It is over."""
        self.in_flight -= 1
        self._estimate()

    def mark(self) -> int:
        """To be given to ``read``: the requests that had been sent when the metrics were asked for."""
        return self._begun

    def read(self, reading: ServerLoad, *, mark: int, at: float, interval_seconds: float) -> None:
        """The metrics that were asked for at ``at``; the next are asked for ``interval_seconds`` later."""
        self.waiting, self.running, self.kv_usage = reading.waiting, reading.running, reading.kv_usage
        self.adapters = reading.adapters
        if reading.kv_cache is not None:
            self.kv_cache = reading.kv_cache
        self._seen = mark
        self.read_at = at
        self.interval_seconds = interval_seconds
        self.last_failure = ""
        self.is_unreachable = False
        self._know(Knowledge.FRESH)
        self._estimate()

    def read_nothing(self, *, mark: int, at: float, interval_seconds: float) -> None:
        """The endpoint answers and has no metrics: only our own count is known of it."""
        self.read(ServerLoad(), mark=mark, at=at, interval_seconds=interval_seconds)
        self._know(Knowledge.NONE)

    def failed(self, why: str, *, interval_seconds: float, is_unreachable: bool = False) -> None:
        """A reading failed, and the next is ``interval_seconds`` later. The last one that worked counts until it is
        stale, by the shorter of its interval and this one; where there was none, nothing is known."""
        self.interval_seconds = min(self.interval_seconds, interval_seconds)
        self.last_failure = why
        self.is_unreachable = is_unreachable
        if self.read_at == -math.inf:
            self._know(Knowledge.STALE)

    def look_at_age(self, now: float, *, limit_seconds: float) -> None:
        """Mark a reading that is older than the limit as stale."""
        if self.knowledge is Knowledge.FRESH and self.is_older(now, limit_seconds):
            self._know(Knowledge.STALE)

    def is_older(self, now: float, limit_seconds: float) -> bool:
        """Whether the reading is older than the limit; one that is not due yet never is."""
        return now - self.read_at > max(limit_seconds, 3 * self.interval_seconds)

    def look_at_silence(self, silent_seconds: float, *, limit_seconds: float = SILENCE_SECONDS) -> None:
        """Note for how long no byte came while requests were in flight; 0 when none are."""
        is_silent = self.in_flight > 0 and silent_seconds >= limit_seconds
        if is_silent is not self.is_silent:
            self.is_silent = is_silent
            self._estimate()

    def _know(self, knowledge: Knowledge) -> None:
        self.knowledge = knowledge
        self.may_be_compared = knowledge is Knowledge.FRESH or knowledge is Knowledge.NONE

    def _estimate(self) -> None:
        # max(min(sent, in_flight), in_flight - shown, 0), written out: it is asked for twice in each request.
        in_flight, waiting, running = self.in_flight, self.waiting, self.running
        unseen = self._begun - self._seen
        if unseen > in_flight:
            unseen = in_flight
        hidden = in_flight - waiting - running
        if unseen < hidden:
            unseen = hidden
        if unseen < 0:
            unseen = 0
        self.working = running + unseen
        queue = waiting + unseen
        self.queue = in_flight if self.is_silent and queue < in_flight else queue


_NOTHING: Mapping[int, int] = {}


class SchedulingRequest:
    """What scheduling sees of a request."""

    __slots__ = ("block_tokens", "blocks", "matched", "model")

    def __init__(
        self,
        model: str | None = None,
        blocks: int = 0,
        matched: Mapping[int, int] = _NOTHING,
        block_tokens: int = 0,
    ) -> None:
        self.model = model
        self.blocks = blocks  # of the prompt, that were hashed
        self.matched = matched  # prefix slot -> how many of them are cached there
        self.block_tokens = block_tokens


Draw = Callable[[], float]  # a random number from [0, 1)
