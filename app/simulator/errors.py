"""What does vLLM answer when it refuses a request? The wording and the shapes of the recordings."""

import json
from dataclasses import dataclass

import orjson

from app.simulator.engine import EngineBusyError
from app.simulator.generation import EngineDeadError

NOT_FOUND = b'{"detail":"Not Found"}'
METHOD_NOT_ALLOWED = b'{"detail":"Method Not Allowed"}'
UNPARSABLE_BODY = b'{"detail":"There was an error parsing the body"}'


class ApiError(Exception):
    """The request ends with this answer. `code` in the body is the status, a number."""

    def __init__(
        self, status: int, kind: str, message: str, *, param: str | None = None, is_validation: bool = False
    ) -> None:
        super().__init__(kind)
        self.status = status
        self._kind = kind
        self._message = message
        self._param = param
        self._is_validation = is_validation

    def body(self, *, for_messages: bool) -> bytes:
        """/v1/messages has Anthropic's shape, but not for what fails validation."""
        if for_messages and not self._is_validation:
            return orjson.dumps({"type": "error", "error": {"type": self._kind, "message": self._message}})
        return orjson.dumps({"error": self._fields()})

    def event(self) -> bytes:
        """The same inside a stream whose head is sent; vLLM writes this one with blanks."""
        return b"data: %b\n\n" % json.dumps({"error": self._fields()}).encode()

    def _fields(self) -> dict[str, str | int | None]:
        return {"message": self._message, "type": self._kind, "param": self._param, "code": self.status}


class UnparsableBodyError(Exception):
    """The body is no JSON text at all: 400 in the framework's own shape."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing wrong with a body, in pydantic's words. `where` is the dotted path, `found` describes what is there."""

    kind: str
    where: str
    message: str
    found: str
    context: str | None = None

    def line(self) -> str:
        fields = {"type": self.kind, "loc": self.where, "msg": self.message, "input": self.found}
        return str(fields if self.context is None else fields | {"ctx": {"error": self.context}})


def invalid_body(*problems: Problem) -> ApiError:
    many = "s" if len(problems) > 1 else ""
    lines = "".join(f"\n  {problem.line()}" for problem in problems)
    text = f"{len(problems)} validation error{many}:{lines}"
    return ApiError(400, "Bad Request", text, param=problems[0].where, is_validation=True)


def unsupported_media_type() -> ApiError:
    text = "1 validation error:\n  Unsupported Media Type: Only 'application/json' is allowed"
    return ApiError(400, "Bad Request", text, is_validation=True)


def unknown_model(model: str, *, served: tuple[str, ...]) -> ApiError:
    text = f"The model `{model}` does not exist. Valid aliases: {', '.join(served)}."
    return ApiError(404, "NotFoundError", text, param="model")


def bad_parameter(message: str, *, name: str, value: float | str | None = None) -> ApiError:
    suffix = f" (parameter={name})" if value is None else f" (parameter={name}, value={value})"
    return ApiError(400, "BadRequestError", message + suffix, param=name)


def prompt_too_long(*, limit: int) -> ApiError:
    text = (
        f"This model's maximum context length is {limit} tokens. However, your prompt contains at least {limit + 1} "
        "input tokens, which exceeds this limit even without any output tokens. "
        "Please reduce the length of the input prompt."
    )
    return bad_parameter(text, name="input_tokens", value=limit + 1)


def unknown_response(response_id: str) -> ApiError:
    text = f"Response with id '{response_id}' not found."
    return ApiError(404, "invalid_request_error", text, param="response_id")


def engine_error(error: EngineBusyError | EngineDeadError) -> ApiError:
    match error:
        case EngineBusyError():
            text = (
                "The engine is currently busy and cannot accept new requests. "
                "Please try again later or on a different instance."
            )
            return ApiError(503, "Service Unavailable", text)
        case EngineDeadError():
            text = "EngineCore encountered an issue. See stack trace (above) for the root cause."
            return ApiError(500, "InternalServerError", text)
