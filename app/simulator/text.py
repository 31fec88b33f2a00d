"""What does a simulated model say, and what is a token to it?

An answer is always the same words, a token each: first who speaks, then railway prose for as long as is asked. A
prompt is counted in tokens of four UTF-8 bytes; a token's number is its bytes behind a leading 1, so that it can be
turned back.
"""

import orjson

TOKEN_BYTES = 4

_PROSE = (
    " The points are set, the signal is green, and the next train takes the track that its name asks for."
    " A pointsman reads the board, pulls one lever, and writes the train into the book."
    " No carriage waits in the wrong station, and nobody has to change on the way."
)


def count_tokens(byte_count: int) -> int:
    """How many tokens a text of so many bytes is; never less than one."""
    return max(1, -(-byte_count // TOKEN_BYTES))


def tokenize(text: bytes) -> list[int]:
    return [
        int.from_bytes(b"\x01" + text[start : start + TOKEN_BYTES], "big")
        for start in range(0, len(text), TOKEN_BYTES)
    ]  # fmt: skip


def detokenize(tokens: list[int]) -> str:
    """The text of these tokens; what was never a token of ours reads as �, as it does with real tokenizers."""
    pieces = (token.to_bytes(max(1, (token.bit_length() + 7) // 8), "big")[1:] for token in tokens)
    return b"".join(pieces).decode("utf-8", "replace")


class Voice:
    """The words of one pod, as JSON strings ready to be put into an answer."""

    _CACHED_TEXTS = 64

    def __init__(self, *, model: str, pod: str) -> None:
        self._opening = [pod, *_words(f" here, answering as {model}.")]
        self._prose = _words(_PROSE)
        self._opening_json = [_inside_quotes(word) for word in self._opening]
        self._prose_json = [_inside_quotes(word) for word in self._prose]
        self._texts: dict[int, bytes] = {}

    def word_json(self, index: int) -> bytes:
        """Token number `index` of every answer, JSON-escaped, without its quotes."""
        position = index - len(self._opening_json)
        return self._opening_json[index] if position < 0 else self._prose_json[position % len(self._prose_json)]

    def text_json(self, tokens: int) -> bytes:
        """The first `tokens` words together, JSON-escaped, without quotes."""
        text = self._texts.get(tokens)
        if text is None:
            text = b"".join(map(self.word_json, range(tokens)))
            if len(self._texts) < self._CACHED_TEXTS:
                self._texts[tokens] = text
        return text

    def text(self, tokens: int) -> str:
        text: str = orjson.loads(b'"%b"' % self.text_json(tokens))
        return text


def _words(text: str) -> list[str]:
    return [f" {word}" for word in text.split()]


def _inside_quotes(text: str) -> bytes:
    return orjson.dumps(text)[1:-1]
