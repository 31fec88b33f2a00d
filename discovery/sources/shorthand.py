"""What does `--model NAME=URL[,URL...]` stand for? One HTTPRoute rule and one Backend, decoded like any file."""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from discovery.resources.decode import decode
from discovery.resources.decoded import Decoded
from discovery.resources.meta import ENVOY_GATEWAY, GATEWAY_API
from discovery.resources.problem import Problem, Severity

_MAX_SLUG = 200
_DEFAULT_PORT = 80


class ShorthandError(ValueError):
    """A `--model` that cannot be understood. The text never repeats a URL: it may hold a password."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Address:
    host: str
    port: int
    is_ip: bool


def decode_models(models: Sequence[str]) -> Decoded:
    """The objects that all `--model` options stand for; what is wrong with one is a problem, the others remain."""
    decoded = Decoded()
    names: set[str] = set()
    slugs: set[str] = set()
    for option in models:
        name = option.partition("=")[0]
        try:
            model, addresses = parse_model(option)
            if model in names:
                raise ShorthandError("is given twice: give all its URLs in one --model, separated by commas")
        except ShorthandError as error:
            problem = Problem(severity=Severity.REFUSED, message=str(error), file=f"--model {name}")
            decoded.problems.append(problem)
            continue
        names.add(model)
        slug = _unique_slug(model, slugs)
        slugs.add(slug)
        part = decode(json.dumps({"kind": "List", "items": _objects(model, slug, addresses)}), file=f"--model {name}")
        decoded.objects.extend(part.objects)
        decoded.problems.extend(part.problems)
    return decoded


def parse_model(option: str) -> tuple[str, list[_Address]]:
    """The model and its addresses. Raises ShorthandError."""
    model, separator, urls = option.partition("=")
    if not separator or not model or not urls:
        raise ShorthandError("must have the form NAME=URL or NAME=URL,URL")
    return model, [_parse_url(url.strip(), number) for number, url in enumerate(urls.split(","), 1)]


def _parse_url(url: str, number: int) -> _Address:
    which = f"URL {number}"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ShorthandError(f"{which} is not a URL such as http://127.0.0.1:8000") from None
    if parts.scheme == "https":
        raise ShorthandError(f"{which}: https is not supported yet, use http")
    if parts.scheme != "http" or not parts.hostname:
        raise ShorthandError(f"{which} must be like http://127.0.0.1:8000")
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        raise ShorthandError(f"{which} must not have a path: the client's path is forwarded as it is")
    if "@" in parts.netloc:
        raise ShorthandError(f"{which} must not have a user or a password")
    if port == 0:
        raise ShorthandError(f"{which}: port 0 cannot be connected to")
    host, is_ip = parts.hostname, True
    try:
        # The Backend's schema takes IPv6 addresses without "::" only, or with few shapes of it.
        ip = ipaddress.ip_address(host)
        host = str(ip) if ip.version == 4 else ":".join(f"{int(part, 16):x}" for part in ip.exploded.split(":"))
    except ValueError:
        is_ip = False
    return _Address(host=host, port=port or _DEFAULT_PORT, is_ip=is_ip)


def _objects(model: str, slug: str, addresses: Sequence[_Address]) -> list[dict[str, Any]]:
    """A route and its Backend; two Backends where IP addresses and names are mixed, which one Backend cannot hold."""
    ips = [a for a in addresses if a.is_ip]
    names = [a for a in addresses if not a.is_ip]
    groups = [group for group in (ips, names) if group]
    backends: list[dict[str, Any]] = []
    refs: list[dict[str, Any]] = []
    for number, group in enumerate(groups, 1):
        backend_name = slug if len(groups) == 1 else f"{slug}-{number}"
        endpoints = [
            {"ip": {"address": a.host, "port": a.port}} if a.is_ip else {"fqdn": {"hostname": a.host, "port": a.port}}
            for a in group
        ]
        metadata = {"name": backend_name}
        backends.append(
            {
                "apiVersion": f"{ENVOY_GATEWAY}/v1alpha1",
                "kind": "Backend",
                "metadata": metadata,
                "spec": {"endpoints": endpoints},
            }
        )
        refs.append({"group": ENVOY_GATEWAY, "kind": "Backend", "name": backend_name, "weight": len(group)})
    match = {"headers": [{"type": "Exact", "name": "X-Gateway-Model-Name", "value": model}]}
    route = {
        "apiVersion": f"{GATEWAY_API}/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": slug},
        "spec": {"rules": [{"matches": [match], "backendRefs": refs}]},
    }
    return [route, *backends]


def _unique_slug(model: str, taken: set[str]) -> str:
    """An object name that reads like the model."""
    readable = re.sub(r"[^a-z0-9]+", "-", model.lower()).strip("-")[:_MAX_SLUG].strip("-")
    base = f"model-{readable}" if readable else "model"
    slug, number = base, 2
    while slug in taken:
        slug, number = f"{base}-{number}", number + 1
    return slug
