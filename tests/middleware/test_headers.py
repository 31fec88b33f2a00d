"""Which headers pass, and how are they changed?"""

from __future__ import annotations

import pytest

from discovery.filters import Filters, HeaderMutation
from middleware.headers import (
    RawHeaders,
    answer_headers,
    header_map,
    mutate,
    strip_client_headers,
    upstream_headers,
    usable_request_id,
)
from tests.support.exchanges import make_endpoint, make_exchange, make_pick, make_ref, make_rule


@pytest.mark.parametrize(
    "name",
    [
        b"x-gateway-model-name",
        b"x-gateway-model-name-rewrite",
        b"x-gateway-base-model-name",
        b"x-gateway-destination-endpoint",
        b"x-gateway-destination-endpoint-subset",
        b"x-gateway-inference-objective",
        b"x-gateway-inference-fairness-id",
        b"x-ai-eg-model",
        b"x-llm-d-anything",
        b"x-prefiller-host-port",
        b"x-data-parallel-host-port",
        b"x-pointsman-explain",
        b"x-session-token",
        b"x-forwarded-client-cert",
    ],
)
def test_what_only_the_gateway_may_set_is_stripped_from_the_client(name: bytes) -> None:
    assert strip_client_headers([(name, b"x"), (b"x-gateway", b"kept")]) == [(b"x-gateway", b"kept")]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        pytest.param(b"abc-1._Z", "abc-1._Z", id="kept"),
        pytest.param(None, None, id="absent"),
        pytest.param(b"", None, id="empty"),
        pytest.param(b"a b", None, id="space"),
        pytest.param(b"a\r\nb", None, id="line-break"),
        pytest.param(b"a\n", None, id="trailing-line-break"),
        pytest.param(b"x" * 128, "x" * 128, id="longest"),
        pytest.param(b"x" * 129, None, id="too-long"),
    ],
)
def test_a_request_id_is_kept_when_it_is_safe(given: bytes | None, expected: str | None) -> None:
    assert usable_request_id(given) == expected


def test_repeated_fields_are_joined_for_matching() -> None:
    assert header_map([(b"a", b"1"), (b"b", b"2"), (b"a", b"3")]) == {b"a": b"1,3", b"b": b"2"}
    assert header_map([(b"a", b"1")]) == {b"a": b"1"}


@pytest.mark.parametrize(
    ("mutation", "expected"),
    [
        pytest.param(HeaderMutation(set=((b"a", b"9"),)), [(b"b", b"2"), (b"a", b"9")], id="set-overwrites-all"),
        pytest.param(
            HeaderMutation(add=((b"b", b"9"), (b"c", b"8"))),
            [(b"a", b"1"), (b"b", b"2,9"), (b"a", b"3"), (b"c", b"8")],
            id="add-appends",
        ),
        pytest.param(
            HeaderMutation(add=((b"a", b"9"),)), [(b"a", b"1"), (b"b", b"2"), (b"a", b"3,9")], id="add-to-the-last-line"
        ),
        pytest.param(HeaderMutation(remove=frozenset({b"a"})), [(b"b", b"2")], id="remove-all"),
        pytest.param(
            HeaderMutation(set=((b"b", b"5"),), add=((b"b", b"6"),), remove=frozenset({b"a"})),
            [(b"b", b"5,6")],
            id="set-then-add-then-remove",
        ),
        pytest.param(
            HeaderMutation(set=((b"c", b"5"),), add=((b"c", b"6"),), remove=frozenset({b"c"})),
            [(b"a", b"1"), (b"b", b"2"), (b"a", b"3")],
            id="remove-is-last",
        ),
    ],
)
def test_a_header_modifier_sets_then_adds_then_removes(mutation: HeaderMutation, expected: RawHeaders) -> None:
    assert mutate([(b"a", b"1"), (b"b", b"2"), (b"a", b"3")], mutation) == expected


def test_cookies_are_added_on_lines_of_their_own() -> None:
    mutation = HeaderMutation(add=((b"set-cookie", b"c=3"),))
    headers = [(b"set-cookie", b"a=1"), (b"set-cookie", b"b=2")]
    assert mutate(headers, mutation) == [*headers, (b"set-cookie", b"c=3")]


