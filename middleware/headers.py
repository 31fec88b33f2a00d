"""Which headers pass, in which direction, changed how? Pure functions over raw (name, value) pairs, names lower case.

Follows RFC 9110 sections 7.6.1 (Connection) and 7.8 (Upgrade), and CONTRACT's list of headers that only the gateway
may set.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

from discovery.filters import NO_FILTERS, Filters, HeaderMutation

if TYPE_CHECKING:
    from middleware.exchange import Exchange
    from middleware.model_rewriting import Outgoing
    from middleware.upstream.registry import Pick

RawHeaders = list[tuple[bytes, bytes]]

MODEL_HEADER = b"x-gateway-model-name"
AI_GATEWAY_MODEL_HEADER = b"x-ai-eg-model"
BASE_MODEL_HEADER = b"x-gateway-base-model-name"

# What steers routing, picking or scheduling is ours to set; a client's word for it would be a way around the rules.
_STRIPPED_PREFIXES = (
    MODEL_HEADER,
    BASE_MODEL_HEADER,
    b"x-gateway-destination-endpoint",
    b"x-gateway-inference-objective",
    b"x-gateway-inference-fairness-id",
    b"x-ai-eg-",
    b"x-llm-d-",
    b"x-prefiller-host-port",
    b"x-data-parallel-host-port",
    b"x-pointsman-",
    b"x-session-token",
    b"x-forwarded-client-cert",  # who the client is, said by a gateway that ends TLS; Envoy strips it by default
    b"proxy-",  # meant for us, not for who is behind us
)
# Names that every client sends: found here, they need not be compared with the prefixes.
_COMMON = frozenset(
    {
        b"accept",
        b"accept-encoding",
        b"authorization",
        b"connection",
        b"content-length",
        b"content-type",
        b"host",
        b"user-agent",
    }
)

_HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-connection",
        b"transfer-encoding",
        b"te",
        b"trailer",
        b"upgrade",
        b"http2-settings",
    }
)
# Set anew for each attempt, or meant for us alone.
_NOT_FORWARDED = _HOP_BY_HOP | {
    b"host",
    b"content-length",
    b"expect",
    b"x-forwarded-for",
    b"x-forwarded-proto",
    b"x-forwarded-host",
    b"x-request-id",
}
_FRAMING = _HOP_BY_HOP | {b"host", b"content-length", b"expect", b"x-request-id"}
# What they say of a body is no longer so once its bytes are changed.
_DIGESTS = frozenset({b"content-md5", b"digest", b"content-digest", b"repr-digest"})
_NOT_RELAYED = _HOP_BY_HOP | {b"x-request-id"}
_CANNOT_BE_NOMINATED = (b"host", b"authorization", b"content-", b"x-forwarded-")

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")


def strip_client_headers(headers: Iterable[tuple[bytes, bytes]]) -> RawHeaders:
    """A copy of a client's headers without those that only the gateway may set."""
    return [pair for pair in headers if pair[0] in _COMMON or not pair[0].startswith(_STRIPPED_PREFIXES)]


def usable_request_id(value: bytes | None) -> str | None:
    """A client's request id when it is one that is safe in logs and headers, else None."""
    if value is not None and _REQUEST_ID.fullmatch(value):
        return value.decode("ascii")
    return None


