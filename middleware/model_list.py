"""What does GET /v1/models answer? The models that the rules for this host name, in OpenAI's form or Anthropic's
(pure)."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import orjson

from discovery.snapshot import ModelCard
from middleware.errors import ModelNotFoundError

if TYPE_CHECKING:
    from middleware.exchange import Exchange

_LIST_PATH = "/v1/models"


def is_model_list_request(exchange: Exchange) -> bool:
    """Whether this asks for our list, or for one model of it. A rule that names /v1/models exactly wins over ours."""
    return (
        exchange.path.startswith(_LIST_PATH)
        and exchange.method in ("GET", "HEAD")
        and (exchange.path == _LIST_PATH or exchange.path.startswith(_LIST_PATH + "/"))
        and exchange.listener is not None
    )


def model_list_body(exchange: Exchange) -> bytes:
    """The JSON of the list, or of the one model that the path names. Raises ModelNotFoundError."""
    assert exchange.listener is not None
    cards = exchange.listener.table.models(exchange.host_name)
    is_anthropic = b"anthropic-version" in exchange.by_name
    form = _anthropic_form if is_anthropic else _openai_form
    name = unquote(exchange.path[len(_LIST_PATH) + 1 :])
    if name:
        for card in cards:
            if card.id == name:
                return orjson.dumps(form(card))
        raise ModelNotFoundError("This model does not exist or is not served at this address.")
    data = [form(card) for card in cards]
    if is_anthropic:
        ids = [card.id for card in cards]
        edges = {"first_id": ids[0] if ids else None, "last_id": ids[-1] if ids else None, "has_more": False}
        return orjson.dumps({"data": data, **edges})
    return orjson.dumps({"object": "list", "data": data})


def _openai_form(card: ModelCard) -> dict[str, Any]:
    return {"id": card.id, "object": "model", "created": card.created, "owned_by": card.owned_by}


def _anthropic_form(card: ModelCard) -> dict[str, Any]:
    created = datetime.datetime.fromtimestamp(card.created, tz=datetime.UTC)
    return {
        "type": "model",
        "id": card.id,
        "display_name": card.id,
        "created_at": created.isoformat().replace("+00:00", "Z"),
    }
