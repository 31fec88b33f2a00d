"""Which strings does a schema's `format` accept?"""

from __future__ import annotations

import base64
import binascii
import ipaddress
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import NamedTuple


class StringFormat(NamedTuple):
    """A format, and its name for "must be …"."""

    accepts: Callable[[str], bool]
    name: str


def _is_date_time(text: str) -> bool:
    try:
        return datetime.fromisoformat(text.replace("Z", "+00:00")).tzinfo is not None and "T" in text.upper()
    except ValueError:
        return False


def _is_base64(text: str) -> bool:
    try:
        base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return False
    return True


def _is_ip(text: str, version: int) -> bool:
    try:
        return ipaddress.ip_address(text).version == version
    except ValueError:
        return False


FORMATS: Mapping[str, StringFormat] = {
    "date-time": StringFormat(_is_date_time, "a time such as 2026-01-31T12:00:00Z"),
    "byte": StringFormat(_is_base64, "base64"),
    "ipv4": StringFormat(lambda text: _is_ip(text, 4), "an IPv4 address"),
    "ipv6": StringFormat(lambda text: _is_ip(text, 6), "an IPv6 address"),
}
