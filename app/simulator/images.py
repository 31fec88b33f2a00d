"""What does /v1/images/generations answer? One grey pixel, as often as asked.

vLLM has no such endpoint on a language model; gateways route it all the same.
"""

import msgspec
import orjson

from app.simulator.answering import Answering, now
from app.simulator.bodies import JsonBody
from app.simulator.call import Call
from app.simulator.errors import bad_parameter
from app.simulator.served_models import ServedModels
from app.simulator.text import count_tokens

_MAX_IMAGES = 10  # OpenAI's limit
_PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNoAAAAggCBd81ytgAAAABJRU5ErkJggg=="


class ImageRequest(msgspec.Struct):
    prompt: str
    model: str | None = None
    n: int | None = 1


class Images:
    """The endpoint. It takes a slot until a first token would be there."""

    def __init__(self, *, models: ServedModels, answering: Answering) -> None:
        self._body = JsonBody(ImageRequest, required=("prompt",))
        self._models = models
        self._answering = answering

    async def __call__(self, call: Call) -> None:
        request = self._body.read(call)
        self._models.check(request.model)
        count = 1 if request.n is None else request.n
        if not 1 <= count <= _MAX_IMAGES:
            raise bad_parameter(f"n must be between 1 and {_MAX_IMAGES}, got {count}.", name="n", value=count)
        tokens = count_tokens(len(request.prompt.encode()))
        await self._answering.in_one_piece(call, self._answering.submit(prompt_tokens=tokens, output_tokens=0))
        await call.respond(orjson.dumps({"created": now(), "data": [{"b64_json": _PIXEL}] * count}))
