"""Which pods seem to be gone while nobody can tell? Those that refused a connection while the API server is away.

As long as a cluster is followed, its events say within a moment which pods are gone. Without them the last known pods
are used, and one that is not there any more costs each request that draws it a try: so it is left out after the first
one, and drawn again after a while, since a model server that restarts refuses connections, too.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from middleware.upstream.registry import Candidate

ABSENCE_SECONDS = 30.0


class AbsentPods:
    """Ids of pods' endpoints, each for a while. Empty, and free of cost, while the cluster can be asked."""

    def __init__(
        self, *, is_uninformed: Callable[[], bool] = lambda: False, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.is_uninformed = is_uninformed
        self._clock = clock
        self._until: dict[str, float] = {}

    def __bool__(self) -> bool:
        return bool(self._until)

    def note(self, endpoint_id: str) -> None:
        """A connection there was refused, or not answered."""
        if self.is_uninformed():
            self._until[endpoint_id] = self._clock() + ABSENCE_SECONDS

    def without(self, pool: tuple[Candidate, ...]) -> tuple[Candidate, ...]:
        """The candidates that are not absent; all of them when none would be left, or when the cluster is back."""
        now = self._clock()
        if not self.is_uninformed():
            self._until.clear()
            return pool
        for endpoint_id in [known for known, until in self._until.items() if until <= now]:
            del self._until[endpoint_id]
        return tuple(candidate for candidate in pool if candidate.upstream.id not in self._until) or pool
