"""Filters at rules and backendRefs, in the form that the request path uses."""

from __future__ import annotations

import msgspec
import pytest

from discovery.compile.filters import compile_filters, compile_prefix
from discovery.filters import Filters, HeaderMutation, PathRewrite, Redirect, ReplaceFullPath, ReplacePrefix
from discovery.resources.gateway_api import RouteFilter
from tests.discovery.loading import LoadText, ask, condition_of


def one(data: dict[str, object], prefix: str = "/") -> Filters:
    return compile_filters([msgspec.convert(data, RouteFilter)], prefix=prefix, is_backend_ref=False).filters


@pytest.mark.parametrize(
    ("type_", "field"),
    [
        pytest.param("RequestHeaderModifier", "request_headers", id="request"),
        pytest.param("ResponseHeaderModifier", "response_headers", id="response"),
    ],
)
def test_header_names_are_lower_case_and_the_first_of_a_name_counts(type_: str, field: str) -> None:
    modifier = {
        "set": [{"name": "X-A", "value": "1"}, {"name": "x-a", "value": "2"}],
        "add": [{"name": "X-B", "value": "3"}],
        "remove": ["X-C", "x-c"],
    }
    key = type_[0].lower() + type_[1:]
    assert getattr(one({"type": type_, key: modifier}), field) == HeaderMutation(
        set=((b"x-a", b"1"),), add=((b"x-b", b"3"),), remove=frozenset({b"x-c"})
    )


