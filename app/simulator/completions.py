"""What do /v1/completions requests and answers look like?"""

from collections.abc import Iterable

import msgspec
import orjson

from app.simulator.answering import Answering, answer_id, as_template, now
from app.simulator.bodies import JsonBody
from app.simulator.call import Call
from app.simulator.chat import StreamOptions, check_stream_options
from app.simulator.errors import ApiError
from app.simulator.prompts import count_prompt_tokens
from app.simulator.served_models import ServedModels
from app.simulator.settings import SimulatorSettings
from app.simulator.text import Voice


class CompletionRequest(msgspec.Struct):
    prompt: msgspec.Raw
    model: str | None = None
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    max_tokens: int | None = None
    n: int | None = 1


class Completions:
    """The endpoint. Several prompts in one request are counted as one long prompt and answered with n choices.

    Without max_tokens an answer has `output_tokens`, as everywhere here; vLLM has 16 for this endpoint.
    """

    def __init__(
        self, *, settings: SimulatorSettings, models: ServedModels, answering: Answering, voice: Voice
    ) -> None:
        self._body = JsonBody(CompletionRequest, required=("prompt",))
        self._models = models
        self._answering = answering
        self._words = {
            adapter: CompletionWords(settings=settings, voice=voice, model=adapter or settings.base_model)
            for adapter in (None, *settings.adapters)
        }

    async def __call__(self, call: Call) -> None:
        request = self._body.read(call)
        adapter = self._models.check(request.model)
        check_stream_options(request.stream_options, stream=request.stream)
        prompt_tokens = count_prompt_tokens(request.prompt)
        output_tokens, finish_reason = self._answering.output_tokens(
            prompt_tokens=prompt_tokens, wanted=request.max_tokens
        )
        choices = max(1, request.n or 1)
        generation = self._answering.submit(
            prompt_tokens=prompt_tokens,
            output_tokens=output_tokens,
            finish_reason=finish_reason,
            sequences=choices,
            prompt=(request.prompt,),
            adapter=adapter,
        )
        shape = CompletionShape(
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


class CompletionWords:
    """The parts of all completions of one model that never change."""

    def __init__(self, *, settings: SimulatorSettings, voice: Voice, model: str) -> None:
        self.voice = voice
        self.fingerprint_json = orjson.dumps(settings.system_fingerprint)
        name = as_template(orjson.dumps(model))
        self.head = b'{"id":"cmpl-%%b","object":"text_completion","created":%%d,"model":%b,"choices":[' % name


_CHOICE = (
    b'{"index":%d,"text":"%b","logprobs":null,"finish_reason":"%b","stop_reason":null,"token_ids":null,'
    b'"prompt_logprobs":null,"prompt_token_ids":null,"routed_experts":null}'
)


class CompletionShape:
    """One completion. All choices of n say the same."""

    def __init__(
        self,
        *,
        words: CompletionWords,
        id_json: bytes,
        options: StreamOptions | None,
        prompt_tokens: int,
        output_tokens: int,
        choices: int,
        finish_reason: bytes,
    ) -> None:
        self._words = words
        self._head = words.head % (id_json, now())
        self._include_usage = options is not None and options.include_usage
        self._output_tokens = output_tokens
        self._choices = choices
        self._finish_reason = finish_reason
        completion_tokens = output_tokens * choices
        self._usage = b'"usage":{"prompt_tokens":%d,"total_tokens":%d,"completion_tokens":%d' % (
            prompt_tokens,
            prompt_tokens + completion_tokens,
            completion_tokens,
        )

    def whole(self) -> bytes:
        text = self._words.voice.text_json(self._output_tokens)
        choices = b",".join(_CHOICE % (index, text, self._finish_reason) for index in range(self._choices))
        return (
            b'%b%b],"service_tier":null,"system_fingerprint":%b,%b,"prompt_tokens_details":null,'
            b'"completion_tokens_details":null},"kv_transfer_params":null,"ec_transfer_params":null,"metrics":null}'
        ) % (self._head, choices, self._words.fingerprint_json, self._usage)

    def opening(self) -> Iterable[bytes]:
        return ()

    def token(self, index: int) -> Iterable[bytes]:
        word = self._words.voice.word_json(index)
        finish, end = b"null", b"}"
        if index == self._output_tokens - 1:
            finish = b'"%b"' % self._finish_reason
            if not self._include_usage:
                end = b',"system_fingerprint":%b}' % self._words.fingerprint_json
        return [
            b'data: %b{"index":%d,"text":"%b","logprobs":null,"finish_reason":%b,"stop_reason":null,'
            b'"prompt_token_ids":null,"token_ids":null}]%b\n\n' % (self._head, choice, word, finish, end)
            for choice in range(self._choices)
        ]

    def closing(self) -> list[bytes]:
        done = b"data: [DONE]\n\n"
        if not self._include_usage:
            return [done]
        usage = b'data: %b],%b},"system_fingerprint":%b}\n\n'
        return [usage % (self._head, self._usage, self._words.fingerprint_json), done]

    def failed(self, error: ApiError) -> list[bytes]:
        return [error.event(), b"data: [DONE]\n\n"]
