"""How is an option's value read? The types of ports, durations, sizes and names."""

from __future__ import annotations

import re
from typing import Any

import click


class Port(click.IntRange):
    """0 to 65535. Beside a Service named `pointsman` Kubernetes sets POINTSMAN_PORT to that Service's URL."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if str(value).startswith(("tcp://", "udp://")):
            service = "Kubernetes sets this for a Service of that name: set enableServiceLinks: false in the pod"
            self.fail(f"{value} is not a port. {service}", param, ctx)
        return super().convert(value, param, ctx)


PORT = Port(0, 65535)


class Duration(click.ParamType):  # type: ignore[type-arg]  # generic from click 8.2 on only
    """Seconds, written as 500ms, 30s, 1h30m."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        from discovery.resources.quantities import parse_duration

        try:
            return parse_duration(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


class ObjectName(click.ParamType):  # type: ignore[type-arg]
    """An object's namespace and name, written as NAMESPACE/NAME."""

    name = "namespace/name"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        if isinstance(value, tuple):
            return value
        namespace, separator, name = str(value).partition("/")
        if not separator or not namespace or not name or "/" in name:
            self.fail(f"{value} is not of the form NAMESPACE/NAME", param, ctx)
        return namespace, name


class Name(click.ParamType):  # type: ignore[type-arg]
    """A name as the API has it. With any other nothing would be found, without a word."""

    def __init__(self, kind: str, pattern: str, longest: int) -> None:
        self.name = kind
        self._pattern = pattern
        self._longest = longest

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        text = str(value)
        if len(text) > self._longest or not re.fullmatch(self._pattern, text):
            self.fail(f"{text} cannot be the name of a {self.name}", param, ctx)
        return text


_LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
NAMESPACE = Name("namespace", _LABEL, 63)
CONTROLLER = Name("controller", rf"{_LABEL}(\.{_LABEL})*/[A-Za-z0-9/\-._~%!$&'()*+,;=:]+", 253)


class Size(click.ParamType):  # type: ignore[type-arg]
    """Bytes, written as 512Mi, 1G, 1024."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        from discovery.resources.quantities import parse_quantity

        try:
            return parse_quantity(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)
