"""How many tokens is a prompt that may be text, token numbers, or a list of either?"""

import msgspec

from app.simulator.errors import Problem, invalid_body
from app.simulator.text import count_tokens


def prompts_of(raw: msgspec.Raw, *, field: str) -> list[str] | list[list[int]]:
    """Each prompt for itself. Raises ApiError for what is no prompt."""
    found = msgspec.json.decode(raw)
    match found:
        case str():
            return [found]
        case [*texts] if texts and all(isinstance(text, str) for text in texts):
            return texts
        case [*tokens] if tokens and all(isinstance(token, int) for token in tokens):
            return [tokens]
        case [*lists] if lists and all(isinstance(tokens, list) for tokens in lists):
            return lists
        case _:
            message = "Input should be a valid string or a list of strings or tokens"
            raise invalid_body(Problem(kind="value_error", where=f"body.{field}", message=message, found="<prompt>"))


def count_prompt_tokens(raw: msgspec.Raw) -> int:
    """Of all prompts together; a text is not copied for that."""
    view = memoryview(raw)
    first = bytes(view[:1])
    if first == b'"':
        return count_tokens(view.nbytes - 2)
    if first != b"[":
        return 1
    total = 0
    for item in msgspec.json.decode(raw, type=list[msgspec.Raw]):
        inner = memoryview(item)
        match bytes(inner[:1]):
            case b'"':
                total += count_tokens(inner.nbytes - 2)
            case b"[":
                total += len(msgspec.json.decode(item, type=list[msgspec.Raw]))
            case _:
                total += 1
    return max(1, total)
