"""How do propagators read and write our headers? Names are lower-case bytes."""

from __future__ import annotations

from collections.abc import Mapping

from opentelemetry.propagators.textmap import Getter, Setter

from middleware.headers import RawHeaders


class ReadHeaders(Getter[Mapping[bytes, bytes]]):
    """From a request's headers by name."""

    def get(self, carrier: Mapping[bytes, bytes], key: str) -> list[str] | None:
        value = carrier.get(key.lower().encode("ascii"))
        return None if value is None else [value.decode("latin-1")]

    def keys(self, carrier: Mapping[bytes, bytes]) -> list[str]:
        return [name.decode("latin-1") for name in carrier]


class WriteHeaders(Setter[RawHeaders]):
    """Behind an attempt's headers."""

    def set(self, carrier: RawHeaders, key: str, value: str) -> None:
        name = key.lower().encode("ascii")
        carrier[:] = [pair for pair in carrier if pair[0] != name]  # two propagators may say the same
        carrier.append((name, value.encode("latin-1")))


READ = ReadHeaders()
WRITE = WriteHeaders()
