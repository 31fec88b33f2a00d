"""What is counted of requests? An observer that bumps plain numbers: a request pays for it every time.

Counted from the event loop alone, hence without locks. What a rule or a model has counted is forgotten when the
configuration names it no longer; Prometheus takes that for a counter that starts anew.
"""

from __future__ import annotations

from collections.abc import Iterator

from app.access_log import final_status
from app.exposition import Family, Histogram, Row
from discovery.snapshot import Routing, Snapshot, SnapshotStore
from middleware.exchange import Exchange
from middleware.traffic_mirroring import MirrorRecord
from middleware.upstream.outcome import Attempt

MAX_MODEL_LABELS = 1_000
OTHER = "other"

# Model answers take from milliseconds (an embedding) to many minutes (a long reasoning answer).
DURATION_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
CADENCE_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.5)
TOKEN_BUCKETS = (1.0, 4.0, 16.0, 64.0, 256.0, 1024.0, 4096.0, 16384.0, 65536.0, 262144.0, 1048576.0)
PICK_BUCKETS = (0.000005, 0.00001, 0.000025, 0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.01)

_RULE = ("route", "rule")


class _RuleCounts:
    """The histograms of one rule; those that nothing was observed of are not written."""

    __slots__ = (
        "cached_tokens",
        "duration",
        "first_byte",
        "input_tokens",
        "output_tokens",
        "per_chunk",
        "per_token",
        "pick",
    )

    def __init__(self) -> None:
        self.duration = Histogram(DURATION_BUCKETS)
        self.first_byte = Histogram(DURATION_BUCKETS)
        self.per_chunk: Histogram | None = None
        self.per_token: Histogram | None = None
        self.pick: Histogram | None = None
        self.input_tokens: Histogram | None = None
        self.output_tokens: Histogram | None = None
        self.cached_tokens = 0


class _MirrorCounts:
    """What became of the copies that one rule sent to one mirror."""

    __slots__ = ("dropped", "first_byte", "statuses")

    def __init__(self) -> None:
        self.statuses: dict[str, int] = {}
        self.first_byte = Histogram(DURATION_BUCKETS)
        self.dropped = 0


