"""How are values of manifests shown to people? As text, and masked where they may be credentials."""

from __future__ import annotations

MASK = "***"
_CREDENTIAL_NAMES = frozenset(
    {b"authorization", b"proxy-authorization", b"api-key", b"x-api-key", b"x-goog-api-key", b"cookie", b"set-cookie"}
)
_CREDENTIAL_PARTS = (b"token", b"secret", b"password", b"api-key", b"apikey", b"credential")


def is_credential(name: bytes) -> bool:
    """Whether a header of this lower-case name may hold a credential."""
    return name in _CREDENTIAL_NAMES or any(part in name for part in _CREDENTIAL_PARTS)


def is_secret_member(name: str) -> bool:
    """The same of a member of a request's body, where tokens are mostly those of a text."""
    name = name.lower().replace("_", "-")
    return is_credential(name.encode()) and not name.endswith("tokens")


def as_text(value: bytes) -> str:
    """The bytes of a header or a path, whatever they are."""
    return value.decode("utf-8", "replace")
