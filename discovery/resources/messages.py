"""In which words is a value refused? What is near, what is allowed, how many are needed."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from typing import Any


def unknown_message(key: str, properties: Mapping[str, Any]) -> str:
    folded = {name.lower(): name for name in properties}
    near = folded.get(key.lower()) or next(iter(difflib.get_close_matches(key, properties, 1)), None)
    return "unknown field" + (f', did you mean "{near}"?' if near else "")


def enum_message(value: object, allowed: list[Any]) -> str:
    text = json.dumps(value) if not isinstance(value, dict | list) else name_of(value)
    near = next((a for a in allowed if str(a).lower() == str(value).lower()), None)
    if near is not None:
        return f'{text} is not allowed, did you mean "{near}"?'
    return f"{text} is not allowed, must be one of {', '.join(map(str, allowed))}"


def count_of(number: int, noun: str) -> str:
    plural = {"entry": "entries"}.get(noun, noun + "s")
    return f"{number} {noun if number == 1 else plural}"


def name_of(value: object) -> str:
    names = {dict: "a mapping", list: "a list", str: "a string", bool: "a boolean", int: "an integer", float: "a float"}
    return names.get(type(value), "null")
