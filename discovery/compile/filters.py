"""What do the filters of a rule or a backendRef change? Filter objects -> Filters, a Redirect, or why not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import quote

from discovery.filters import (
    NO_FILTERS,
    Filters,
    HeaderMutation,
    ModelRewrites,
    PathRewrite,
    Redirect,
    ReplaceFullPath,
    ReplacePrefix,
)
from discovery.resources.gateway_api import HeaderModifier, PathModifier, RouteFilter

_PATH_SAFE = "/%:@!$&'()*+,;=-._~"  # what may stand in a path; all else is percent-encoded


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledFilters:
    """The filters of one list, or what a backendRef changes. ``unsupported`` names the type of the first filter that is
    not implemented, ``fault`` says why a backendRef cannot be served as it is written."""

    filters: Filters = NO_FILTERS
    redirect: Redirect | None = None
    unsupported: str | None = None
    model_rewrites: ModelRewrites | None = None
    fault: str | None = None


def compile_filters(filters: Sequence[RouteFilter], *, prefix: str, is_backend_ref: bool) -> CompiledFilters:
    """The filters of a rule whose (only) PathPrefix is ``prefix``, or of one of its backendRefs.

    RequestMirror is left out: rules.py resolves its backendRef. A filter that would have to answer or to decide, and
    that we do not implement, must not be skipped.
    """
    request_headers: HeaderMutation | None = None
    response_headers: HeaderMutation | None = None
    host: bytes | None = None
    path: PathRewrite | None = None
    redirect: Redirect | None = None
    for item in filters:
        if item.type == "RequestHeaderModifier" and item.request_header_modifier is not None:
            request_headers = compile_header_modifier(item.request_header_modifier)
        elif item.type == "ResponseHeaderModifier" and item.response_header_modifier is not None:
            response_headers = compile_header_modifier(item.response_header_modifier)
        elif item.type == "URLRewrite" and item.url_rewrite is not None:
            rewrite = item.url_rewrite
            host = rewrite.hostname.encode("ascii") if rewrite.hostname else None
            path = _compile_path(rewrite.path, prefix)
        elif item.type == "RequestRedirect" and item.request_redirect is not None and not is_backend_ref:
            target = item.request_redirect
            redirect = Redirect(
                scheme=target.scheme,
                hostname=target.hostname,
                port=target.port,
                path=_compile_path(target.path, prefix),
                status_code=target.status_code,
            )
        elif item.type != "RequestMirror":
            return CompiledFilters(unsupported=item.type)
    compiled = Filters(request_headers=request_headers, response_headers=response_headers, host=host, path=path)
    return CompiledFilters(filters=NO_FILTERS if compiled == NO_FILTERS else compiled, redirect=redirect)


def compile_header_modifier(modifier: HeaderModifier) -> HeaderMutation:
    """Header names in lower case; of a name that is there twice the first counts."""
    values: list[tuple[tuple[bytes, bytes], ...]] = []
    for given in (modifier.set, modifier.add):
        unique: dict[bytes, bytes] = {}
        for header in given:
            unique.setdefault(header.name.lower().encode("ascii"), header.value.encode("latin-1"))
        values.append(tuple(unique.items()))
    return HeaderMutation(
        set=values[0],
        add=values[1],
        remove=frozenset(name.lower().encode("latin-1", "replace") for name in modifier.remove),
    )


def compile_prefix(prefix: str, replacement: str) -> ReplacePrefix:
    """A prefix rewrite in the form of the request path: no trailing slashes, `b""` for the root."""
    return ReplacePrefix(prefix=prefix.rstrip("/").encode("utf-8"), replacement=_encode_path(replacement.rstrip("/")))


def _compile_path(modifier: PathModifier | None, prefix: str) -> PathRewrite | None:
    if modifier is None:
        return None
    if modifier.type == "ReplaceFullPath":
        return ReplaceFullPath(path=_encode_path(modifier.replace_full_path or "/"))
    return compile_prefix(prefix, modifier.replace_prefix_match or "")


def _encode_path(path: str) -> bytes:
    absolute = path if path.startswith("/") or not path else f"/{path}"
    return quote(absolute, safe=_PATH_SAFE).encode("ascii")
