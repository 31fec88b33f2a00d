"""What do the filters of a rule or a backendRef change? Filter objects -> Filters, a Redirect, or why not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import quote

from discovery.resources.envoy_ai_gateway import AIBackendReference, AIServiceBackend
from discovery.resources.gateway_api import HeaderModifier, PathModifier, RouteFilter
from discovery.snapshot import (
    NO_FILTERS,
    Filters,
    HeaderMutation,
    PathRewrite,
    Redirect,
    ReplaceFullPath,
    ReplacePrefix,
)

_PATH_SAFE = "/%:@!$&'()*+,;=-._~"  # what may stand in a path; all else is percent-encoded


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledFilters:
    """The filters of one list. ``unsupported`` names the type of the first that is not implemented."""

    filters: Filters = NO_FILTERS
    redirect: Redirect | None = None
    unsupported: str | None = None


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


def compile_ai_mutations(ref: AIBackendReference, backend: AIServiceBackend | None) -> CompiledFilters:
    """The header changes of an AIGatewayRoute's backendRef and of the AIServiceBackend that it names.

    On the same header the route's word counts (Envoy AI Gateway). They have no effect on an InferencePool. A body that
    would have to be changed, and that we cannot change, must not be sent.
    """
    if ref.kind == "InferencePool":
        return CompiledFilters()
    if ref.body_mutation or (backend is not None and backend.spec.body_mutation):
        return CompiledFilters(unsupported="bodyMutation")
    sets: dict[bytes, bytes] = {}
    removes: set[bytes] = set()
    for mutation in (backend.spec.header_mutation if backend is not None else None, ref.header_mutation):
        if mutation is None:
            continue
        for header in mutation.set:
            name = header.name.lower().encode("ascii")
            sets[name] = header.value.encode("latin-1", "replace")
            removes.discard(name)
        for removed in mutation.remove:
            name = removed.lower().encode("latin-1", "replace")
            removes.add(name)
            sets.pop(name, None)
    if not sets and not removes:
        return CompiledFilters()
    return CompiledFilters(
        filters=Filters(request_headers=HeaderMutation(set=tuple(sets.items()), remove=frozenset(removes)))
    )


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
