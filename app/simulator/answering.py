"""How does one generation reach its client, in one piece or as a stream?"""

import random
import time
from collections.abc import Iterable
from typing import Protocol

import msgspec
import orjson

from app.simulator.call import VARY, Call
from app.simulator.engine import Engine, EngineBusyError
from app.simulator.errors import ApiError, bad_parameter, engine_error, prompt_too_long
from app.simulator.generation import EngineDeadError, Generation
from app.simulator.leaving import ClientWatch

_STREAM_HEAD = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(b"content-type", b"text/event-stream; charset=utf-8"), VARY],
}


class Shape(Protocol):
    """What a streamed answer looks like in one interface."""

    def opening(self) -> Iterable[bytes]:
        """The events before the first token; they go out when it is there, not before."""
        ...

    def token(self, index: int) -> Iterable[bytes]:
        """The events of one token, one for each choice."""
        ...

    def closing(self) -> list[bytes]:
        """The events after the last token; at least one."""
        ...

    def failed(self, error: ApiError) -> list[bytes]:
        """The events that end a stream whose engine dies; at least one."""
        ...


class Answering:
    """Takes checked requests to the engine and the engine's tokens to the client."""

    def __init__(self, *, engine: Engine) -> None:
        self._engine = engine
        self._settings = engine.settings

    def output_tokens(self, *, prompt_tokens: int, wanted: int | None, field: str = "max_tokens") -> tuple[int, str]:
        """How long the answer is and why it ends there. Raises ApiError for a limit or a prompt that cannot be."""
        limit = self._settings.max_model_len
        if wanted is not None:
            if wanted < 1:
                raise bad_parameter(f"{field} must be at least 1, got {wanted}.", name=field, value=wanted)
            if wanted > limit:
                text = (
                    f"{field}={wanted} cannot be greater than max_model_len={limit}. "
                    "Please request fewer output tokens."
                )
                raise bad_parameter(text, name=field, value=wanted)
        if prompt_tokens > limit:
            raise prompt_too_long(limit=limit)
        return (self._settings.output_tokens, "stop") if wanted is None else (wanted, "length")

    def submit(
        self,
        *,
        prompt_tokens: int,
        output_tokens: int,
        finish_reason: str = "stop",
        sequences: int = 1,
        prompt: Iterable[bytes | msgspec.Raw] = (),
        adapter: str | None = None,
    ) -> Generation:
        """``prompt``: its parts as they stand in the body. Raises ApiError when the engine takes nothing."""
        try:
            return self._engine.submit(
                prompt_tokens=prompt_tokens,
                output_tokens=output_tokens,
                finish_reason=finish_reason,
                sequences=sequences,
                prompt=b"".join(map(bytes, prompt)) if self._settings.prefix_caching else b"",
                adapter=adapter,
            )
        except (EngineBusyError, EngineDeadError) as error:
            raise engine_error(error) from None

    async def in_one_piece(self, call: Call, generation: Generation) -> None:
        """Return when the generation is complete. Raises ApiError, ClientLeftError."""
        with generation:
            if not generation.is_over:
                try:
                    async with ClientWatch(call.receive):
                        await generation.complete()
                except EngineDeadError as error:
                    raise engine_error(error) from None

    async def as_stream(self, call: Call, generation: Generation, shape: Shape) -> None:
        """Send the head at once and the events as the tokens come, one event a chunk. Raises ClientLeftError.

        Without `itl_seconds` all events leave in one turn of the event loop: uvloop makes one write of them.
        """
        with generation:
            await call.send(_STREAM_HEAD)
            if generation.is_over:
                await self._send_events(call, generation, shape)
                return
            async with ClientWatch(call.receive):
                await self._send_events(call, generation, shape)

    async def _send_events(self, call: Call, generation: Generation, shape: Shape) -> None:
        send = call.send
        try:
            for index in range(generation.output_tokens):
                if not generation.is_over:
                    await generation.token(index)
                if index == 0:
                    for event in shape.opening():
                        await send({"type": "http.response.body", "body": event, "more_body": True})
                for event in shape.token(index):
                    await send({"type": "http.response.body", "body": event, "more_body": True})
            await generation.complete()
            *events, last = shape.closing()
        except EngineDeadError as error:
            *events, last = shape.failed(engine_error(error))
        for event in events:
            await send({"type": "http.response.body", "body": event, "more_body": True})
        await send({"type": "http.response.body", "body": last})


def answer_id(call: Call) -> bytes:
    """What follows `chatcmpl-`, JSON-escaped: the client's X-Request-Id, unchecked, else 16 hex digits."""
    given = call.header(b"x-request-id")
    return new_id() if given is None else orjson.dumps(given.decode("latin-1"))[1:-1]


def new_id() -> bytes:
    return b"%016x" % random.getrandbits(64)


def as_template(text: bytes) -> bytes:
    """Text that goes into a %-template as it is."""
    return text.replace(b"%", b"%%")


def now() -> int:
    return int(time.time())
