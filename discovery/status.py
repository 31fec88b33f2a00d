"""What became of each object? Conditions in Kubernetes' own words (pure)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """One of the things that a condition is about, at its field: `check` prints a line for each."""

    field: str  # "spec.rules[0].backendRefs[1]"; "" for the object itself
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """A metav1.Condition without its transition time, which only the writer knows."""

    type: str
    status: Literal["True", "False", "Unknown"]
    reason: str
    message: str = ""
    observed_generation: int | None = None
    causes: tuple[Cause, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectStatus:
    """The conditions of one object, per parent where the kind has parents (routes, pools, policies)."""

    kind: str
    namespace: str
    name: str
    parent: str | None = None  # "namespace/gateway[/listener][:port]", or what a policy is for
    conditions: tuple[Condition, ...] = ()
    group: str = ""
    attached_routes: int | None = None  # of a listener: how many routes are attached to it and accepted
    supported_kinds: tuple[tuple[str, str], ...] | None = None  # of a listener: (group, kind)
