"""Is every request counted once, under names that are bounded?"""

from __future__ import annotations

from typing import Any

from app.counting import MAX_MODEL_LABELS, RequestCounts
from app.exposition import Family, Histogram
from discovery.snapshot import Routing, Rule, SnapshotStore
from middleware.errors import Reason
from middleware.upstream.outcome import Outcome
from tests.support.exchanges import make_attempt, make_exchange, make_pick, make_rule


class _Traced:
    """A sampled trace."""

    trace_id = "0af7651916cd43dd8448eb211c80319c"
    is_sampled = True


def counts_for(*models: str, rules: tuple[Rule, ...] = ()) -> tuple[RequestCounts, SnapshotStore]:
    store = SnapshotStore()
    counts = RequestCounts(store=store)
    store.subscribe(counts.follow)
    store.publish(Routing(rules=rules or (make_rule(),), model_names=frozenset(models)), {})
    return counts, store


def count(counts: RequestCounts, **fields: Any) -> None:
    with_defaults: dict[str, Any] = {"rule": make_rule(), "ended_at": 3.0, "status": 200} | fields
    exchange = make_exchange(**with_defaults)
    counts.started(exchange)
    counts.finished(exchange)


def told(counts: RequestCounts, name: str) -> dict[tuple[str, ...], Any]:
    (family,) = [family for family in counts.families() if family.name == name]
    assert isinstance(family, Family)
    return dict(row for row in family.rows if row is not None)


def test_a_request_is_counted_by_where_it_went_and_how_it_ended() -> None:
    counts, _ = counts_for("qwen")
    pick = make_pick()
    attempts = [make_attempt(pick), make_attempt(pick, Outcome.ANSWERED, status=200)]
    count(counts, model="qwen", attempts=attempts)
    count(counts, model="qwen", attempts=attempts[1:], reason=Reason.UPSTREAM_ERROR_EVENT)
    count(counts, model="qwen", client_left=True, rule=None, status=None, reason=Reason.CLIENT_CLOSED)
    assert told(counts, "pointsman_requests_total") == {
        ("default/llm", "0", "default/qwen", "qwen", "200", ""): 1,
        ("default/llm", "0", "default/qwen", "qwen", "200", "upstream_error_event"): 1,
        ("", "", "", "qwen", "499", "client_closed"): 1,
    }
    assert told(counts, "pointsman_attempts_total") == {
        ("default/llm", "0", "default/qwen", "connect_failed"): 1,
        ("default/llm", "0", "default/qwen", "answered"): 2,
    }
    assert counts.in_flight == 0


def test_a_stream_has_its_cadence_and_its_tokens() -> None:
    counts, _ = counts_for("qwen")
    count(
        counts, model="qwen", first_byte_at=1.0, chunks_sent=5, input_tokens=100, output_tokens=21, cache_read_tokens=64
    )
    key = ("default/llm", "0")

    def total(name: str) -> float:
        histogram = told(counts, name)[key]
        assert isinstance(histogram, Histogram)
        return histogram.sum

    assert total("pointsman_request_duration_seconds") == 3.0
    assert total("pointsman_time_to_first_byte_seconds") == 1.0
    assert total("pointsman_time_per_chunk_seconds") == 0.5
    assert total("pointsman_time_per_output_token_seconds") == 0.1
    assert total("pointsman_request_input_tokens") == 100
    assert total("pointsman_request_output_tokens") == 21
    assert told(counts, "pointsman_cached_input_tokens_total")[key] == 64


def test_an_answer_at_once_has_no_cadence() -> None:
    counts, _ = counts_for("qwen")
    count(counts, model="qwen", first_byte_at=3.0, chunks_sent=1, output_tokens=21)
    assert told(counts, "pointsman_time_per_chunk_seconds") == {}
    assert told(counts, "pointsman_time_per_output_token_seconds") == {}
    assert told(counts, "pointsman_request_input_tokens") == {}


def test_models_are_configured_names_and_at_most_a_thousand() -> None:
    counts, _ = counts_for(*(f"m{number}" for number in range(MAX_MODEL_LABELS + 5)))
    for number in range(MAX_MODEL_LABELS + 5):
        count(counts, model=f"m{number}")
    count(counts, model="invented by a client")
    models = {key[3] for key in told(counts, "pointsman_requests_total")}
    assert len(models) == MAX_MODEL_LABELS + 1
    assert told(counts, "pointsman_requests_total")["default/llm", "0", "", "other", "200", ""] == 6


def test_what_the_configuration_names_no_longer_is_forgotten() -> None:
    old = make_rule()
    counts, store = counts_for("qwen", "llama", rules=(old,))
    count(counts, model="qwen", rule=old, attempts=[make_attempt(make_pick())])
    count(counts, model="llama", rule=old)
    count(counts, model="unknown", rule=None)
    store.publish(store.current.routing, {})  # only pods changed
    assert len(told(counts, "pointsman_requests_total")) == 3
    store.publish(Routing(rules=(old,), model_names=frozenset({"llama"})), {})
    assert {key[3] for key in told(counts, "pointsman_requests_total")} == {"llama", "other"}
    store.publish(Routing(), {})
    assert {key[:2] for key in told(counts, "pointsman_requests_total")} == {("", "")}
    assert told(counts, "pointsman_attempts_total") == {}
    assert told(counts, "pointsman_request_duration_seconds").keys() == {("", "")}


def test_a_sampled_request_is_an_example_of_its_bucket() -> None:
    counts, _ = counts_for("qwen")
    count(counts, model="qwen", first_byte_at=0.2, trace=_Traced())
    duration = told(counts, "pointsman_request_duration_seconds")["default/llm", "0"]
    assert [example.trace_id for example in duration.exemplars.values()] == [_Traced.trace_id]
    first_byte = told(counts, "pointsman_time_to_first_byte_seconds")["default/llm", "0"]
    assert [example.value for example in first_byte.exemplars.values()] == [0.2]
