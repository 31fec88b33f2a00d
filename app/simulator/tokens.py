"""What do /tokenize and /detokenize answer? The tokens of text.py, without a slot in the engine."""

import msgspec
import orjson

from app.simulator.bodies import JsonBody
from app.simulator.call import Call
from app.simulator.served_models import ServedModels
from app.simulator.settings import SimulatorSettings
from app.simulator.text import detokenize, tokenize


class TokenizeRequest(msgspec.Struct):
    prompt: str | None = None
    messages: msgspec.Raw = msgspec.Raw()
    model: str | None = None
    return_token_strs: bool | None = False


class DetokenizeRequest(msgspec.Struct):
    tokens: list[int]
    model: str | None = None


class Tokens:
    """Both endpoints. Messages are tokenized as they stand in the body, as a chat counts them."""

    def __init__(self, *, settings: SimulatorSettings, models: ServedModels) -> None:
        self._tokenize_body = JsonBody(TokenizeRequest, required=())
        self._detokenize_body = JsonBody(DetokenizeRequest, required=("tokens",))
        self._max_model_len = settings.max_model_len
        self._models = models

    async def tokenize(self, call: Call) -> None:
        request = self._tokenize_body.read(call)
        self._models.check(request.model)
        text = bytes(request.messages) or (request.prompt or "").encode()
        tokens = tokenize(text)
        texts = [detokenize([token]) for token in tokens] if request.return_token_strs else None
        answer = {"count": len(tokens), "max_model_len": self._max_model_len, "tokens": tokens, "token_strs": texts}
        await call.respond(orjson.dumps(answer))

    async def detokenize(self, call: Call) -> None:
        request = self._detokenize_body.read(call)
        self._models.check(request.model)
        await call.respond(orjson.dumps({"prompt": detokenize(request.tokens)}))
