"""What is changed in a request on its way to a backend, and in its answer? Filters and model rewrites, compiled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class HeaderMutation:
    """A header modifier filter, applied as Gateway API orders it: set, then add, then remove.

    Names are lower case. ``add`` appends with a comma to what is there.
    """

    set: tuple[tuple[bytes, bytes], ...] = ()
    add: tuple[tuple[bytes, bytes], ...] = ()
    remove: frozenset[bytes] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplaceFullPath:
    """The whole path becomes ``path``; the query stays."""

    path: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplacePrefix:
    """The path's leading elements ``prefix`` become ``replacement``; neither ends with a slash, ``b""`` is the root."""

    prefix: bytes
    replacement: bytes


PathRewrite = ReplaceFullPath | ReplacePrefix


@dataclass(frozen=True, slots=True, kw_only=True)
class BodyMutation:
    """Members of a JSON object's top level that change on the way to a backend (AIGatewayRoute's bodyMutation)."""

    set: tuple[tuple[str, bytes], ...] = ()  # name and value, the value as JSON text
    remove: tuple[str, ...] = ()  # none that is set


@dataclass(frozen=True, slots=True, kw_only=True)
class Filters:
    """What a rule or a backendRef changes in the request it forwards and in the answer it relays."""

    request_headers: HeaderMutation | None = None
    response_headers: HeaderMutation | None = None
    host: bytes | None = None
    path: PathRewrite | None = None
    body: BodyMutation | None = None  # of a backendRef only


NO_FILTERS = Filters()


@dataclass(frozen=True, slots=True, kw_only=True)
class Redirect:
    """A RequestRedirect filter. ``None`` keeps the request's own part (Gateway API HTTPRequestRedirectFilter)."""

    scheme: Literal["http", "https"] | None = None
    hostname: str | None = None
    port: int | None = None
    path: PathRewrite | None = None
    status_code: Literal[301, 302, 303, 307, 308] = 302


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelTarget:
    """A name that a backend is asked for, and its share."""

    name: str  # 1..256 characters, none of them a control character
    weight: int = 1  # 0..1,000,000


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelTargets:
    """The names that one client's name stands for: one of them is drawn for each request."""

    targets: tuple[ModelTarget, ...]
    total_weight: int  # at least 1
    source: str  # the object that says so, for people: "InferenceModel default/food-review"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRewrites:
    """Which model a backend is asked for in place of the one that the client names. An exact name comes first."""

    by_model: Mapping[str, ModelTargets] = field(default_factory=lambda: MappingProxyType({}))
    generic: ModelTargets | None = None  # for every other name
