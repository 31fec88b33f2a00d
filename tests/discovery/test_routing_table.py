"""Precedence of matches, against a naive reading of the specification; and the cost that must not grow."""

from __future__ import annotations

import math
import re
import timeit

import pytest
import re2
from hypothesis import given, settings
from hypothesis import strategies as st

from discovery.hostnames import hostname_rank
from discovery.route_entry import MODEL_HEADER, PathKind, Pattern, RouteEntry, RouteRequest
from discovery.routing_table import RoutingTable
from discovery.snapshot import ModelCard, Rule


def rule(name: str) -> Rule:
    return Rule(id=name, route="default/r", route_kind="HTTPRoute", name=name)


def regex(name: bytes, source: str) -> Pattern:
    return Pattern(name=name, regex=re2.compile(source.encode()), source=source)


def request(
    path: str = "/",
    *,
    host: str = "a.example.com",
    method: str = "POST",
    headers: dict[bytes, bytes] | None = None,
    query: bytes = b"",
) -> RouteRequest:
    return RouteRequest(method=method, host=host, path=path, headers=headers or {}, query=query)


def matched(entries: list[RouteEntry], asked: RouteRequest) -> str | None:
    found = RoutingTable(entries).match(asked)
    return found.id if found else None


HEADER = Pattern(name=b"x-team", value=b"red")


@pytest.mark.parametrize(
    ("winner", "loser"),
    [
        pytest.param(
            RouteEntry(rule=rule("w"), path_kind=PathKind.EXACT, path="/v1/chat"),
            RouteEntry(rule=rule("l"), path="/v1/chat", method="POST", headers=(HEADER,)),
            id="exact-path-before-prefix",
        ),
        pytest.param(
            RouteEntry(rule=rule("w"), path_kind=PathKind.EXACT, path="/v1/chat"),
            RouteEntry(
                rule=rule("l"),
                path_kind=PathKind.REGULAR_EXPRESSION,
                path="/v1/.*long.*|.*",
                path_regex=re2.compile(b"/v1/.*long.*|.*"),
            ),
            id="exact-path-before-regex",
        ),
        pytest.param(
            RouteEntry(
                rule=rule("w"), path_kind=PathKind.REGULAR_EXPRESSION, path="/.*", path_regex=re2.compile(b"/.*")
            ),
            RouteEntry(rule=rule("l"), path="/v1/chat"),
            id="regex-before-prefix",
        ),
        pytest.param(
            RouteEntry(rule=rule("w"), path="/v1/chat/"),
            RouteEntry(rule=rule("l"), path="/v1", method="POST", headers=(HEADER,)),
            id="longer-prefix-before-method-and-headers",
        ),
        pytest.param(
            RouteEntry(rule=rule("w"), path="/v1", method="POST"),
            RouteEntry(rule=rule("l"), path="/v1", headers=(HEADER,)),
            id="method-before-headers",
        ),
        pytest.param(
            RouteEntry(rule=rule("w"), headers=(HEADER,)),
            RouteEntry(rule=rule("l"), query=(Pattern(name=b"a", value=b"1"), Pattern(name=b"b", value=b"2"))),
            id="headers-before-query-parameters",
        ),
        pytest.param(
            RouteEntry(rule=rule("w"), query=(Pattern(name=b"a", value=b"1"), Pattern(name=b"b", value=b"2"))),
            RouteEntry(rule=rule("l"), query=(Pattern(name=b"a", value=b"1"),)),
            id="more-query-parameters-first",
        ),
        pytest.param(
            RouteEntry(rule=rule("w"), tie_break=(1.0, "z/z", 9)),
            RouteEntry(rule=rule("l"), tie_break=(2.0, "a/a", 0)),
            id="older-route-before-name",
        ),
        pytest.param(
            RouteEntry(rule=rule("w"), tie_break=(math.inf, "a/a", 9)),
            RouteEntry(rule=rule("l"), tie_break=(math.inf, "b/b", 0)),
            id="name-of-the-route-before-order-in-it",
        ),
        pytest.param(
            RouteEntry(rule=rule("w"), hostnames=("a.example.com",)),
            RouteEntry(rule=rule("l"), hostnames=("*.example.com",), path_kind=PathKind.EXACT, path="/v1/chat"),
            id="hostname-before-everything",
        ),
        pytest.param(
            RouteEntry(rule=rule("w"), hostnames=("*.example.com",)),
            RouteEntry(rule=rule("l"), hostnames=("*.com",), headers=(HEADER,)),
            id="longer-wildcard-first",
        ),
        pytest.param(
            RouteEntry(rule=rule("w"), hostnames=("*.com",)),
            RouteEntry(rule=rule("l"), headers=(HEADER,)),
            id="any-hostname-before-none",
        ),
    ],
)
def test_the_more_specific_match_wins_in_either_order(winner: RouteEntry, loser: RouteEntry) -> None:
    asked = request("/v1/chat", headers={b"x-team": b"red"}, query=b"a=1&b=2")
    assert matched([loser], asked) == "l"
    assert matched([winner, loser], asked) == "w"
    assert matched([loser, winner], asked) == "w"


