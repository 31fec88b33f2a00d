"""What does an AIGatewayRoute's backendRef change in the request? Its own word, and that of its AIServiceBackend.

Of the same header or member the route's word counts (Envoy AI Gateway). Nothing of this has an effect on an
InferencePool.
"""

from __future__ import annotations

import msgspec

from discovery.compile.filters import CompiledFilters
from discovery.compile.model_rewrites import is_usable_name, override
from discovery.filters import NO_FILTERS, BodyMutation, Filters, HeaderMutation
from discovery.resources.envoy_ai_gateway import AIBackendReference, AIServiceBackend

_json_decoder = msgspec.json.Decoder(msgspec.Raw)
_name_decoder = msgspec.json.Decoder(str)


def compile_ai_reference(ref: AIBackendReference, backend: AIServiceBackend | None) -> CompiledFilters:
    """The changes of a backendRef to an AIServiceBackend; None of ``backend`` where there is no such object."""
    if ref.kind == "InferencePool":
        return CompiledFilters()
    headers, body = _headers(ref, backend), _body(ref, backend)
    name = _name_in(body) or ref.model_name_override
    if body is not None and "model" in body.remove:
        name = ""
    if name and not is_usable_name(name):
        return CompiledFilters(fault="modelNameOverride is not a usable model name")
    filters = NO_FILTERS if headers is None and body is None else Filters(request_headers=headers, body=body)
    return CompiledFilters(filters=filters, model_rewrites=override(name) if name else None)


def _headers(ref: AIBackendReference, backend: AIServiceBackend | None) -> HeaderMutation | None:
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
    return HeaderMutation(set=tuple(sets.items()), remove=frozenset(removes)) if sets or removes else None


def _body(ref: AIBackendReference, backend: AIServiceBackend | None) -> BodyMutation | None:
    """Within one mutation a member that is removed and set is set: removing comes first."""
    sets: dict[str, bytes] = {}
    removes: dict[str, None] = {}
    for mutation in (backend.spec.body_mutation if backend is not None else None, ref.body_mutation):
        if mutation is None:
            continue
        for name in filter(None, mutation.remove):
            removes[name] = None
            sets.pop(name, None)
        for field in mutation.set:
            removes.pop(field.path, None)
            sets[field.path] = _as_json(field.value)
    return BodyMutation(set=tuple(sets.items()), remove=tuple(removes)) if sets or removes else None


def _as_json(value: str) -> bytes:
    """The text itself where it is JSON, else a JSON string of it."""
    text = value.encode()
    try:
        return bytes(_json_decoder.decode(text)).strip()
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return msgspec.json.encode(value)


def _name_in(body: BodyMutation | None) -> str | None:
    """The model that a mutation sets, which comes after a modelNameOverride; None where it sets none that is a name."""
    value = dict(body.set).get("model") if body is not None else None
    try:
        return None if value is None else _name_decoder.decode(value)
    except msgspec.MsgspecError:
        return None
