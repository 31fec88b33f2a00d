"""What do OpenAI's /v1/responses requests and answers look like, as vLLM has them?

Nothing is stored: `GET /v1/responses/{id}` knows no id.
"""

from collections.abc import Iterable
from typing import Any

import msgspec
import orjson

from app.simulator.answering import Answering, new_id, now
from app.simulator.bodies import JsonBody
from app.simulator.call import Call
from app.simulator.errors import ApiError, unknown_response
from app.simulator.prompts import count_prompt_tokens
from app.simulator.served_models import ServedModels
from app.simulator.settings import SimulatorSettings
from app.simulator.text import Voice, count_tokens


class ResponsesRequest(msgspec.Struct):
    input: msgspec.Raw
    model: str | None = None
    instructions: str | None = None
    stream: bool | None = False
    max_output_tokens: int | None = None


class Responses:
    """The endpoint. A list as `input` is counted as it stands in the body, four bytes a token."""

    def __init__(
        self, *, settings: SimulatorSettings, models: ServedModels, answering: Answering, voice: Voice
    ) -> None:
        self._body = JsonBody(ResponsesRequest, required=("input",))
        self._model = settings.base_model
        self._models = models
        self._answering = answering
        self._voice = voice

    async def create(self, call: Call) -> None:
        request = self._body.read(call)
        adapter = self._models.check(request.model)
        prompt_tokens = _count(request)
        output_tokens, finish_reason = self._answering.output_tokens(
            prompt_tokens=prompt_tokens, wanted=request.max_output_tokens, field="max_output_tokens"
        )
        generation = self._answering.submit(
            prompt_tokens=prompt_tokens,
            output_tokens=output_tokens,
            finish_reason=finish_reason,
            prompt=((request.instructions or "").encode(), request.input),
            adapter=adapter,
        )
        shape = ResponseShape(
            model=adapter or self._model,
            voice=self._voice,
            request=request,
            prompt_tokens=prompt_tokens,
            output_tokens=output_tokens,
            is_cut=finish_reason == "length",
        )
        if request.stream:
            await self._answering.as_stream(call, generation, shape)
        else:
            await self._answering.in_one_piece(call, generation)
            await call.respond(orjson.dumps(shape.response(is_done=True)))

    async def retrieve(self, call: Call) -> None:
        raise unknown_response(call.path.rpartition("/")[2])


class ResponseShape:
    """One response, whole or as events."""

    def __init__(
        self,
        *,
        model: str,
        voice: Voice,
        request: ResponsesRequest,
        prompt_tokens: int,
        output_tokens: int,
        is_cut: bool,
    ) -> None:
        self._model = model
        self._voice = voice
        self._request = request
        self._prompt_tokens = prompt_tokens
        self._output_tokens = output_tokens
        self._is_cut = is_cut
        self._id = f"resp_{new_id().decode()}"
        self._item_id = f"msg_{new_id().decode()}"
        self._created = now()
        self._sequence = -1

    def response(self, *, is_done: bool) -> dict[str, Any]:
        status = "incomplete" if self._is_cut else "completed"
        return {
            "id": self._id,
            "created_at": self._created,
            "incomplete_details": {"reason": "max_output_tokens"} if is_done and self._is_cut else None,
            "instructions": self._request.instructions,
            "metadata": None,
            "model": self._model,
            "object": "response",
            "output": [self._item(is_done=True)] if is_done else [],
            "parallel_tool_calls": True,
            "temperature": 1.0,
            "tool_choice": "none",
            "tools": [],
            "top_p": 1.0,
            "background": False,
            "max_output_tokens": self._output_tokens,
            "max_tool_calls": None,
            "previous_response_id": None,
            "prompt": None,
            "reasoning": None,
            "service_tier": "auto",
            "status": status if is_done else "in_progress",
            "text": None,
            "top_logprobs": None,
            "truncation": "disabled",
            "usage": self._usage() if is_done else None,
            "user": None,
            "presence_penalty": 0.0,
            "frequency_penalty": 0.0,
            "kv_transfer_params": None,
            "ec_transfer_params": None,
            "input_messages": None,
            "output_messages": None,
        }

    def opening(self) -> Iterable[bytes]:
        place = {"content_index": 0, "item_id": self._item_id, "output_index": 0}
        return [
            self._event("response.created", response=self.response(is_done=False)),
            self._event("response.in_progress", response=self.response(is_done=False)),
            self._event("response.output_item.added", item=self._item(is_done=False), output_index=0),
            self._event("response.content_part.added", **place, part=_part("", logprobs=[])),
        ]

    def token(self, index: int) -> Iterable[bytes]:
        self._sequence += 1
        return (
            b'event: response.output_text.delta\ndata: {"content_index":0,"delta":"%b","item_id":"%b","logprobs":[],'
            b'"output_index":0,"sequence_number":%d,"type":"response.output_text.delta"}\n\n'
            % (self._voice.word_json(index), self._item_id.encode(), self._sequence),
        )

    def closing(self) -> list[bytes]:
        place = {"content_index": 0, "item_id": self._item_id, "output_index": 0}
        text = self._voice.text(self._output_tokens)
        return [
            self._event("response.output_text.done", **place, logprobs=[], text=text),
            self._event("response.content_part.done", **place, part=_part(text, logprobs=None)),
            self._event("response.output_item.done", item=self._item(is_done=True), output_index=0),
            self._event("response.completed", response=self.response(is_done=True)),
        ]

    def failed(self, error: ApiError) -> list[bytes]:
        """Not recorded: the event that vLLM sends in its other streams, without their [DONE]."""
        return [error.event()]

    def _item(self, *, is_done: bool) -> dict[str, Any]:
        return {
            "id": self._item_id,
            "content": [_part(self._voice.text(self._output_tokens), logprobs=None)] if is_done else [],
            "role": "assistant",
            "status": "completed" if is_done else "in_progress",
            "type": "message",
            "phase": None,
        }

    def _usage(self) -> dict[str, Any]:
        return {
            "input_tokens": self._prompt_tokens,
            "input_tokens_details": {
                "cached_tokens": 0,
                "cache_write_tokens": 0,
                "input_tokens_per_turn": [],
                "cached_tokens_per_turn": [],
            },
            "output_tokens": self._output_tokens,
            "output_tokens_details": {
                "reasoning_tokens": 0,
                "tool_output_tokens": 0,
                "output_tokens_per_turn": [],
                "tool_output_tokens_per_turn": [],
            },
            "total_tokens": self._prompt_tokens + self._output_tokens,
        }

    def _event(self, kind: str, **fields: object) -> bytes:
        self._sequence += 1
        fields |= {"sequence_number": self._sequence, "type": kind}
        return b"event: %b\ndata: %b\n\n" % (kind.encode(), orjson.dumps(fields))


def _part(text: str, *, logprobs: list[object] | None) -> dict[str, object]:
    return {"annotations": [], "text": text, "type": "output_text", "logprobs": logprobs}


def _count(request: ResponsesRequest) -> int:
    view = memoryview(request.input)
    of_input = count_tokens(view.nbytes) if bytes(view[:1]) == b"[" else count_prompt_tokens(request.input)
    return of_input + (count_tokens(len(request.instructions.encode())) if request.instructions else 0)
