"""What do we know about one request's passage? Each field is set once, by the stage named beside it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from middleware.errors import REASONS, GatewayError, Reason

if TYPE_CHECKING:
    from discovery.filters import HeaderMutation
    from discovery.snapshot import BackendRef, Listener, Rule, Snapshot
    from middleware.model_extraction import BodyLease
    from middleware.model_rewriting import Outgoing
    from middleware.pick_explanation import PickScores
    from middleware.scheduling.prompt import Prompt
    from middleware.sessions import Session
    from middleware.trace import RequestTrace
    from middleware.upstream.outcome import Attempt
    from middleware.upstream.registry import Candidate, Pick
    from middleware.upstream.rule_traffic import RuleTraffic


@dataclass(slots=True, eq=False)
class Exchange:
    """One request's passage through the chain. Times are those of time.perf_counter, in seconds."""

    # Telemetry: before anything else is looked at
    request_id: str
    method: str
    target: bytes  # path and query as the client sent them
    raw_path: bytes  # the path as the client sent it
    query: bytes  # without "?"
    headers: list[tuple[bytes, bytes]]  # lower-case names, in order, without what clients may not set
    by_name: dict[bytes, bytes]  # the same by name, repeated fields joined; ModelExtraction adds the model's headers
    host: bytes  # the Host field as sent; b"" when there is none
    peer: str  # the client's address
    scheme: str
    started_at: float
    started_unix: float

    # the server, when the client's connection is gone before its answer is complete
    client_left: bool = False
    # the server, when the drain time is over
    is_cut_by_shutdown: bool = False

    # an observer that traces; None: nobody does
    trace: RequestTrace | None = None

    # ModelExtraction
    snapshot: Snapshot | None = None
    listener: Listener | None = None
    host_name: str = ""  # lower case, without port
    path: str = ""  # for matching only: unreserved characters decoded
    has_encoded_slash: bool = False  # in the model's name of /v1/models/{id}; anywhere else it is an error
    body: bytes | None = None  # None once it was let go
    body_lease: BodyLease | None = None  # its share of the body memory
    body_size: int = 0
    read_at: float | None = None  # when the body was there
    model: str | None = None
    is_json_object: bool = False  # whether the body was read as one
    prompt: Prompt | None = None  # of a JSON body, until that is let go
    forced_content_type: bytes | None = None  # what a JSON body under a foreign type is forwarded as

    # RouteMatching
    rule: Rule | None = None

    # Admission
    answer_additions: tuple[tuple[bytes, bytes], ...] = ()  # headers of every answer, ours or an upstream's

    priority: int = 0  # below 0 the request is shed when its pool is saturated

    # TrafficSplitting
    arms: tuple[BackendRef, ...] = ()
    session: Session | None = None  # where the rule keeps clients on their arm
    model_draw: float = 0.0  # from [0, 1): decides between the models that a backend may be asked for

    # ModelRewriting: what the last attempt's backendRef made of the request
    outgoing: tuple[BackendRef, Outgoing] | None = None

    # CircuitBreaking
    rule_traffic: RuleTraffic | None = None
    candidates: Callable[[BackendRef], tuple[Candidate, ...]] | None = None

    # EndpointPicking
    next_pick: Callable[[list[Attempt]], Pick] | None = None
    pick_scores: PickScores | None = None  # of the newest pick, where somebody wants to see them
    hash_cookie: bytes | None = None  # the Set-Cookie by which the client finds its endpoint again

    # StreamingProxy
    attempts: list[Attempt] = field(default_factory=list)
    pick_seconds: float = 0.0  # what the newest pick took
    answer_edits: tuple[HeaderMutation, ...] = ()
    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_tokens: int | None = None  # of the input, what the model server had in its cache
    cache_write_tokens: int | None = None  # and what it has put there

    # Telemetry: what went out
    status: int | None = None  # None until the answer's head was sent
    first_byte_at: float | None = None
    bytes_sent: int = 0
    chunks_sent: int = 0
    ended_at: float | None = None

    # Errors, and StreamingProxy for what breaks after the first byte
    reason: Reason = Reason.OK
    flag: str = ""
    message: str = ""

    def fail(self, error: GatewayError) -> None:
        """Note how this request ended."""
        self.reason = error.reason
        self.flag = error.flag if error.flag is not None else REASONS[error.reason].flag
        self.message = error.message

    def let_go_of_body(self) -> None:
        """Drop the request body: with the answer's first byte no retry is possible any more. Safe to call twice."""
        self.body = self.prompt = self.outgoing = None
        if self.body_lease is not None:
            self.body_lease.release()
