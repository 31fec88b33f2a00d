"""What path does a request ask for, and what path is sent on? Matching reads a decoded copy; the client's bytes
travel."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from discovery.filters import PathRewrite, ReplaceFullPath
from middleware.errors import InvalidPathError

if TYPE_CHECKING:
    from middleware.exchange import Exchange
    from middleware.upstream.registry import Pick

# A path of nothing else means the same to everybody who reads it.
_PLAIN = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789/-_~"
_UNRESERVED_ESCAPE = re.compile(r"%(2[dDeE]|3[0-9]|[46][1-9a-fA-F]|[57][0-9aA]|5[fF]|7[eE])")
_REFUSED_ESCAPE = re.compile(r"%(2[fF]|5[cC]|00)")
_BROKEN_ESCAPE = re.compile(r"%(?![0-9a-fA-F]{2})")


def path_for_matching(raw_path: bytes) -> str:
    """The path with its unreserved characters decoded (RFC 3986 section 6.2.2.2), for matching only.

    Raises InvalidPathError for what is no path ("*", an authority), for "." and ".." segments, backslashes, encoded
    slashes and NUL, spelled in whatever way.
    """
    if not raw_path.startswith(b"/"):
        raise InvalidPathError("the request target must be a path")
    if not raw_path.translate(None, _PLAIN):
        return raw_path.decode("ascii")
    path = raw_path.decode("latin-1")
    if "\\" in path or _REFUSED_ESCAPE.search(path):
        raise InvalidPathError("the path must not contain backslashes, encoded slashes or NUL")
    if _BROKEN_ESCAPE.search(path):
        raise InvalidPathError("the path has a percent sign that does not begin an escape")
    if any(character < "\x21" or character == "\x7f" for character in path):
        raise InvalidPathError("the path must not contain control characters or spaces")
    path = _UNRESERVED_ESCAPE.sub(lambda escape: chr(int(escape.group(1), 16)), path)
    if any(segment in (".", "..") for segment in path.split("/")):
        raise InvalidPathError("the path must not contain dot segments")
    return path


def rewrite_path(raw_path: bytes, rewrite: PathRewrite) -> bytes:
    """Apply a URLRewrite or RequestRedirect path modifier (the table in Gateway API's HTTPPathModifier)."""
    if isinstance(rewrite, ReplaceFullPath):
        return rewrite.path
    prefix = rewrite.prefix
    if raw_path != prefix and not raw_path.startswith(prefix + b"/"):
        # The client spelled the prefix with escapes; it matched decoded, so its decoded form is what is replaced.
        raw_path = path_for_matching(raw_path).encode("latin-1")
        if raw_path != prefix and not raw_path.startswith(prefix + b"/"):
            return raw_path
    return rewrite.replacement + raw_path[len(prefix) :] or b"/"


def upstream_target(exchange: Exchange, pick: Pick) -> bytes:
    """The request target of one attempt: the client's bytes, unless the rule, the backendRef or the backend rewrites
    them."""
    rule = exchange.rule
    rewrites = (
        rule.filters.path if rule is not None else None,
        pick.backend_ref.filters.path,
        _schema_rewrite(exchange, pick),
    )
    if rewrites == (None, None, None):
        return exchange.target
    path = exchange.raw_path
    for rewrite in rewrites:
        if rewrite is not None:
            path = rewrite_path(path, rewrite)
    return path + b"?" + exchange.query if exchange.query else path


def _schema_rewrite(exchange: Exchange, pick: Pick) -> PathRewrite | None:
    for rewrite in pick.endpoint.path_rewrites:
        if exchange.raw_path == rewrite.prefix or exchange.raw_path.startswith(rewrite.prefix + b"/"):
            return rewrite
    return None
