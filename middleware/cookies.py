"""What is a cookie's value? Reads one out of a Cookie header (RFC 6265 section 4.2.1)."""

from __future__ import annotations


def read_cookie(header: bytes, name: bytes) -> bytes | None:
    """The value of the first cookie of this name, without quotes, or None."""
    if name not in header:
        return None
    for pair in header.replace(b",", b";").split(b";"):  # several Cookie fields were joined with a comma
        key, separator, value = pair.partition(b"=")
        if separator and key.strip() == name:
            return value.strip().strip(b'"')
    return None
