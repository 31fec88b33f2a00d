"""What does a JSON body ask for, and what does vLLM say about one that it cannot read?

The fast way is msgspec into a small Struct. What does not pass is looked at again with the standard library's json,
as vLLM does it: that reads UTF-16 and a BOM, takes `"true"` for true, and knows the words of the recorded errors.
"""

import json
import math
import re
from typing import Any, Generic, TypeVar

import msgspec
import orjson

from app.simulator.call import Call
from app.simulator.errors import (
    ApiError,
    Problem,
    UnparsableBodyError,
    bad_parameter,
    invalid_body,
    unsupported_media_type,
)

T = TypeVar("T", bound=msgspec.Struct)

_EXPECTED = re.compile(r"Expected `(\w+)[^`]*`, got `\w+` - at `\$\.([\w.]+)")
_WORDS = {
    "str": ("string_type", "Input should be a valid string"),
    "int": ("int_type", "Input should be a valid integer"),
    "bool": ("bool_type", "Input should be a valid boolean"),
    "float": ("float_type", "Input should be a valid number"),
    "array": ("list_type", "Input should be a valid list"),
    "object": ("dict_type", "Input should be a valid dictionary"),
}


class JsonBody(Generic[T]):
    """Reads bodies of one endpoint. `required` are the fields whose absence is an error, in the order of reporting."""

    def __init__(self, kind: type[T], *, required: tuple[str, ...]) -> None:
        self._decoder = msgspec.json.Decoder(kind)
        self._required = required

    def read(self, call: Call) -> T:
        """Raises ApiError, UnparsableBodyError."""
        content_type = call.header(b"content-type")
        if content_type != b"application/json" and not _is_json(content_type):
            raise unsupported_media_type()
        body = call.body
        try:
            if not body.isascii():
                body.decode()  # msgspec does not look into what it skips
            return self._decoder.decode(body)
        except RecursionError:
            raise UnparsableBodyError from None
        except (msgspec.DecodeError, UnicodeDecodeError):
            return self._read_again(body)

    def _read_again(self, body: bytes) -> T:
        if not body:
            raise invalid_body(Problem(kind="missing", where="body", message="Field required", found="None"))
        try:
            found = json.loads(body)
        except json.JSONDecodeError as error:
            raise invalid_body(
                Problem(
                    kind="json_invalid",
                    where=f"body.{error.pos}",
                    message="JSON decode error",
                    found="<dict of 0 items>",
                    context=error.msg,
                )
            ) from None
        except (UnicodeDecodeError, RecursionError):
            raise UnparsableBodyError from None
        if not isinstance(found, dict):
            message = "Input should be a valid dictionary or object to extract fields from"
            raise invalid_body(
                Problem(kind="model_attributes_type", where="body", message=message, found=_describe(found))
            )
        missing = [name for name in self._required if name not in found]
        if missing:
            raise invalid_body(
                *(
                    Problem(kind="missing", where=f"body.{name}", message="Field required", found=_describe(found))
                    for name in missing
                )
            )
        for name, value in found.items():
            if isinstance(value, float) and not math.isfinite(value):
                raise bad_parameter(f"{name} must be a finite number, got {value}.", name=name, value=value)
            if name == "stream" and isinstance(value, str) and value.lower() in ("true", "false"):
                found[name] = value.lower() == "true"
        return self._convert(found)

    def _convert(self, found: dict[str, Any]) -> T:
        try:
            return self._decoder.decode(orjson.dumps(found))
        except orjson.JSONEncodeError:
            # Half of a surrogate pair; the recorded tokenizer says this. Bodies that are read once are not searched for
            # it: that would cost more than all the rest.
            text = "TextEncodeInput must be Union[TextInputSequence, Tuple[InputSequence, InputSequence]]"
            raise ApiError(400, "BadRequestError", text) from None
        except msgspec.ValidationError as error:
            match = _EXPECTED.search(str(error))
            expected, where = match.groups() if match else ("", "")
            kind, message = _WORDS.get(expected, ("value_error", str(error)))
            value = found.get(where) if where else found
            raise invalid_body(
                Problem(kind=kind, where=f"body.{where}".rstrip("."), message=message, found=_describe(value))
            ) from None


def expect_list(raw: msgspec.Raw, *, field: str) -> None:
    """Messages are counted, not read; but a list they must be. Raises ApiError."""
    if bytes(memoryview(raw)[:1]) != b"[":
        found = _describe(msgspec.json.decode(raw))
        raise invalid_body(
            Problem(kind="list_type", where=f"body.{field}", message="Input should be a valid list", found=found)
        )


def _is_json(content_type: bytes | None) -> bool:
    return content_type is not None and content_type.partition(b";")[0].strip().lower() == b"application/json"


def _describe(value: object) -> str:
    match value:
        case dict():
            return f"<dict of {len(value)} items>"
        case list():
            return f"<list of {len(value)} items>"
        case _:
            return str(value)
