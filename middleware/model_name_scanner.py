"""Where in an answer is the model's name, and what of the answer can go on?

What counts is the key `model` of a JSON answer's top level, and in a stream the first one of each event's data: of its
top level, of its `response` (OpenAI's Responses) or of its `message` (Anthropic's Messages). The value must be exactly
the name that was sent. Everything deeper, and everything inside a string, is the model's own text or an argument that
it chose for a tool, and is not touched.

The answer is looked at as it comes, in whatever pieces. Nothing is held back but the beginning of such a key or of the
name behind it that a piece ends with: at most twelve times the name's length.
"""

from __future__ import annotations

import re

import msgspec

MODEL_KEY = b'"model"'
_HOLDERS = (b'"response"', b'"message"')
_LONGEST_KEY = max(map(len, _HOLDERS))
_MAX_KNOWN_BYTES = 4096
_QUOTE, _OPENING = ord('"'), b"{["
_WHITE = b" \t\r\n"

# No line ends: JSON writes them as escapes, and so a stray quote in a comment ends with its line.
_PLAIN = rb"[\x00-\t\x0b\x0c\x0e-!#-\[\]-\xff]*+"
_INSIDE = _PLAIN + rb"(?:\\[^\r\n]" + _PLAIN + rb")*+"
_BLANK_LINE = rb"\r?\n\r?\n|\r\r"
# What has no bracket and no line end. Sets written as ranges are looked up in a bitmap.
_UNNESTED = re.compile(rb'(?:[\x00-\t\x0b\x0c\x0e-!#-Z\\^-z|~-\xff]++|"' + _INSIDE + rb'")*+')
# Groups: the closing quote, the colon that makes a string a key, a blank line.
_TOKEN = re.compile(rb'"' + _INSIDE + rb'(?:(")([ \t\r\n]*+:)?+)?+|[{}\[\]]|(' + _BLANK_LINE + rb")")
_REST_OF_STRING = re.compile(_INSIDE + rb'("?+)')
_VALUE = re.compile(rb'[ \t\r\n]*+("' + _INSIDE + rb'("?+))?+')
_END_OF_EVENT = re.compile(_BLANK_LINE)
# All of it in one step for what model servers write: the name behind members that are no objects.
_STRING = rb'"' + _INSIDE + rb'"'
_SIMPLE = rb"[ \t]*+:[ \t]*+(?:" + _STRING + rb"|\[[^\"\[\]{}\r\n]*+\]|[^\"\[\]{},\r\n]++),[ \t]*+"
_HEAD = re.compile(
    rb"(?:[a-z]++:[^\"\[\]{}\r\n]*+\r?\n)*+(?:data:)?[ \t]*+\{[ \t]*+"
    rb'(?:(?!"(?:model|response|message)")' + _STRING + _SIMPLE + rb")*+"
    rb'(?:"(?:response|message)"[ \t]*+:[ \t]*+\{[ \t]*+(?:(?!"model")' + _STRING + _SIMPLE + rb")*+)?+"
    rb'"model"[ \t]*+:[ \t]*+(' + _STRING + rb")"
)
_JSON_HEAD = re.compile(
    rb'\s*+\{\s*+(?:(?!"model")' + _STRING + _SIMPLE + rb')*+"model"[ \t]*+:[ \t]*+(' + _STRING + rb")"
)
_name_decoder = msgspec.json.Decoder(str)