def test_the_pod_gets_host_framing_forwarding_and_the_model() -> None:
    exchange = make_exchange(
        headers=[
            (b"host", b"gateway.example:8080"),
            (b"content-length", b"999"),
            (b"authorization", b"Bearer key"),
            (b"x-forwarded-for", b"198.51.100.1"),
            (b"x-request-id", b"client's"),
            (b"traceparent", b"00-1-2-01"),
        ],
        host=b"gateway.example:8080",
        body=b"{}",
        model="qwen",
        rule=make_rule(make_ref()),
    )
    headers = upstream_headers(exchange, make_pick())
    assert headers[0] == (b"host", b"gateway.example:8080")
    assert sorted(headers[1:]) == [
        (b"authorization", b"Bearer key"),
        (b"content-length", b"2"),
        (b"traceparent", b"00-1-2-01"),
        (b"x-forwarded-for", b"198.51.100.1, 192.0.2.7"),
        (b"x-forwarded-host", b"gateway.example:8080"),
        (b"x-forwarded-proto", b"http"),
        (b"x-gateway-model-name", b"qwen"),
        (b"x-request-id", b"id-1"),
    ]


@pytest.mark.parametrize(
    "name",
    [
        b"connection",
        b"keep-alive",
        b"upgrade",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"expect",
        b"http2-settings",
        b"proxy-authorization",
        b"proxy-connection",
        b"x-hop",
    ],
)
def test_headers_of_this_hop_are_not_forwarded(name: bytes) -> None:
    exchange = make_exchange(headers=[(b"host", b"h"), (name, b"x"), (b"connection", b"close, X-Hop")], body=b"")
    assert name not in dict(upstream_headers(exchange, make_pick()))


@pytest.mark.parametrize("name", [b"authorization", b"content-type", b"x-forwarded-for"])
def test_connection_cannot_take_away_what_the_pod_needs(name: bytes) -> None:
    exchange = make_exchange(headers=[(b"host", b"h"), (name, b"x"), (b"connection", name + b", host")], body=b"")
    headers = dict(upstream_headers(exchange, make_pick()))
    assert name in headers
    assert b"host" in headers


def test_a_json_body_under_a_foreign_type_is_forwarded_as_json() -> None:
    exchange = make_exchange(
        headers=[(b"host", b"h"), (b"content-type", b"text/plain")],
        body=b"{}",
        forced_content_type=b"application/json",
    )
    headers = [value for name, value in upstream_headers(exchange, make_pick()) if name == b"content-type"]
    assert headers == [b"application/json"]


def test_filters_of_rule_and_backend_ref_apply_in_this_order_and_cannot_change_the_framing() -> None:
    rule_filters = Filters(
        request_headers=HeaderMutation(set=((b"x-a", b"rule"), (b"content-length", b"7"))), host=b"rule.example"
    )
    ref_filters = Filters(request_headers=HeaderMutation(add=((b"x-a", b"ref"),)))
    exchange = make_exchange(body=b"{}", rule=make_rule(filters=rule_filters))
    headers = upstream_headers(exchange, make_pick(ref=make_ref(filters=ref_filters)))
    assert dict(headers)[b"x-a"] == b"rule,ref"
    assert headers[0] == (b"host", b"rule.example")
    assert [value for name, value in headers if name == b"content-length"] == [b"2"]


def test_the_host_of_a_backend_given_by_name_replaces_the_clients_but_not_a_rewrite() -> None:
    pick = make_pick(make_endpoint("api.example", 443, host=b"api.example:443"))
    assert upstream_headers(make_exchange(body=b""), pick)[0] == (b"host", b"api.example:443")
    rewritten = make_exchange(body=b"", rule=make_rule(filters=Filters(host=b"rewritten.example")))
    assert upstream_headers(rewritten, pick)[0] == (b"host", b"rewritten.example")


def test_a_request_without_a_body_is_not_given_a_length_unless_its_method_expects_one() -> None:
    assert b"content-length" not in dict(upstream_headers(make_exchange(method="GET", body=b""), make_pick()))
    assert dict(upstream_headers(make_exchange(method="POST", body=b""), make_pick()))[b"content-length"] == b"0"


def test_an_answers_headers_pass_but_for_those_of_its_hop() -> None:
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", b"2"),
        (b"connection", b"keep-alive, x-hop"),
        (b"keep-alive", b"timeout=5"),
        (b"x-hop", b"1"),
        (b"x-request-id", b"upstream's"),
        (b"server", b"uvicorn"),
        (b"set-cookie", b"a=1"),
        (b"set-cookie", b"b=2"),
    ]
    edits = [
        HeaderMutation(
            set=((b"x-served-by", b"canary"), (b"content-length", b"5"), (b"transfer-encoding", b"chunked"))
        ),
        HeaderMutation(remove=frozenset({b"server", b"content-length"})),
    ]
    assert answer_headers(headers, edits) == [
        (b"content-type", b"application/json"),
        (b"content-length", b"2"),
        (b"set-cookie", b"a=1"),
        (b"set-cookie", b"b=2"),
        (b"x-served-by", b"canary"),
    ]
