"""Which model does a body ask for? Reads OpenAI-style JSON and multipart bodies shallowly (pure).

JSON is read with msgspec into a Struct of the few fields we use: skipped values build no objects, which keeps a hostile
body of 15 MiB of brackets from taking memory and time.
"""

from __future__ import annotations

import re
from typing import NamedTuple

import msgspec
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from middleware.errors import InvalidBodyError, InvalidModelError
from middleware.scheduling.prompt import Prompt

MAX_MODEL_NAME = 256  # characters
MAX_PARTS = 1_000  # of a multipart body: a form has a few, and each costs time
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_JSON = b"application/json"
# What HTTP clients call a JSON body when nobody told them (curl's -d, fetch's string body, nothing at all).
_MISLABELLED = frozenset({b"", b"text/plain", b"application/x-www-form-urlencoded"})


class _Body(msgspec.Struct):
    model: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class _QuickBody(Prompt):  # read with the model, since a second pass over a long prompt costs as much as the first
    model: str | msgspec.UnsetType = msgspec.UNSET


class RequestBody(NamedTuple):
    """What is read of a body."""

    model: str | None = None  # that it names
    is_json_object: bool = False  # whether it was read as one
    prompt: Prompt | None = None  # of a JSON object; it keeps the body in memory


_quick_decoder = msgspec.json.Decoder(_QuickBody)
_body_decoder = msgspec.json.Decoder(_Body)
_syntax_decoder = msgspec.json.Decoder(msgspec.Raw)
_name_decoder = msgspec.json.Decoder(str)


def media_type(content_type: bytes | None) -> bytes:
    """The media type without parameters, lower case; b"" when there is none."""
    if content_type is None:
        return b""
    return content_type.split(b";", 1)[0].strip().lower()


_OTHER = RequestBody()


def read_body(body: bytes, content_type: bytes | None) -> RequestBody:
    """The model that the body names, and the prompt.

    Raises InvalidBodyError for a body that is not what it says it is, InvalidModelError for a `model` that is no usable
    name: a string of 1 to 256 characters without control characters.
    """
    if not body:
        return _OTHER
    kind = _JSON if content_type == _JSON else media_type(content_type)
    if kind == b"multipart/form-data":
        return RequestBody(_model_of_multipart(body, content_type or b""))
    is_declared_json = kind == _JSON or kind.endswith(b"+json")
    if not is_declared_json and kind not in _MISLABELLED:
        return _OTHER
    is_object = body[:1] == b"{" or body.lstrip(b" \t\r\n")[:1] == b"{"
    if is_object:
        return _read_json(body)
    if is_declared_json:
        _check_syntax(body)
    return _OTHER


def forwarded_content_type(content_type: bytes | None) -> bytes | None:
    """What the content type of a JSON object becomes on its way to a model server; None when it can stay."""
    return _JSON if content_type != _JSON and media_type(content_type) in _MISLABELLED else None


def _read_json(body: bytes) -> RequestBody:
    try:
        read = _quick_decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return RequestBody(_model_of_odd_json(body), True)
    name = read.model
    return RequestBody(None if name is msgspec.UNSET else usable_model_name(name), True, read)


def _model_of_odd_json(body: bytes) -> str | None:
    """The model of a body that cannot be read, or whose model is no string: says which of the two it is."""
    try:
        raw = _body_decoder.decode(body).model
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        # The parser's own message can quote the body.
        raise InvalidBodyError("the request body is not valid JSON") from None
    if isinstance(raw, msgspec.UnsetType):
        return None
    try:
        name = _name_decoder.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        if bytes(raw).startswith(b'"'):
            raise InvalidBodyError("model is not valid UTF-8") from None
        raise InvalidModelError("model must be a string") from None
    return usable_model_name(name)


def _check_syntax(body: bytes) -> None:
    try:
        _syntax_decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise InvalidBodyError("the request body is not valid JSON") from None


def usable_model_name(name: str) -> str:
    """The name itself when it can be routed on. Raises InvalidModelError."""
    if not name or len(name) > MAX_MODEL_NAME:
        raise InvalidModelError(f"model must have 1 to {MAX_MODEL_NAME} characters")
    if not name.isprintable() and _CONTROL.search(name):
        raise InvalidModelError("model must not contain control characters")
    return name


class _ModelPart:
    """Collects the parts named `model` while the multipart parser walks over the body."""

    def __init__(self, body: bytes) -> None:
        self.found: bytes | None = None
        self.spans: list[tuple[int, int]] = []  # where their contents are
        self.is_located = True
        self._body = body
        self._parts = 0
        self._header_name = b""
        self._header_value = b""
        self._is_model = False
        self._value = bytearray()

    def on_part_begin(self) -> None:
        self._parts += 1
        if self._parts > MAX_PARTS:
            raise InvalidBodyError("the multipart body has too many parts")
        self._is_model = False
        self._value.clear()

    def on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]

    def on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def on_header_end(self) -> None:
        if self._header_name.lower() == b"content-disposition":
            disposition, options = parse_options_header(self._header_value)
            self._is_model = disposition == b"form-data" and options.get(b"name") == b"model"
        self._header_name = self._header_value = b""

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        if not self._is_model:
            return
        if len(self._value) <= MAX_MODEL_NAME * 4:
            self._value += data[start:end]
        # The parser may also hand out bytes of its own buffer, where it took them for a boundary at first.
        self.is_located &= data is self._body
        if self.spans and self.spans[-1][1] == start:
            self.spans[-1] = (self.spans[-1][0], end)
        else:
            self.spans.append((start, end))

    def on_part_end(self) -> None:
        if self._is_model:
            self.found = bytes(self._value)  # the last one counts, as with JSON keys


def replace_multipart_model(body: bytes, content_type: bytes, name: str) -> bytes:
    """The form with another name as the content of each part named `model`. Raises InvalidBodyError."""
    part = _walk_over(body, content_type)
    if not part.is_located:
        raise InvalidBodyError("the multipart body has a model part that cannot be changed")
    written = name.encode()
    pieces: list[bytes] = []
    copied = 0
    for start, end in part.spans:
        pieces += (body[copied:start], written)
        copied = end
    pieces.append(body[copied:])
    return b"".join(pieces)


def _model_of_multipart(body: bytes, content_type: bytes) -> str | None:
    part = _walk_over(body, content_type)
    if part.found is None:
        return None
    try:
        return usable_model_name(part.found.decode())
    except UnicodeDecodeError:
        raise InvalidModelError("model must be UTF-8 text") from None


def _walk_over(body: bytes, content_type: bytes) -> _ModelPart:
    _, options = parse_options_header(content_type)
    boundary = options.get(b"boundary")
    if not boundary:
        raise InvalidBodyError("the multipart body's content-type has no boundary")
    part = _ModelPart(body)
    is_ended = False

    def on_end() -> None:
        nonlocal is_ended
        is_ended = True

    try:
        parser = MultipartParser(
            boundary,
            {
                "on_part_begin": part.on_part_begin,
                "on_header_field": part.on_header_field,
                "on_header_value": part.on_header_value,
                "on_header_end": part.on_header_end,
                "on_part_data": part.on_part_data,
                "on_part_end": part.on_part_end,
                "on_end": on_end,
            },
        )
        parser.write(body)
        parser.finalize()
    except FormParserError:
        raise InvalidBodyError("the multipart body cannot be read") from None
    if not is_ended:
        raise InvalidBodyError("the multipart body is cut short")
    return part
