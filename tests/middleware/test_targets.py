"""What path is matched, and what path is sent on?"""

from __future__ import annotations

import pytest

from discovery.filters import Filters, PathRewrite, ReplaceFullPath, ReplacePrefix
from middleware.errors import InvalidPathError
from middleware.targets import path_for_matching, rewrite_path, upstream_target
from tests.support.exchanges import make_endpoint, make_exchange, make_pick, make_ref, make_rule


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        pytest.param(b"/v1/models", "/v1/models", id="plain"),
        pytest.param(b"/v1/%6Dodels", "/v1/models", id="unreserved-decoded"),
        pytest.param(b"/a%7Eb%2Dc%5Fd%2e", "/a~b-c_d.", id="marks-decoded"),
        pytest.param(b"/a%20b", "/a%20b", id="reserved-stays"),
        pytest.param(b"/a%3Ab", "/a%3Ab", id="colon-stays"),
        pytest.param(b"/...", "/...", id="three-dots-are-a-name"),
        pytest.param(b"/.well-known/x", "/.well-known/x", id="dot-name"),
        pytest.param(b"/a//b", "/a//b", id="empty-segment-stays"),
        pytest.param("/m\u00f6del".encode(), "/m\u00c3\u00b6del", id="utf-8-bytes"),
    ],
)
def test_unreserved_characters_are_decoded_for_matching(raw: bytes, expected: str) -> None:
    assert path_for_matching(raw) == expected


@pytest.mark.parametrize(
    "raw",
    [
        b"/a/../b",
        b"/a/..",
        b"/./a",
        b"/a/%2e%2e/b",
        b"/a/.%2E/b",
        b"/a%2fb",
        b"/a%2Fb",
        b"/a\\b",
        b"/a%5cb",
        b"/a%00b",
        b"/a%zz",
        b"/a%2",
        b"/a\x01b",
        b"*",
        b"host:443",
        b"",
    ],
)
def test_a_path_that_two_parties_could_read_differently_is_refused(raw: bytes) -> None:
    with pytest.raises(InvalidPathError):
        path_for_matching(raw)


@pytest.mark.parametrize(
    ("prefix", "replacement", "path", "expected"),
    [
        pytest.param(b"/foo", b"/xyz", b"/foo/bar", b"/xyz/bar", id="below"),
        pytest.param(b"/foo", b"/xyz", b"/foo", b"/xyz", id="itself"),
        pytest.param(b"/foo", b"/xyz", b"/foo/", b"/xyz/", id="trailing-slash"),
        pytest.param(b"/foo", b"", b"/foo/bar", b"/bar", id="to-root-below"),
        pytest.param(b"/foo", b"", b"/foo/", b"/", id="to-root-trailing-slash"),
        pytest.param(b"/foo", b"", b"/foo", b"/", id="to-root-itself"),
        pytest.param(b"", b"/xyz", b"/bar", b"/xyz/bar", id="from-root"),
        pytest.param(b"/foo", b"/xyz", b"/%66oo/a%20b", b"/xyz/a%20b", id="prefix-spelled-with-escapes"),
    ],
)
def test_a_prefix_is_replaced_as_gateway_apis_table_says(
    prefix: bytes, replacement: bytes, path: bytes, expected: bytes
) -> None:
    assert rewrite_path(path, ReplacePrefix(prefix=prefix, replacement=replacement)) == expected


def test_the_clients_bytes_travel_unless_something_rewrites_them() -> None:
    exchange = make_exchange(target=b"/v1/%6Dodels?a=%20", rule=make_rule(make_ref()))
    assert upstream_target(exchange, make_pick()) == b"/v1/%6Dodels?a=%20"


@pytest.mark.parametrize(
    ("rule_path", "ref_path", "schema", "expected"),
    [
        pytest.param(ReplaceFullPath(path=b"/full"), None, (), b"/full?q=1", id="full-path-keeps-the-query"),
        pytest.param(
            ReplacePrefix(prefix=b"/v1", replacement=b"/v2"), None, (), b"/v2/chat/completions?q=1", id="rule"
        ),
        pytest.param(
            None, ReplacePrefix(prefix=b"/v1", replacement=b""), (), b"/chat/completions?q=1", id="backend-ref"
        ),
        pytest.param(
            None,
            None,
            (
                ReplacePrefix(prefix=b"/anthropic", replacement=b""),
                ReplacePrefix(prefix=b"/v1", replacement=b"/openai/v1"),
            ),
            b"/openai/v1/chat/completions?q=1",
            id="schema-prefix",
        ),
    ],
)
def test_rewrites_of_rule_backend_ref_and_schema(
    rule_path: PathRewrite | None, ref_path: PathRewrite | None, schema: tuple[ReplacePrefix, ...], expected: bytes
) -> None:
    exchange = make_exchange(target=b"/v1/chat/completions?q=1", rule=make_rule(filters=Filters(path=rule_path)))
    pick = make_pick(make_endpoint(path_rewrites=schema), make_ref(filters=Filters(path=ref_path)))
    assert upstream_target(exchange, pick) == expected
