"""What is a source? Something that says its whole state, each time it is asked; never a difference."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol

from discovery.resources.collection import Resources
from discovery.resources.problem import Problem


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceState:
    """Everything that a source holds at one moment, and what is wrong with it."""

    resources: Resources
    problems: tuple[Problem, ...] = ()
    fingerprint: str = ""  # equal ones mean that nothing has changed; "" where the source knows no such thing
    deleted_pods: frozenset[str] = frozenset()  # identities (uid, else namespace/name) of pods that are gone
    is_membership_only: bool = False  # nothing but pods and EndpointSlices has changed since the last state


class Source(Protocol):
    """Where resources come from: files, or the Kubernetes API."""

    def read(self) -> SourceState:
        """The whole state. What cannot be read is a problem in it, never an exception."""
        ...

    def watch(self) -> AsyncIterator[SourceState]:
        """The whole state now, and again each time that it has changed. Never ends by itself."""
        ...
