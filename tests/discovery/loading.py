"""Helpers that say in one word what most tests do: load a text, compile it, ask for a rule."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from discovery.load import Compiled, Loaded, load
from discovery.route_entry import RouteRequest
from discovery.snapshot import Routing, Rule
from discovery.status import Condition

MANIFESTS = Path(__file__).parent.parent / "manifests"


class LoadText:
    """YAML text to what it comes to, through a real file."""

    def __init__(self, write: Callable[[str], Path]) -> None:
        self._write = write

    def __call__(self, text: str, *, ignored_policies: frozenset[str] = frozenset()) -> Loaded:
        return load([self._write(text)], ignored_policies=ignored_policies)

    def compiled(self, text: str, *, ignored_policies: frozenset[str] = frozenset()) -> Compiled:
        loaded = self(text, ignored_policies=ignored_policies)
        assert not loaded.is_refused, [str(problem) for problem in loaded.problems]
        return loaded.compile()

    def lines(self, text: str) -> list[str]:
        """All problems, of the text and of the objects together, without the folder's name."""
        return [str(p).replace(f"{p.file}:", "routes.yaml:") for p in self(text).compile().problems]


def ask(
    routing: Routing,
    *,
    model: str | None = None,
    host: str = "api.example.com",
    path: str = "/v1/chat/completions",
    method: str = "POST",
    query: bytes = b"",
    headers: dict[bytes, bytes] | None = None,
    port: int | None = None,
) -> Rule | None:
    """The rule that a request gets: listener by host and perhaps port, then the listener's table."""
    listener = routing.select_listener(host, port)
    if listener is None:
        return None
    sent = dict(headers or {})
    if model is not None:
        sent |= {b"x-gateway-model-name": model.encode(), b"x-ai-eg-model": model.encode()}
    request = RouteRequest(method=method, host=host, path=path, headers=sent, query=query)
    return listener.table.match(request)


def condition_of(routing: Routing, kind: str, name: str, type_: str, parent: str | None = None) -> Condition:
    """One condition of one object."""
    for status in routing.statuses:
        if (status.kind, status.name) == (kind, name) and (parent is None or status.parent == parent):
            for condition in status.conditions:
                if condition.type == type_:
                    return condition
    raise AssertionError(f"{kind}/{name} has no condition {type_}")