class RequestCounts:
    """An observer of exchanges and of mirrors' copies, and the families of what it counted."""

    def __init__(self, *, store: SnapshotStore) -> None:
        self._store = store
        self._routing: Routing | None = None
        self.in_flight = 0
        self._requests: dict[tuple[str, str, str, str, int, str], int] = {}
        self._attempts: dict[tuple[str, str, str, str], int] = {}
        self._rewritten: dict[tuple[str, str, str, str, str, str], int] = {}
        self._rules: dict[tuple[str, str], _RuleCounts] = {}
        self._mirrors: dict[tuple[str, str, str], _MirrorCounts] = {}
        self._model_labels: set[str] = set()

    def started(self, exchange: Exchange) -> None:
        """A request came."""
        self.in_flight += 1

    def finished(self, exchange: Exchange) -> None:
        """Count a request that is over."""
        self.in_flight -= 1
        rule = exchange.rule
        route, name = (rule.route, rule.name) if rule is not None else ("", "")
        attempts = exchange.attempts
        backend = attempts[-1].pick.backend_ref.name if attempts else ""
        key = (route, name, backend, self._model_label(exchange.model), final_status(exchange), exchange.reason)
        self._requests[key] = self._requests.get(key, 0) + 1
        counts = self._rules.get((route, name))
        if counts is None:
            counts = self._rules[route, name] = _RuleCounts()
        for attempt in attempts:
            attempt_key = (route, name, attempt.pick.backend_ref.name, attempt.outcome)
            self._attempts[attempt_key] = self._attempts.get(attempt_key, 0) + 1
            if attempt.model is not None:
                self._count_rewritten(route, name, exchange, attempt)
            if counts.pick is None:
                counts.pick = Histogram(PICK_BUCKETS)
            counts.pick.observe(attempt.pick_seconds)
        ended_at, first_byte_at = exchange.ended_at, exchange.first_byte_at
        trace = exchange.trace
        if ended_at is None:
            return
        duration = ended_at - exchange.started_at
        if trace is not None and trace.is_sampled:
            unix = exchange.started_unix + duration
            counts.duration.observe_traced(duration, trace.trace_id, unix)
            if first_byte_at is not None:
                counts.first_byte.observe_traced(first_byte_at - exchange.started_at, trace.trace_id, unix)
        else:
            counts.duration.observe(duration)
            if first_byte_at is not None:
                counts.first_byte.observe(first_byte_at - exchange.started_at)
        if first_byte_at is not None and exchange.chunks_sent > 1:
            if counts.per_chunk is None:
                counts.per_chunk = Histogram(CADENCE_BUCKETS)
            counts.per_chunk.observe((ended_at - first_byte_at) / (exchange.chunks_sent - 1))
        if exchange.input_tokens is not None or exchange.output_tokens is not None:
            self._count_tokens(exchange, counts)

    def _count_rewritten(self, route: str, rule: str, exchange: Exchange, attempt: Attempt) -> None:
        backend, code = attempt.pick.backend_ref.name, "" if attempt.status is None else str(attempt.status)
        models = (self._model_label(exchange.model), self._model_label(attempt.model))
        key = (route, rule, backend, *models, code)
        self._rewritten[key] = self._rewritten.get(key, 0) + 1

    @staticmethod
    def _count_tokens(exchange: Exchange, counts: _RuleCounts) -> None:
        if exchange.input_tokens is not None:
            if counts.input_tokens is None:
                counts.input_tokens = Histogram(TOKEN_BUCKETS)
            counts.input_tokens.observe(exchange.input_tokens)
        counts.cached_tokens += exchange.cache_read_tokens or 0
        tokens = exchange.output_tokens
        if tokens is None:
            return
        if counts.output_tokens is None:
            counts.output_tokens = Histogram(TOKEN_BUCKETS)
        counts.output_tokens.observe(tokens)
        # Only of streams: an answer that comes at once has all its time before its first byte.
        if tokens > 1 and exchange.chunks_sent > 1 and exchange.ended_at is not None:
            assert exchange.first_byte_at is not None
            if counts.per_token is None:
                counts.per_token = Histogram(CADENCE_BUCKETS)
            counts.per_token.observe((exchange.ended_at - exchange.first_byte_at) / (tokens - 1))

    def mirrored(self, record: MirrorRecord) -> None:
        """Count a copy that is over."""
        key = (record.rule.route, record.rule.name, record.backend)
        counts = self._mirrors.get(key)
        if counts is None:
            counts = self._mirrors[key] = _MirrorCounts()
        if record.is_dropped:
            counts.dropped += 1
            return
        code = "" if record.status is None else str(record.status)
        counts.statuses[code] = counts.statuses.get(code, 0) + 1
        if record.first_byte_at is not None:
            counts.first_byte.observe(record.first_byte_at - record.started_at)

    def _model_label(self, model: str | None) -> str:
        """Only configured names become label values, and a bounded number of them: clients can invent any."""
        if model is None:
            return ""
        if model in self._model_labels:
            return model
        if model in self._store.current.routing.model_names and len(self._model_labels) < MAX_MODEL_LABELS:
            self._model_labels.add(model)
            return model
        return OTHER

    def follow(self, snapshot: Snapshot) -> None:
        """Forget the rules and models that this snapshot does not name."""
        routing = snapshot.routing
        if routing is self._routing:  # only pods came or went
            return
        self._routing = routing
        rules = {("", "")} | {(rule.route, rule.name) for rule in routing.rules}
        self._model_labels &= routing.model_names
        models = self._model_labels | {"", OTHER}
        self._requests = {key: n for key, n in self._requests.items() if key[:2] in rules and key[3] in models}
        self._attempts = {key: n for key, n in self._attempts.items() if key[:2] in rules}
        self._rewritten = {
            key: n for key, n in self._rewritten.items() if key[:2] in rules and models.issuperset(key[3:5])
        }
        self._rules = {key: counts for key, counts in self._rules.items() if key in rules}
        self._mirrors = {key: counts for key, counts in self._mirrors.items() if key[:2] in rules}

    def families(self) -> Iterator[Family]:
        """What was counted."""
        yield Family(
            name="pointsman_requests_total",
            kind="counter",
            help="Requests by how they ended: code is the answer's status, or 499 when the client left before it; "
            "reason is empty, or one of docs/errors.md.",
            labels=(*_RULE, "backend", "model", "code", "reason"),
            rows=(((*key[:4], str(key[4]), key[5]), count) for key, count in list(self._requests.items())),
        )
        yield Family(
            name="pointsman_attempts_total",
            kind="counter",
            help="Tries at an endpoint, retries included, by how they ended.",
            labels=(*_RULE, "backend", "outcome"),
            rows=list(self._attempts.items()),
        )
        yield Family(
            name="pointsman_rewritten_attempts_total",
            kind="counter",
            help="Tries where the configuration says which model a name stands for: the arms of a canary by name, side "
            "by side. Without a status there was no answer.",
            labels=(*_RULE, "backend", "model", "target_model", "code"),
            rows=list(self._rewritten.items()),
        )
        yield self._of_rules(
            "pointsman_request_duration_seconds", "From the request's head to the end of its answer.", "duration"
        )
        yield self._of_rules(
            "pointsman_time_to_first_byte_seconds",
            "From the request's head to the first byte of its answer's body.",
            "first_byte",
        )
        yield self._of_rules(
            "pointsman_time_per_chunk_seconds",
            "Mean time between the writes of one answer, for answers of more than one.",
            "per_chunk",
        )
        yield self._of_rules(
            "pointsman_time_per_output_token_seconds",
            "Mean time per token after the first, for streams that tell their usage.",
            "per_token",
        )
        yield self._of_rules(
            "pointsman_request_input_tokens", "Tokens of the prompt, where the answer tells them.", "input_tokens"
        )
        yield self._of_rules(
            "pointsman_request_output_tokens",
            "Tokens that were generated, where the answer tells them.",
            "output_tokens",
        )
        yield Family(
            name="pointsman_cached_input_tokens_total",
            kind="counter",
            help="Tokens of prompts that the model server had in its cache, where the answer tells them.",
            labels=_RULE,
            rows=((key, counts.cached_tokens) for key, counts in list(self._rules.items()) if counts.input_tokens),
        )
        yield self._of_rules("pointsman_pick_seconds", "What choosing an endpoint took, per attempt.", "pick")
        labels = (*_RULE, "backend")
        yield Family(
            name="pointsman_mirrored_requests_total",
            kind="counter",
            help="Copies of requests by mirror and status; without a status there was no answer.",
            labels=(*labels, "code"),
            rows=(
                ((*key, code), count)
                for key, counts in list(self._mirrors.items())
                for code, count in list(counts.statuses.items())
            ),
        )
        yield Family(
            name="pointsman_mirrors_dropped_total",
            kind="counter",
            help="Copies that were not sent: too many were under way.",
            labels=labels,
            rows=((key, counts.dropped) for key, counts in list(self._mirrors.items())),
        )
        yield Family(
            name="pointsman_mirror_time_to_first_byte_seconds",
            kind="histogram",
            help="From a copy's start to the first byte of its answer's body.",
            labels=labels,
            rows=((key, counts.first_byte) for key, counts in list(self._mirrors.items())),
        )

    def _of_rules(self, name: str, text: str, field: str) -> Family:
        def rows() -> Iterator[Row]:
            for key, counts in list(self._rules.items()):
                histogram: Histogram | None = getattr(counts, field)
                if histogram is not None:
                    yield key, histogram

        return Family(name=name, kind="histogram", help=text, labels=_RULE, rows=rows())
