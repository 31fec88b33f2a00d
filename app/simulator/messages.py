"""What do Anthropic's /v1/messages requests and answers look like, as vLLM has them?"""

from collections.abc import Iterable

import msgspec
import orjson

from app.simulator.answering import Answering, answer_id
from app.simulator.bodies import JsonBody, expect_list
from app.simulator.call import Call
from app.simulator.errors import ApiError, Problem, invalid_body
from app.simulator.served_models import ServedModels
from app.simulator.settings import SimulatorSettings
from app.simulator.text import Voice, count_tokens

_STOP_REASONS = {"stop": b"end_turn", "length": b"max_tokens"}


class MessagesRequest(msgspec.Struct):
    model: str
    messages: msgspec.Raw
    max_tokens: int
    system: msgspec.Raw = msgspec.Raw()
    stream: bool | None = False


class CountTokensRequest(msgspec.Struct):
    model: str
    messages: msgspec.Raw
    system: msgspec.Raw = msgspec.Raw()


class Messages:
    """Both endpoints. The prompt is `system` and `messages` as they stand in the body, four bytes a token."""

    def __init__(
        self, *, settings: SimulatorSettings, models: ServedModels, answering: Answering, voice: Voice
    ) -> None:
        self._body = JsonBody(MessagesRequest, required=("model", "messages", "max_tokens"))
        self._count_body = JsonBody(CountTokensRequest, required=("model", "messages"))
        self._models = models
        self._answering = answering
        self._voice = voice
        self._model = orjson.dumps(settings.base_model)
        self._whole = (
            b'{"id":"chatcmpl-%b","type":"message","role":"assistant","content":[{"type":"text","text":"%b"}],'
            b'"model":%b,"stop_reason":"%b","usage":{"input_tokens":%d,"output_tokens":%d}}'
        )
        self._start = (
            b'event: message_start\ndata: {"type":"message_start","message":{"id":"chatcmpl-%b","type":"message",'
            b'"role":"assistant","content":[],"model":%b,"stop_reason":null,"stop_sequence":null,'
            b'"usage":{"input_tokens":%d,"output_tokens":0}}}\n\n'
        )

    async def create(self, call: Call) -> None:
        request = self._body.read(call)
        adapter = self._check(request)
        prompt_tokens = _count(request)
        output_tokens, finish_reason = self._answering.output_tokens(
            prompt_tokens=prompt_tokens, wanted=request.max_tokens
        )
        generation = self._answering.submit(
            prompt_tokens=prompt_tokens,
            output_tokens=output_tokens,
            finish_reason=finish_reason,
            prompt=(request.system, request.messages),
            adapter=adapter,
        )
        model = self._model if adapter is None else orjson.dumps(adapter)
        answer = answer_id(call)
        stop_reason = _STOP_REASONS[finish_reason]
        if request.stream:
            shape = MessagesStream(
                voice=self._voice,
                start=self._start % (answer, model, prompt_tokens),
                stop_reason=stop_reason,
                prompt_tokens=prompt_tokens,
                output_tokens=output_tokens,
            )
            await self._answering.as_stream(call, generation, shape)
        else:
            await self._answering.in_one_piece(call, generation)
            text = self._voice.text_json(output_tokens)
            await call.respond(self._whole % (answer, text, model, stop_reason, prompt_tokens, output_tokens))

    async def count_tokens(self, call: Call) -> None:
        request = self._count_body.read(call)
        self._check(request)
        tokens = _count(request)
        await call.respond(b'{"input_tokens":%d,"context_management":{"original_input_tokens":%d}}' % (tokens, tokens))

    def _check(self, request: MessagesRequest | CountTokensRequest) -> str | None:
        if not request.model:
            raise invalid_body(
                Problem(kind="value_error", where="body.model", message="Value error, Model is required", found="")
            )
        expect_list(request.messages, field="messages")
        return self._models.check(request.model)


class MessagesStream:
    """The events of one streamed message."""

    def __init__(
        self, *, voice: Voice, start: bytes, stop_reason: bytes, prompt_tokens: int, output_tokens: int
    ) -> None:
        self._voice = voice
        self._start = start
        self._stop_reason = stop_reason
        self._usage = (prompt_tokens, output_tokens)

    def opening(self) -> Iterable[bytes]:
        return (
            self._start,
            b'event: content_block_start\ndata: {"type":"content_block_start",'
            b'"content_block":{"type":"text","text":""},"index":0}\n\n',
        )

    def token(self, index: int) -> Iterable[bytes]:
        return (
            b'event: content_block_delta\ndata: {"type":"content_block_delta",'
            b'"delta":{"type":"text_delta","text":"%b"},"index":0}\n\n' % self._voice.word_json(index),
        )

    def closing(self) -> list[bytes]:
        return [
            b'event: content_block_stop\ndata: {"type":"content_block_stop","index":0}\n\n',
            b'event: message_delta\ndata: {"type":"message_delta","delta":{"stop_reason":"%b","stop_sequence":null},'
            b'"usage":{"input_tokens":%d,"output_tokens":%d}}\n\n' % (self._stop_reason, *self._usage),
            b'event: message_stop\ndata: {"type":"message_stop"}\n\n',
        ]

    def failed(self, error: ApiError) -> list[bytes]:
        """Not recorded: Anthropic's own way."""
        return [b"event: error\ndata: %b\n\n" % error.body(for_messages=True)]


def _count(request: MessagesRequest | CountTokensRequest) -> int:
    return count_tokens(memoryview(request.system).nbytes + memoryview(request.messages).nbytes)
