"""What does /rerank answer? A document is as relevant as the share of the query's words that it has."""

from typing import Any

import msgspec
import orjson

from app.simulator.answering import Answering, answer_id
from app.simulator.bodies import JsonBody
from app.simulator.call import Call
from app.simulator.served_models import ServedModels
from app.simulator.settings import SimulatorSettings
from app.simulator.text import count_tokens


class RerankRequest(msgspec.Struct):
    query: str
    documents: list[Any]
    model: str | None = None
    top_n: int | None = 0


class Rerank:
    """The endpoint, in the shape that Jina and vLLM share. It takes a slot until a first token would be there."""

    def __init__(self, *, settings: SimulatorSettings, models: ServedModels, answering: Answering) -> None:
        self._body = JsonBody(RerankRequest, required=("query", "documents"))
        self._settings = settings
        self._models = models
        self._answering = answering

    async def __call__(self, call: Call) -> None:
        request = self._body.read(call)
        self._models.check(request.model)
        documents = [_text_of(document) for document in request.documents]
        tokens = sum(count_tokens(len(document.encode())) for document in documents)
        tokens += count_tokens(len(request.query.encode()))
        await self._answering.in_one_piece(call, self._answering.submit(prompt_tokens=tokens, output_tokens=0))
        scores = [relevance(request.query, document) for document in documents]
        order = sorted(range(len(documents)), key=scores.__getitem__, reverse=True)
        answer = {
            "id": f"rerank-{answer_id(call).decode()}",
            "model": self._settings.base_model,
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
            "results": [
                {"index": index, "document": {"text": documents[index]}, "relevance_score": scores[index]}
                for index in order[: request.top_n or None]
            ],
        }
        await call.respond(orjson.dumps(answer))


def relevance(query: str, document: str) -> float:
    words = set(query.lower().split())
    return len(words & set(document.lower().split())) / len(words) if words else 0.0


def _text_of(document: object) -> str:
    """A document is a text, or an object with one."""
    if isinstance(document, dict):
        return str(document.get("text", ""))
    return str(document)