def find_header(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> bytes | None:
    """The first value of a header, or None."""
    for key, value in headers:
        if key == name:
            return value
    return None


def header_map(headers: RawHeaders) -> dict[bytes, bytes]:
    """Headers as a mapping, repeated fields joined with a comma (RFC 9110 section 5.3)."""
    mapping = dict(headers)
    if len(mapping) != len(headers):
        mapping = {}
        for name, value in headers:
            mapping[name] = mapping[name] + b"," + value if name in mapping else value
    return mapping


def nominated(headers: Iterable[tuple[bytes, bytes]]) -> frozenset[bytes]:
    """The header names that Connection declares to be of this hop only, without those it has no say over."""
    names: set[bytes] = set()
    for name, value in headers:
        if name == b"connection":
            names.update(token.strip().lower() for token in value.split(b","))
    return frozenset(token for token in names if not token.startswith(_CANNOT_BE_NOMINATED))


def mutate(headers: RawHeaders, mutation: HeaderMutation) -> RawHeaders:
    """Apply a header modifier filter: set, then add, then remove (Gateway API HTTPHeaderFilter)."""
    if mutation.set:
        names = {name for name, _ in mutation.set}
        headers = [pair for pair in headers if pair[0] not in names]
        headers.extend(mutation.set)
    for name, value in mutation.add:
        last = next((index for index in range(len(headers) - 1, -1, -1) if headers[index][0] == name), None)
        if last is None or name == b"set-cookie":  # the one field whose values cannot share a line (RFC 9110 5.3)
            headers = [*headers, (name, value)]
        else:
            headers = [*headers[:last], (name, headers[last][1] + b"," + value), *headers[last + 1 :]]
    if mutation.remove:
        headers = [pair for pair in headers if pair[0] not in mutation.remove]
    return headers


def upstream_headers(exchange: Exchange, pick: Pick, sent: Outgoing | None = None) -> RawHeaders:
    """The headers of one attempt, Host first. ``sent`` is what the backendRef makes of model and body.

    Raises nothing: what a header modifier sets was checked at compile, what the client sent was checked by the parser.
    """
    given = exchange.by_name
    headers = [pair for pair in exchange.headers if pair[0] not in _NOT_FORWARDED]
    if b"connection" in given:
        hop = nominated(exchange.headers)
        headers = [pair for pair in headers if pair[0] not in hop]
    if exchange.forced_content_type is not None:
        headers = [pair for pair in headers if pair[0] != b"content-type"]
        headers.append((b"content-type", exchange.forced_content_type))
    peer = exchange.peer.encode("ascii")
    earlier = given.get(b"x-forwarded-for")
    headers += (
        (b"x-forwarded-for", peer if earlier is None else earlier + b", " + peer),
        (b"x-forwarded-proto", exchange.scheme.encode("ascii")),
        (b"x-request-id", exchange.request_id.encode("ascii")),
    )
    if exchange.host:
        headers.append((b"x-forwarded-host", exchange.host))
    model = given.get(MODEL_HEADER)
    if sent is not None and sent.model is not exchange.model:
        model = None if sent.model is None else sent.model.encode()
    if model is not None:
        headers.append((MODEL_HEADER, model))
    base_model = given.get(BASE_MODEL_HEADER)
    if base_model is not None:
        headers.append((BASE_MODEL_HEADER, base_model))

    host = exchange.host
    rule = exchange.rule
    if rule is not None and rule.filters is not NO_FILTERS:
        host, headers = _apply(rule.filters, host, headers)
    if pick.backend_ref.filters is not NO_FILTERS:
        host, headers = _apply(pick.backend_ref.filters, host, headers)
    if sent is not None and sent.body is not exchange.body:
        headers = [pair for pair in headers if pair[0] not in _DIGESTS]
    if sent is not None and sent.is_renamed:
        # The answer's names can be seen in plain text only.
        headers = [pair for pair in headers if pair[0] != b"accept-encoding"]
        headers.append((b"accept-encoding", b"identity"))
    if pick.endpoint.host is not None and host is exchange.host:
        host = pick.endpoint.host
    headers.insert(0, (b"host", host or pick.upstream.label.encode("ascii")))
    body = exchange.body if sent is None else sent.body
    if body is not None and (body or exchange.method in ("POST", "PUT", "PATCH")):
        headers.append((b"content-length", b"%d" % len(body)))
    return headers


@lru_cache(maxsize=1024)
def _without_framing(mutation: HeaderMutation) -> HeaderMutation:
    """A header modifier without what is not its to say: framing, what is of one hop, and the request id."""

    def is_ours(name: bytes) -> bool:
        return name in _FRAMING or name.startswith(b"proxy-")

    return HeaderMutation(
        set=tuple(pair for pair in mutation.set if not is_ours(pair[0])),
        add=tuple(pair for pair in mutation.add if not is_ours(pair[0])),
        remove=frozenset(name for name in mutation.remove if not is_ours(name)),
    )


def _apply(filters: Filters, host: bytes, headers: RawHeaders) -> tuple[bytes, RawHeaders]:
    if filters.request_headers is not None:
        headers = mutate(headers, _without_framing(filters.request_headers))
    return (host if filters.host is None else filters.host), headers


def answer_headers(headers: Sequence[tuple[bytes, bytes]], edits: Iterable[HeaderMutation]) -> RawHeaders:
    """What of an upstream's answer head goes to the client, edited by the filters of the rule and the backendRef."""
    relayed = [pair for pair in headers if pair[0] not in _NOT_RELAYED]
    if len(relayed) != len(headers) and (hop := nominated(headers)):
        relayed = [pair for pair in relayed if pair[0] not in hop]
    for edit in edits:
        relayed = mutate(relayed, _without_framing(edit))
    return relayed