@pytest.mark.parametrize(
    ("path", "prefix", "expected"),
    [
        pytest.param(
            {"type": "ReplaceFullPath", "replaceFullPath": "/v2"}, "/", ReplaceFullPath(path=b"/v2"), id="full"
        ),
        pytest.param(
            {"type": "ReplaceFullPath", "replaceFullPath": ""}, "/", ReplaceFullPath(path=b"/"), id="empty-is-root"
        ),
        pytest.param(
            {"type": "ReplaceFullPath", "replaceFullPath": "v2"}, "/", ReplaceFullPath(path=b"/v2"), id="made-absolute"
        ),
        pytest.param(
            {"type": "ReplaceFullPath", "replaceFullPath": "/a b?\r\né"},
            "/",
            ReplaceFullPath(path=b"/a%20b%3F%0D%0A%C3%A9"),
            id="nothing-but-path-characters",
        ),
        pytest.param(
            {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/xyz"},
            "/foo",
            ReplacePrefix(prefix=b"/foo", replacement=b"/xyz"),
            id="prefix",
        ),
        pytest.param(
            {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/xyz/"},
            "/foo/",
            ReplacePrefix(prefix=b"/foo", replacement=b"/xyz"),
            id="trailing-slashes-are-nothing",
        ),
        pytest.param(
            {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/"},
            "/foo",
            ReplacePrefix(prefix=b"/foo", replacement=b""),
            id="root",
        ),
        pytest.param(
            {"type": "ReplacePrefixMatch", "replacePrefixMatch": ""},
            "/",
            ReplacePrefix(prefix=b"", replacement=b""),
            id="root-by-nothing",
        ),
    ],
)
def test_path_rewrites(path: dict[str, object], prefix: str, expected: PathRewrite) -> None:
    rewritten = one({"type": "URLRewrite", "urlRewrite": {"hostname": "b.com", "path": path}}, prefix)
    assert (rewritten.host, rewritten.path) == (b"b.com", expected)


def test_a_prefix_is_compared_in_the_form_of_the_request_path() -> None:
    assert compile_prefix("/a/", "b") == ReplacePrefix(prefix=b"/a", replacement=b"/b")


RULE = """\
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: r}}
spec:
  rules:
  - matches: [{{path: {{value: /f%6Fo/}}}}]
    {rule}
  - matches: [{{path: {{value: /other}}}}]
    filters: [{{type: RequestRedirect, requestRedirect: {{scheme: https}}}}]
---
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: Backend
metadata: {{name: b}}
spec: {{endpoints: [{{ip: {{address: 10.0.0.1, port: 8000}}}}]}}
"""
REF = "group: gateway.envoyproxy.io, kind: Backend, name: b"


def test_a_redirect_needs_no_backend(load_text: LoadText) -> None:
    path = "{type: ReplacePrefixMatch, replacePrefixMatch: /bar}"
    text = RULE.format(
        rule="filters: [{type: RequestRedirect, requestRedirect: "
        f"{{hostname: b.com, port: 8443, statusCode: 308, path: {path}}}}}]"
    )
    first, second = load_text.compiled(text).routing.rules
    assert first.refusal is None
    assert first.redirect == Redirect(
        hostname="b.com", port=8443, status_code=308, path=ReplacePrefix(prefix=b"/foo", replacement=b"/bar")
    )
    assert second.redirect == Redirect(scheme="https")


def test_filters_of_rule_and_backend_ref_stay_where_they_were_written(load_text: LoadText) -> None:
    modifier = "{type: RequestHeaderModifier, requestHeaderModifier: {remove: [%s]}}"
    text = RULE.format(
        rule=f"filters: [{modifier % 'a'}]\n    backendRefs: [{{{REF}, filters: [{modifier % 'b'}]}}, {{{REF}}}]"
    )
    rule = load_text.compiled(text).routing.rules[0]
    assert rule.filters.request_headers == HeaderMutation(remove=frozenset({b"a"}))
    assert [ref.filters.request_headers for ref in rule.backend_refs] == [
        HeaderMutation(remove=frozenset({b"b"})),
        None,
    ]


UNSUPPORTED = [
    pytest.param("{type: CORS, cors: {}}", id="cors"),
    pytest.param("{type: ExtensionRef, extensionRef: {group: g, kind: K, name: n}}", id="extension-ref"),
    pytest.param(
        "{type: ExternalAuth, externalAuth: {protocol: HTTP, http: {}, backendRef: {name: x, port: 1}}}",
        id="external-auth",
    ),
]


@pytest.mark.parametrize("item", UNSUPPORTED)
def test_a_filter_that_would_decide_is_never_skipped(load_text: LoadText, item: str) -> None:
    text = RULE.format(rule=f"filters: [{item}]\n    backendRefs: [{{{REF}}}]")
    compiled = load_text.compiled(text)
    rule = ask(compiled.routing, path="/foo/x")
    assert rule is not None
    assert rule.refusal is not None
    assert rule.refusal.reason == "unsupported_filter"
    condition = condition_of(compiled.routing, "HTTPRoute", "r", "PartiallyInvalid")
    assert (condition.status, condition.reason) == ("True", "UnsupportedValue")
    assert "spec.rules[0].filters: a " in str(compiled.problems[0])


@pytest.mark.parametrize(
    "item", [*UNSUPPORTED, pytest.param("{type: RequestRedirect, requestRedirect: {}}", id="redirect-of-a-backend")]
)
def test_on_a_backend_ref_it_closes_that_share(load_text: LoadText, item: str) -> None:
    text = RULE.format(rule=f"backendRefs: [{{{REF}, filters: [{item}]}}, {{{REF}}}]")
    rule = load_text.compiled(text).routing.rules[0]
    assert rule.refusal is None
    assert [ref.refusal.reason if ref.refusal else None for ref in rule.backend_refs] == ["unsupported_filter", None]


def test_a_route_of_which_nothing_can_be_served_is_not_accepted(load_text: LoadText) -> None:
    text = RULE.format(rule=f"filters: [{{type: CORS, cors: {{}}}}]\n    backendRefs: [{{{REF}}}]")
    text = text.replace("{type: RequestRedirect, requestRedirect: {scheme: https}}", "{type: CORS, cors: {}}")
    condition = condition_of(load_text.compiled(text).routing, "HTTPRoute", "r", "Accepted")
    assert (condition.status, condition.reason) == ("False", "UnsupportedValue")


def test_a_mirror_to_nothing_is_left_out_and_breaks_nothing(load_text: LoadText) -> None:
    mirror = "{type: RequestMirror, requestMirror: {backendRef: {name: x, port: 1}}}"
    compiled = load_text.compiled(RULE.format(rule=f"filters: [{mirror}]\n    backendRefs: [{{{REF}}}]"))
    assert ask(compiled.routing, path="/foo") is not None
    assert [(rule.refusal, rule.mirrors) for rule in compiled.routing.rules] == [(None, ()), (None, ())]
    condition = condition_of(compiled.routing, "HTTPRoute", "r", "ResolvedRefs")
    assert (condition.status, condition.reason) == ("False", "BackendNotFound")
    assert [cause.field for cause in condition.causes] == ["spec.rules[0].filters[0].requestMirror.backendRef"]
    (problem,) = compiled.problems
    assert problem.field == "spec.rules[0].filters[0].requestMirror.backendRef"
