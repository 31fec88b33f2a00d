"""What does /v1/audio/transcriptions answer? The simulator's usual words, whatever was said."""

from collections.abc import AsyncGenerator

import orjson
from python_multipart.exceptions import MultipartParseError
from starlette.datastructures import FormData, Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from app.simulator.answering import Answering
from app.simulator.call import Call
from app.simulator.errors import Problem, UnparsableBodyError, invalid_body
from app.simulator.served_models import ServedModels
from app.simulator.text import Voice, count_tokens


class Transcriptions:
    """The endpoint: multipart, with a `file` and, as everywhere, perhaps a `model`."""

    def __init__(self, *, models: ServedModels, answering: Answering, voice: Voice) -> None:
        self._models = models
        self._answering = answering
        self._voice = voice

    async def __call__(self, call: Call) -> None:
        form = await _read_form(call)
        try:
            file = form.get("file")
            if not isinstance(file, UploadFile):
                raise invalid_body(
                    Problem(kind="missing", where="body.file", message="Field required", found=f"<form of {len(form)}>")
                )
            size = file.size or 0
            model, response_format = _text(form, "model"), _text(form, "response_format")
        finally:
            await form.close()
        self._models.check(model)
        prompt_tokens = count_tokens(size)
        output_tokens, finish_reason = self._answering.output_tokens(prompt_tokens=prompt_tokens, wanted=None)
        generation = self._answering.submit(
            prompt_tokens=prompt_tokens, output_tokens=output_tokens, finish_reason=finish_reason
        )
        await self._answering.in_one_piece(call, generation)
        text = self._voice.text(output_tokens)
        if response_format == "text":
            await call.respond(text.encode(), content_type=b"text/plain; charset=utf-8")
        else:
            await call.respond(orjson.dumps({"text": text}))


async def _read_form(call: Call) -> FormData:
    content_type = call.header(b"content-type") or b""
    if not content_type.lower().startswith(b"multipart/form-data"):
        raise invalid_body(Problem(kind="missing", where="body.file", message="Field required", found="None"))
    try:
        return await MultiPartParser(Headers(raw=call.headers), _once(call.body)).parse()
    except (MultiPartException, MultipartParseError, KeyError):  # KeyError: no boundary
        raise UnparsableBodyError from None


async def _once(body: bytes) -> AsyncGenerator[bytes, None]:
    yield body


def _text(form: FormData, name: str) -> str | None:
    value = form.get(name)
    return value if isinstance(value, str) else None