def test_a_request_belongs_to_the_most_specific_hostname_alone() -> None:
    entries = [
        RouteEntry(rule=rule("exact"), hostnames=("a.example.com",), path="/only"),
        RouteEntry(rule=rule("wild"), hostnames=("*.example.com",), path="/wild"),
        RouteEntry(rule=rule("any")),
    ]
    table = RoutingTable(entries)
    assert matched(entries, request("/only/x")) == "exact"
    assert matched(entries, request("/wild")) is None
    assert matched(entries, request("/else")) is None
    hosts = {"a.example.com": "a.example.com", "b.example.com": "*.example.com", "example.com": None, "org": None}
    assert {host: table.hostname_for(host) for host in hosts} == hosts


@pytest.mark.parametrize(
    ("listener", "hostnames", "host"),
    [
        pytest.param("very.specific.com", ["*.specific.com", "very.specific.com"], "very.specific.com", id="exact"),
        pytest.param("*.specific.com", ["*.com", "*.specific.com"], "very.specific.com", id="wildcard"),
        pytest.param("very.specific.com", [None, "very.specific.com"], "very.specific.com", id="none"),
        pytest.param(None, ["a.com", "a.com"], "a.com", id="the-same"),
    ],
)
def test_routes_that_agree_with_the_listener_on_one_name_share_it(
    listener: str | None, hostnames: list[str | None], host: str
) -> None:
    less, more = (
        RouteEntry(rule=rule(path), hostnames=(name,) if name else (), path=path, tie_break=(path,))
        for path, name in zip(("/less", "/more"), hostnames, strict=True)
    )
    table = RoutingTable([less, more], hostname=listener)
    for path in ("/less", "/more"):
        found = table.match(RouteRequest(method="GET", host=host, path=path, headers={}))
        assert found is not None
        assert found.id == path


def test_of_routes_that_share_a_name_the_one_with_the_more_specific_hostname_ranks_first() -> None:
    wild = RouteEntry(rule=rule("wild"), hostnames=("*.example.com",), path_kind=PathKind.EXACT, path="/v1")
    both = RouteEntry(rule=rule("both"), hostnames=("*.example.com", "a.example.com"))
    asked = RouteRequest(method="GET", host="a.example.com", path="/v1", headers={})
    for entries in ([wild, both], [both, wild]):
        found = RoutingTable(entries, hostname="a.example.com").match(asked)
        assert found is not None
        assert found.id == "both"


@pytest.mark.parametrize(
    ("prefix", "path", "holds"),
    [
        pytest.param("/abc", "/abc", True, id="itself"),
        pytest.param("/abc", "/abc/", True, id="with-slash"),
        pytest.param("/abc", "/abc/d", True, id="below"),
        pytest.param("/abc", "/abcd", False, id="not-inside-an-element"),
        pytest.param("/abc/", "/abc", True, id="slash-of-the-value-is-nothing"),
        pytest.param("/", "/anything", True, id="root"),
        pytest.param("/abc", "/ABC", False, id="case-matters"),
    ],
)
def test_a_prefix_matches_whole_elements(prefix: str, path: str, holds: bool) -> None:
    assert (matched([RouteEntry(rule=rule("r"), path=prefix)], request(path)) == "r") is holds


def test_of_a_repeated_query_parameter_the_first_value_counts() -> None:
    entry = RouteEntry(rule=rule("r"), query=(Pattern(name=b"a", value=b"1"),))
    assert matched([entry], request(query=b"a=1&a=2")) == "r"
    assert matched([entry], request(query=b"a=2&a=1")) is None
    assert matched([entry], request(query=b"A=1")) is None
    assert matched([entry], request(query=b"\xff=\xfe&a=%31")) == "r"


