"""What does /v1/embeddings answer? The same vector for the same input, of length 1, and no meaning in it.

vLLM has this endpoint on embedding models only; here every model is one.
"""

import base64
import hashlib
import math
from array import array

import msgspec
import orjson

from app.simulator.answering import Answering, answer_id, now
from app.simulator.bodies import JsonBody
from app.simulator.call import Call
from app.simulator.errors import bad_parameter, prompt_too_long
from app.simulator.prompts import count_prompt_tokens, prompts_of
from app.simulator.served_models import ServedModels
from app.simulator.settings import SimulatorSettings

DIMENSIONS = 384
_MAX_DIMENSIONS = 8192


class EmbeddingRequest(msgspec.Struct):
    input: msgspec.Raw
    model: str | None = None
    encoding_format: str | None = "float"
    dimensions: int | None = None


class Embeddings:
    """The endpoint. It takes a slot until the first token would be there."""

    def __init__(self, *, settings: SimulatorSettings, models: ServedModels, answering: Answering) -> None:
        self._body = JsonBody(EmbeddingRequest, required=("input",))
        self._settings = settings
        self._models = models
        self._answering = answering

    async def __call__(self, call: Call) -> None:
        request = self._body.read(call)
        self._models.check(request.model)
        prompts = prompts_of(request.input, field="input")
        tokens = count_prompt_tokens(request.input)
        if tokens > self._settings.max_model_len:
            raise prompt_too_long(limit=self._settings.max_model_len)
        dimensions = DIMENSIONS if request.dimensions is None else request.dimensions
        if not 1 <= dimensions <= _MAX_DIMENSIONS:
            text = f"dimensions must be between 1 and {_MAX_DIMENSIONS}, got {dimensions}."
            raise bad_parameter(text, name="dimensions", value=dimensions)
        await self._answering.in_one_piece(call, self._answering.submit(prompt_tokens=tokens, output_tokens=0))
        vectors = [vector_of(prompt, dimensions=dimensions) for prompt in prompts]
        is_base64 = request.encoding_format == "base64"
        answer = {
            "id": f"embd-{answer_id(call).decode()}",
            "object": "list",
            "created": now(),
            "model": self._settings.base_model,
            "data": [
                {"index": index, "object": "embedding", "embedding": _base64(vector) if is_base64 else list(vector)}
                for index, vector in enumerate(vectors)
            ],
            "usage": {
                "prompt_tokens": tokens,
                "total_tokens": tokens,
                "completion_tokens": 0,
                "prompt_tokens_details": None,
            },
        }
        await call.respond(orjson.dumps(answer))


def vector_of(prompt: str | list[int], *, dimensions: int) -> "array[float]":
    """Numbers out of a hash of the prompt, scaled to length 1, as 32-bit floats."""
    text = prompt if isinstance(prompt, str) else ",".join(map(str, prompt))
    digest = hashlib.shake_128(text.encode()).digest(2 * dimensions)
    raw = [value + 0.5 for value in memoryview(digest).cast("h")]  # never all zero
    length = math.sqrt(sum(value * value for value in raw))
    return array("f", [value / length for value in raw])


def _base64(vector: "array[float]") -> str:
    return base64.b64encode(vector.tobytes()).decode()