class NameScanner:
    """Reads JSON only as far as needed to know where in it we are: strings, brackets, and in a stream blank lines.

    ``is_fresh``: all that came so far were whole events. ``known`` is how an event began in which the name was found,
    up to and with the name, ``renamed`` the same with the client's. ``is_over``: a JSON answer's name was passed.
    """

    __slots__ = (
        "_asked",
        "_depth",
        "_held",
        "_is_escaped",
        "_is_holder_due",
        "_is_in_holder",
        "_is_in_string",
        "_is_stream",
        "_is_value_due",
        "_last",
        "_longest_value",
        "_sent",
        "_sent_name",
        "is_fresh",
        "is_over",
        "known",
        "renamed",
        "separator",
    )

    def __init__(self, *, asked: str, sent: str, is_stream: bool) -> None:
        self._asked = msgspec.json.encode(asked)
        self._sent = msgspec.json.encode(sent)
        self._sent_name = sent
        self._longest_value = 12 * len(sent) + 2  # every character as two escapes, and the quotes
        self._is_stream = is_stream
        self._held = b""
        self._last = b""  # what came last: a blank line may be cut in two
        self.separator = b"\n\n"  # of this stream's events
        self.known = self.renamed = b""
        self._begin()
        self.is_fresh = True

    def _begin(self) -> None:
        """A document begins."""
        self._depth = 0
        self._is_holder_due = False  # `response` or `message` was the last token
        self._is_in_holder = False  # its object is what is open at depth 2
        self._is_value_due = False  # `model` was the last token
        self._is_in_string = False
        self._is_escaped = False  # the string's next byte belongs to a backslash
        self.is_over = False

    def flush(self) -> bytes:
        held, self._held = self._held, b""
        return held

    def scan(self, data: bytes) -> tuple[bytes, bytes]:
        """What of the answer can go on now; and what begins with the next event, which was not looked at."""
        if self._is_stream and self._last.endswith((b"\n", b"\r")):
            cut = _END_OF_EVENT.search(self._last + data[:3])
            if cut is not None and cut.end() > len(self._last):
                self._begin()
        self._last = (self._last + data)[-3:] if len(data) < 3 else data[-3:]
        data, self._held = self._held + data, b""
        was_fresh, self.is_fresh = self.is_fresh, False
        end = len(data)
        out: list[bytes] = []
        copied = position = 0
        if was_fresh and self.known and data.startswith(self.known):
            self.is_over = True
            out.append(self.renamed)
            copied = position = len(self.known)
        elif was_fresh:
            head = (_HEAD if self._is_stream else _JSON_HEAD).match(data)
            if head is not None:
                self.is_over = True
                start, position = head.span(1)
                if self._is_sent_name(data[start:position]):
                    out += (data[:start], self._asked)
                    copied = position
                    self._learn(data[:start], data[start:position])
        elif self._is_in_string and data:
            position = self._leave_string(data)
        while position < end:
            if self.is_over and not self._is_stream:
                break
            if self.is_over and b"\r" not in data:  # two plain searches are a third of the expression's cost
                position = data.find(b"\n\n", position) + 2
                if position < 2:
                    break
                self._begin()
                self.is_fresh, end = True, position
                break
            if self.is_over:
                found = _END_OF_EVENT.search(data, position)
            elif self._is_value_due:
                found = _VALUE.match(data, position)
                assert found is not None
                start, position = found.start(1), found.end()
                if start < 0 and position == end:
                    break
                if start >= 0 and not found.group(2) and position >= end - 1 and end - start <= self._longest_value:
                    self._held, end = data[start:], start
                    break
                self._is_value_due, self.is_over = False, True
                if start >= 0 and found.group(2) and self._is_sent_name(data[start:position]):
                    out += (data[copied:start], self._asked)
                    copied = position
                    if was_fresh:
                        self._learn(data[:start], data[start:position])
                continue
            else:
                if self._depth > 2 or (self._depth == 2 and not self._is_in_holder):
                    # Too deep for keys of ours: an embedding's numbers are leapt over in one step.
                    leap = _UNNESTED.match(data, position)
                    assert leap is not None
                    position = leap.end()
                found = _TOKEN.search(data, position)
            if found is None:
                break
            start, position = found.span()
            byte = data[start]
            if byte == _QUOTE:
                if self._is_cut(found, data):
                    self._held, end = data[start:], start
                    break
                if self._is_in_string:
                    break
            elif byte not in b"\r\n":
                self._step(byte)
            elif self._is_stream:
                self._begin()
                self.separator, self.is_fresh, end = found.group(), True, position
                break
        rest = data[end:] if self.is_fresh else b""
        if not copied:
            return (data if end == len(data) else data[:end]), rest
        out.append(data[copied:end])
        return b"".join(out), rest

    def _step(self, bracket: int) -> None:
        """An object or an array begins or ends."""
        if bracket in _OPENING:
            self._depth += 1
            if self._depth == 2:
                self._is_in_holder = self._is_holder_due and bracket == _OPENING[0]
        elif self._depth:
            self._depth -= 1
        self._is_holder_due = False

    def _is_cut(self, found: re.Match[bytes], data: bytes) -> bool:
        """Take a string in. Whether it may be one of the keys, of which the rest has not come."""
        start, end = found.span()
        depth = self._depth
        is_shallow = depth == 1 or (depth == 2 and self._is_in_holder)
        is_holder_due, self._is_holder_due = self._is_holder_due, False
        if found.group(1) is None:
            if end < len(data) - 1 or (end < len(data) and data[end:] != b"\\"):
                return False  # a line end: no string of JSON
            if is_shallow and len(data) - start < _LONGEST_KEY:
                text = data[start:]
                if any(key.startswith(text) for key in self._keys(depth)):
                    self._is_holder_due = is_holder_due
                    return True
            self._is_in_string, self._is_escaped = True, end < len(data)
            return False
        if is_shallow and (text := data[start : found.end(1)]) in self._keys(depth):
            if found.group(2) is None:
                return not data[end:].strip(_WHITE)
            if text == MODEL_KEY:
                self._is_value_due = True
            else:
                self._is_holder_due = True
        return False

    def _keys(self, depth: int) -> tuple[bytes, ...]:
        return (MODEL_KEY, *_HOLDERS) if self._is_stream and depth == 1 else (MODEL_KEY,)

    def _leave_string(self, data: bytes) -> int:
        """Where the string ends in which the last piece ended; the data's end when it does not."""
        found = _REST_OF_STRING.match(data, 1 if self._is_escaped else 0)
        assert found is not None
        end = found.end()
        if found.group(1) or (end < len(data) and data[end:] != b"\\"):
            self._is_in_string = self._is_escaped = False
            return end
        self._is_escaped = end < len(data)
        return len(data)

    def _is_sent_name(self, value: bytes) -> bool:
        if value == self._sent or len(value) > self._longest_value:
            return value == self._sent
        try:
            return _name_decoder.decode(value) == self._sent_name
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return False

    def _learn(self, beginning: bytes, value: bytes) -> None:
        known = beginning + value
        if self._is_stream and len(known) <= _MAX_KNOWN_BYTES and known.count(MODEL_KEY) == 1:
            self.known, self.renamed = known, beginning + self._asked