def test_a_regular_expression_matches_the_whole_value() -> None:
    entries = [RouteEntry(rule=rule("r"), headers=(regex(MODEL_HEADER, "qwen.*"), regex(b"x-team", "r|b")))]
    assert matched(entries, request(headers={MODEL_HEADER: b"qwen-7b", b"x-team": b"b"})) == "r"
    assert matched(entries, request(headers={MODEL_HEADER: b"my-qwen", b"x-team": b"b"})) is None
    assert matched(entries, request(headers={MODEL_HEADER: b"qwen", b"x-team": b"br"})) is None
    assert matched(entries, request(headers={b"x-team": b"b"})) is None
    assert matched(entries, request(headers={MODEL_HEADER: b"qwen"})) is None


def test_two_different_exact_models_in_one_match_never_hold() -> None:
    entry = RouteEntry(
        rule=rule("r"), headers=(Pattern(name=MODEL_HEADER, value=b"a"), Pattern(name=MODEL_HEADER, value=b"b"))
    )
    assert matched([entry], request(headers={MODEL_HEADER: b"a"})) is None


def test_the_model_is_found_under_its_other_name() -> None:
    entry = RouteEntry(rule=rule("r"), headers=(Pattern(name=MODEL_HEADER, value=b"a"),))
    assert matched([entry], request(headers={b"x-ai-eg-model": b"a"})) == "r"


def test_a_path_that_is_not_utf8_matches_no_regex_and_breaks_nothing() -> None:
    entry = RouteEntry(rule=rule("r"), path_kind=PathKind.REGULAR_EXPRESSION, path="/a", path_regex=re2.compile(b"/a"))
    assert matched([entry], request("/\udcff")) is None


def test_models_are_those_of_the_host_sorted_and_each_once() -> None:
    def listed(name: str, *hostnames: str, owner: str = "o") -> RouteEntry:
        card = ModelCard(id=name, created=1, owned_by=owner)
        return RouteEntry(rule=rule(name), hostnames=hostnames, cards=(card,))

    table = RoutingTable(
        [listed("z"), listed("b", "a.example.com"), listed("w", "*.example.com"), listed("b", owner="other")]
    )
    assert [(c.id, c.owned_by) for c in table.models("a.example.com")] == [("b", "o")]
    assert [(c.id, c.owned_by) for c in table.models("c.example.com")] == [("w", "o")]
    assert [(c.id, c.owned_by) for c in table.models("elsewhere.org")] == [("b", "other"), ("z", "o")]


# A naive reading of HTTPRouteRule.matches: of the entries of the most specific hostname every one that holds, ranked
# by the words of the specification.

HOSTS = ["example.com", "a.example.com", "b.a.example.com", "org"]
PATTERNS = ["example.com", "a.example.com", "*.example.com", "*.a.example.com", "*.com"]


def naive_match(entries: list[RouteEntry], asked: RouteRequest) -> str | None:
    ranked: list[tuple[tuple[object, ...], str]] = []
    named = [h for entry in entries for h in entry.hostnames if hostname_rank(h, asked.host) >= 0]
    belongs_to = max(named, key=lambda h: (not h.startswith("*"), len(h)), default=None)
    for entry in entries:
        hosts = [h for h in entry.hostnames if h == belongs_to]
        if bool(hosts) != (belongs_to is not None) or (belongs_to is None and entry.hostnames):
            continue
        if not naive_holds(entry, asked):
            continue
        exact_length = max((len(h) for h in hosts if not h.startswith("*")), default=0)
        any_length = max((len(h) for h in hosts), default=0)
        length = len(entry.path.rstrip("/")) if entry.path_kind is PathKind.PREFIX else len(entry.path)
        rank = (
            -exact_length,
            -any_length,
            ["EXACT", "REGULAR_EXPRESSION", "PREFIX"].index(entry.path_kind.name),
            -length,
            entry.method is None,
            -len(entry.headers),
            -len(entry.query),
            entry.tie_break,
        )
        ranked.append((rank, entry.rule.id))
    return min(ranked)[1] if ranked else None


