"""Which strings does a schema's `format` accept, and what do the patterns of the CRDs stand for?"""

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

_LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_DOMAIN = rf"{_LABEL}(\.{_LABEL})*"

# What would be right, for patterns that are hard to read.
PATTERN_NAMES: Mapping[str, str] = {
    r"^([0-9]{1,5}(h|m|s|ms)){1,4}$": "a duration such as 30s, 500ms or 1h30m",
    rf"^$|^{_DOMAIN}$": 'an API group such as gateway.networking.k8s.io, or ""',
    r"^[a-zA-Z]([-a-zA-Z0-9]*[a-zA-Z0-9])?$": "a kind such as Service",
    rf"^{_LABEL}$": "lower-case letters, digits and dashes, with a letter or digit at both ends",
    rf"^{_DOMAIN}$": "lower-case letters, digits, dashes and dots, with a letter or digit around each dot",
    rf"^(\*\.)?{_DOMAIN}$": "a host name such as api.example.com or *.example.com, in lower case",
    r"^[A-Za-z0-9!#$%&'*+\-.^_\x60|~]+$": "a header name: letters, digits and dashes, no spaces or colons",
    r"^[!-~]+([\t ]?[!-~]+)*$": "a header value: visible ASCII characters, single spaces between them",
    r"^[1-9]+[0-9]*([EPTGMK]i|[EPTGMk])?$": "a size such as 32Ki, 20Mi or 1G",
    r"^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$": "a label value: letters, digits, and -_. between them",
}
