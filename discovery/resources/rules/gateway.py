"""What do the CEL rules of Gateway say? (Gateway API v1.6, gateway_types.go.)"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from discovery.resources.problem import FieldPath
from discovery.resources.schema import Finding, compile_pattern

_HOSTNAME = r"^(\*\.)?[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"
_LABEL_KEY = (
    r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?"
    r"([A-Za-z0-9][-A-Za-z0-9_.]{0,61})?[A-Za-z0-9]$"
)

Data = Mapping[str, Any]


def check_gateway(spec: Data) -> Iterator[Finding]:
    """All rules of a Gateway."""
    yield from _check_listeners(spec["listeners"], ("listeners",)) if "listeners" in spec else ()
    yield from _check_addresses(spec.get("addresses", ()), ("addresses",))
    for field in ("annotations", "labels"):
        for key in (spec.get("infrastructure") or {}).get(field, {}):
            if compile_pattern(_LABEL_KEY).search(key) is None or len(key.split("/")[0]) > 253:
                yield ("infrastructure", field, key), "is not a qualified name"


def _check_listeners(listeners: Sequence[Data], path: FieldPath) -> Iterator[Finding]:
    seen: dict[tuple[object, ...], str] = {}
    for index, listener in enumerate(listeners):
        here = (*path, index)
        protocol, tls = listener["protocol"], listener.get("tls")
        if protocol in ("HTTP", "TCP", "UDP") and tls is not None:
            yield (*here, "tls"), f"must not be there for protocol {protocol}"
        if protocol in ("TCP", "UDP") and listener.get("hostname"):
            yield (*here, "hostname"), f"must not be there for protocol {protocol}"
        if protocol == "HTTPS" and tls is not None and tls.get("mode", "Terminate") != "Terminate":
            yield (*here, "tls", "mode"), "must be Terminate for protocol HTTPS"
        if protocol == "TLS" and (tls is None or not tls.get("mode")):
            yield (*here, "tls", "mode"), "is required for protocol TLS"
        if (
            tls is not None
            and tls.get("mode", "Terminate") == "Terminate"
            and not (tls.get("certificateRefs") or tls.get("options"))
        ):
            yield (*here, "tls"), "certificateRefs or options are required when mode is Terminate"
        place = (listener["port"], protocol, listener.get("hostname"))
        if place in seen:
            yield here, f"has the port, protocol and hostname of listener {seen[place]}"
        seen.setdefault(place, listener["name"])


def _check_addresses(addresses: Sequence[Data], path: FieldPath) -> Iterator[Finding]:
    seen: set[tuple[str, str]] = set()
    for index, address in enumerate(addresses):
        type_, value = address.get("type", "IPAddress"), address.get("value")
        if value is None or type_ not in ("IPAddress", "Hostname"):
            continue
        if (type_, value) in seen:
            yield (*path, index, "value"), f"{type_} values must be unique"
        seen.add((type_, value))
        if type_ == "Hostname" and value and compile_pattern(_HOSTNAME).search(value) is None:
            yield (*path, index, "value"), "is not a hostname"