def naive_holds(entry: RouteEntry, asked: RouteRequest) -> bool:
    path = asked.path
    if entry.path_kind is PathKind.EXACT and path != entry.path:
        return False
    if entry.path_kind is PathKind.PREFIX and not f"{path}/".startswith(f"{entry.path.rstrip('/')}/"):
        return False
    if entry.path_kind is PathKind.REGULAR_EXPRESSION and re.fullmatch(entry.path, path) is None:
        return False
    if entry.method not in (None, asked.method):
        return False
    query: dict[bytes, bytes] = {}
    for part in asked.query.split(b"&"):
        name, _, value = part.partition(b"=")
        query.setdefault(name, value)
    for wanted, values in ((entry.headers, asked.headers), (entry.query, query)):
        for pattern in wanted:
            given_value = values.get(pattern.name)
            if given_value is None:
                return False
            if pattern.value is None:
                if re.fullmatch(pattern.source.encode(), given_value) is None:
                    return False
            elif given_value != pattern.value:
                return False
    return True


def patterns(names: list[bytes]) -> st.SearchStrategy[tuple[Pattern, ...]]:
    one = st.one_of(
        st.builds(lambda n, v: Pattern(name=n, value=v), st.sampled_from(names), st.sampled_from([b"1", b"2"])),
        st.builds(regex, st.sampled_from(names), st.sampled_from(["1|2", "2", ".*"])),
    )
    return st.lists(one, max_size=3, unique_by=lambda p: p.name).map(tuple)


@st.composite
def entry_lists(draw: st.DrawFn) -> list[RouteEntry]:
    entries = []
    for number in range(draw(st.integers(1, 8))):
        kind = draw(st.sampled_from(PathKind))
        path = draw(st.sampled_from(["/", "/a", "/a/", "/a/b", "/ab"]))
        if kind is PathKind.REGULAR_EXPRESSION:
            path = draw(st.sampled_from(["/.*", "/a.*", "/a|/b"]))
        entries.append(
            RouteEntry(
                rule=rule(str(number)),
                hostnames=tuple(draw(st.lists(st.sampled_from(PATTERNS), max_size=2, unique=True))),
                path_kind=kind,
                path=path,
                path_regex=re2.compile(path.encode()) if kind is PathKind.REGULAR_EXPRESSION else None,
                method=draw(st.sampled_from([None, "POST", "GET"])),
                headers=draw(patterns([MODEL_HEADER, b"x-team", b"x-tier"])),
                query=draw(patterns([b"q", b"r"])),
                tie_break=(draw(st.sampled_from([1.0, 2.0, math.inf])), draw(st.sampled_from(["a/a", "b/b"])), number),
            )
        )
    return entries


@st.composite
def requests(draw: st.DrawFn) -> RouteRequest:
    values = st.sampled_from([b"1", b"2", b"3"])
    pairs = draw(st.lists(st.tuples(st.sampled_from([b"q", b"r"]), values), max_size=3))
    return RouteRequest(
        method=draw(st.sampled_from(["POST", "GET"])),
        host=draw(st.sampled_from(HOSTS)),
        path=draw(st.sampled_from(["/", "/a", "/a/", "/a/b", "/ab", "/b"])),
        headers=draw(st.dictionaries(st.sampled_from([MODEL_HEADER, b"x-team", b"x-tier"]), values)),
        query=b"&".join(b"=".join(pair) for pair in pairs),
    )


@settings(max_examples=150, deadline=None)
@given(entries=entry_lists(), asked=requests())
def test_the_table_agrees_with_a_naive_reading_of_the_specification(
    entries: list[RouteEntry], asked: RouteRequest
) -> None:
    assert matched(entries, asked) == naive_match(entries, asked)


def test_ten_thousand_models_cost_about_the_same_as_two() -> None:
    def seconds(models: int) -> float:
        table = RoutingTable(
            RouteEntry(rule=rule(str(n)), headers=(Pattern(name=MODEL_HEADER, value=b"m%d" % n),))
            for n in range(models)
        )
        asked = request("/v1/chat/completions", headers={MODEL_HEADER: b"m1", b"content-type": b"application/json"})
        assert table.match(asked) is not None
        return min(timeit.repeat(lambda: table.match(asked), number=2_000, repeat=7))

    assert seconds(10_000) < 3 * seconds(2)
