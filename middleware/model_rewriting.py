"""What does a backend get in place of what the client asked for? The model's name, and members of the body.

A number is drawn once for each request, and with it the name that each backend is asked for: a retry asks the same pool
for the same model, and another backend for its own. Every attempt starts from the client's own bytes, whatever an
earlier one was sent (Envoy AI Gateway does the same).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from discovery.filters import BodyMutation, ModelRewrites, ModelTargets
from discovery.snapshot import BackendRef
from middleware.inference_request import replace_multipart_model
from middleware.json_members import change_members, replace_model

if TYPE_CHECKING:
    from middleware.exchange import Exchange


@dataclass(slots=True)
class Outgoing:
    """What of a request depends on the backend that it goes to."""

    body: bytes
    model: str | None  # that the backend is asked for
    is_drawn: bool = False  # whether the configuration says so, which may also be the client's own name
    is_renamed: bool = False  # whether it is another name than the client's, which the answer must then show


def targets_for(model: str | None, rewrites: ModelRewrites | None) -> ModelTargets | None:
    """The names that a client's name stands for at a backend; None where it stands for itself. Without a name there is
    nothing to rewrite."""
    if rewrites is None or model is None:
        return None
    return rewrites.by_model.get(model, rewrites.generic)


def draw_target(targets: ModelTargets, draw: float) -> str:
    """One of the names, for a number drawn uniformly from [0, 1). Weight 0 is never drawn."""
    point = draw * targets.total_weight
    chosen = ""
    for target in targets.targets:
        if target.weight:
            chosen = target.name
            point -= target.weight
            if point < 0:
                break
    return chosen


def target_model(exchange: Exchange, rewrites: ModelRewrites | None) -> str | None:
    """The model that a backend with these rewrites is asked for; None where the request names none."""
    targets = targets_for(exchange.model, rewrites) if rewrites is not None else None
    return exchange.model if targets is None else draw_target(targets, exchange.model_draw)


def outgoing(exchange: Exchange, ref: BackendRef) -> Outgoing:
    """What goes to this backendRef's backend. What was made for the last attempt is used again where that had the same
    backendRef. Raises InvalidBodyError where the body cannot be changed, OverloadedError where there is no room."""
    body = exchange.body or b""
    mutation = ref.filters.body
    if ref.model_rewrites is None and mutation is None:
        return Outgoing(body, exchange.model)
    if exchange.outgoing is not None and exchange.outgoing[0] is ref:
        return exchange.outgoing[1]
    made = _make(exchange, ref)
    if made.body is not body and exchange.body_lease is not None:
        # The client's own bytes stay, for the next attempt: this is memory on top of them.
        exchange.body_lease.grow(max(0, exchange.body_size + len(made.body) - exchange.body_lease.size))
    exchange.outgoing = (ref, made)
    return made


def mirrored(exchange: Exchange, ref: BackendRef) -> Outgoing:
    """What goes to a mirror, from the client's own bytes too. Raises InvalidBodyError."""
    return _make(exchange, ref)


def _make(exchange: Exchange, ref: BackendRef) -> Outgoing:
    targets = targets_for(exchange.model, ref.model_rewrites)
    name = exchange.model if targets is None else draw_target(targets, exchange.model_draw)
    is_renamed = name != exchange.model
    body = change_body(
        exchange.body or b"",
        name if is_renamed else None,
        ref.filters.body,
        is_json=exchange.is_json_object,
        content_type=exchange.by_name.get(b"content-type"),
    )
    return Outgoing(body, name, targets is not None, is_renamed)


def change_body(
    body: bytes, name: str | None, mutation: BodyMutation | None, *, is_json: bool, content_type: bytes | None
) -> bytes:
    """The body with another model's name (None: with its own) and with what a bodyMutation says, which knows JSON
    only."""
    if not is_json:
        return body if name is None else replace_multipart_model(body, content_type or b"", name)
    written = None if name is None else msgspec.json.encode(name)
    if mutation is None:
        return body if written is None else replace_model(body, written)
    changes: dict[str, bytes | None] = dict(mutation.set)
    changes.update(dict.fromkeys(mutation.remove))
    if written is not None:
        changes.setdefault("model", written)
    return change_members(body, changes)
