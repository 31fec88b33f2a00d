"""What do /v1/chat/completions requests and answers look like?"""

from collections.abc import Iterable, Iterator

import msgspec
import orjson

from app.simulator.answering import Answering, answer_id, as_template, now
from app.simulator.bodies import JsonBody, expect_list
from app.simulator.call import Call
from app.simulator.errors import ApiError, bad_parameter
from app.simulator.served_models import ServedModels
from app.simulator.settings import SimulatorSettings
from app.simulator.text import Voice, count_tokens


class StreamOptions(msgspec.Struct):
    include_usage: bool | None = False
    continuous_usage_stats: bool | None = False


class ChatRequest(msgspec.Struct):
    messages: msgspec.Raw
    model: str | None = None
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    n: int | None = 1


def check_stream_options(options: StreamOptions | None, *, stream: bool | None) -> None:
    if options is not None and not stream:
        raise bad_parameter("Stream options can only be defined when `stream=True`.", name="stream_options")


class ChatCompletions:
    """The endpoint. The prompt is `messages` as they stand in the body, four bytes a token."""

    def __init__(
        self, *, settings: SimulatorSettings, models: ServedModels, answering: Answering, voice: Voice
    ) -> None:
        self._body = JsonBody(ChatRequest, required=("messages",))
        self._models = models
        self._answering = answering
        self._words = {
            adapter: ChatWords(settings=settings, voice=voice, model=adapter or settings.base_model)
            for adapter in (None, *settings.adapters)
        }

    async def __call__(self, call: Call) -> None:
        request = self._body.read(call)
        expect_list(request.messages, field="messages")
        adapter = self._models.check(request.model)
        check_stream_options(request.stream_options, stream=request.stream)
        prompt_tokens = count_tokens(memoryview(request.messages).nbytes)
        wanted = request.max_completion_tokens if request.max_completion_tokens is not None else request.max_tokens
        output_tokens, finish_reason = self._answering.output_tokens(prompt_tokens=prompt_tokens, wanted=wanted)
        choices = 1 if request.n is None else request.n
        if choices < 1:
            raise bad_parameter(f"n must be at least 1, got {choices}.", name="n", value=choices)
        generation = self._answering.submit(
            prompt_tokens=prompt_tokens,
            output_tokens=output_tokens,
            finish_reason=finish_reason,
            sequences=choices,
            prompt=(request.messages,),
            adapter=adapter,
        )
        shape = ChatShape(
            words=self._words[adapter],
            id_json=answer_id(call),
            options=request.stream_options,
            prompt_tokens=prompt_tokens,
            output_tokens=output_tokens,
            choices=choices,
            finish_reason=finish_reason.encode(),
        )
        if request.stream:
            await self._answering.as_stream(call, generation, shape)
        else:
            await self._answering.in_one_piece(call, generation)
            await call.respond(shape.whole())


class ChatWords:
    """The parts of all chat answers of one model that never change."""

    def __init__(self, *, settings: SimulatorSettings, voice: Voice, model: str) -> None:
        self.voice = voice
        self.model_json = orjson.dumps(model)
        self.fingerprint_json = orjson.dumps(settings.system_fingerprint)
        self.whole = (
            b'{"id":"chatcmpl-%%b","object":"chat.completion","created":%%d,"model":%b,"choices":[%%b],'
            b'"service_tier":null,"system_fingerprint":%b,"usage":{"prompt_tokens":%%d,"total_tokens":%%d,'
            b'"completion_tokens":%%d,"prompt_tokens_details":null,"completion_tokens_details":null},'
            b'"prompt_logprobs":null,"prompt_token_ids":null,"prompt_text":null,"kv_transfer_params":null,'
            b'"ec_transfer_params":null,"metrics":null}'
        ) % (as_template(self.model_json), as_template(self.fingerprint_json))
        self.event = (
            b'data: {"id":"chatcmpl-%%b","object":"chat.completion.chunk","created":%%d,"model":%b,"choices":['
        ) % as_template(self.model_json)


_CHOICE = (
    b'{"index":%d,"message":{"role":"assistant","content":"%b","refusal":null,"annotations":null,"audio":null,'
    b'"function_call":null,"reasoning":null},"logprobs":null,"finish_reason":"%b","stop_reason":null,'
    b'"token_ids":null,"routed_experts":null}'
)


class ChatShape:
    """One chat answer. All choices of n say the same."""

    def __init__(
        self,
        *,
        words: ChatWords,
        id_json: bytes,
        options: StreamOptions | None,
        prompt_tokens: int,
        output_tokens: int,
        choices: int,
        finish_reason: bytes,
    ) -> None:
        self._words = words
        self._id_json = id_json
        self._created = now()
        self._options = options or StreamOptions()
        self._prompt_tokens = prompt_tokens
        self._output_tokens = output_tokens
        self._choices = choices
        self._finish_reason = finish_reason
        self._event = b""

    def whole(self) -> bytes:
        text = self._words.voice.text_json(self._output_tokens)
        choices = b",".join(_CHOICE % (index, text, self._finish_reason) for index in range(self._choices))
        completion_tokens = self._output_tokens * self._choices
        return self._words.whole % (
            self._id_json,
            self._created,
            choices,
            self._prompt_tokens,
            self._prompt_tokens + completion_tokens,
            completion_tokens,
        )

    def opening(self) -> Iterator[bytes]:
        self._event = self._words.event % (self._id_json, self._created)
        for index in range(self._choices):
            yield (
                b'%b{"index":%d,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}]'
                b'%b,"prompt_token_ids":null,"prompt_text":null}\n\n'
            ) % (self._event, index, self._usage_so_far(0))

    def token(self, index: int) -> Iterable[bytes]:
        word = self._words.voice.word_json(index)
        usage = self._usage_so_far(index + 1)
        if index < self._output_tokens - 1:
            finish, end = b"null", b"}"
        else:
            finish = b'"%b","stop_reason":null' % self._finish_reason
            fingerprint = b',"system_fingerprint":%b}' % self._words.fingerprint_json
            end = b"}" if self._options.include_usage else fingerprint
        return [
            b'%b{"index":%d,"delta":{"content":"%b"},"logprobs":null,"finish_reason":%b,"token_ids":null}]%b%b\n\n'
            % (self._event, choice, word, finish, usage, end)
            for choice in range(self._choices)
        ]

    def closing(self) -> list[bytes]:
        done = b"data: [DONE]\n\n"
        if not self._options.include_usage:
            return [done]
        completion_tokens = self._output_tokens * self._choices
        usage = (
            b'%b],"usage":{"prompt_tokens":%d,"total_tokens":%d,"completion_tokens":%d},"system_fingerprint":%b}\n\n'
            % (
                self._event,
                self._prompt_tokens,
                self._prompt_tokens + completion_tokens,
                completion_tokens,
                self._words.fingerprint_json,
            )
        )
        return [usage, done]

    def failed(self, error: ApiError) -> list[bytes]:
        return [error.event(), b"data: [DONE]\n\n"]

    def _usage_so_far(self, tokens: int) -> bytes:
        if not (self._options.continuous_usage_stats and self._options.include_usage):
            return b""
        return (
            b',"usage":{"prompt_tokens":%d,"total_tokens":%d,"completion_tokens":%d,"completion_tokens_details":null}'
            % (self._prompt_tokens, self._prompt_tokens + tokens, tokens)
        )
