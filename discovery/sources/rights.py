"""What may the service account not read, and does it matter? One line for all kinds, where each has its own answer.

A Role names what its gateway needs: one that routes from files needs no right to any CRD, so that being refused is the
rule there. What cannot be done without is asked for again and again: at an installation a Role may come some seconds
after its pods.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence

from discovery.sources.kube_kinds import PLANNED
from discovery.sources.reflector import Reflector

logger = logging.getLogger(__name__)

_ROUTES = frozenset({"HTTPRoute", "AIGatewayRoute"})
_INDISPENSABLE = frozenset({"Gateway", "HTTPRoute", "InferencePool"})


class Rights:
    """Which of the reflectors are refused, which of them are excused, and the lines that say so."""

    def __init__(self, reflectors: Callable[[], Iterable[Reflector]], *, patience_seconds: float) -> None:
        self.has_other_routes = False  # routes come from files, too
        self._reflectors = reflectors
        self._patience_seconds = patience_seconds
        self._told: tuple[Reflector, ...] = ()
        self._timer: asyncio.TimerHandle | None = None

    def unlisted(self) -> Iterator[Reflector]:
        """Those that routing waits for: never listed, and not excused."""
        return (reflector for reflector in self._reflectors() if not self.is_enough(reflector))

    def is_enough(self, reflector: Reflector) -> bool:
        """Whether it was listed, or may not be and can be done without, so that less is served and never more.

        Policies cannot: what they restrict would be served without them. Neither can what everything hangs on. But
        where routes come from files, and a cluster's may not be read, its policies have nothing to say.
        """
        if reflector.is_listed or not reflector.is_forbidden:
            return reflector.is_listed
        kind = reflector.kind.kind
        if kind in PLANNED:
            return False
        return self._routes_are_elsewhere() or not (kind.endswith("Policy") or kind in _INDISPENSABLE)

    def _routes_are_elsewhere(self) -> bool:
        routes = [reflector for reflector in self._reflectors() if reflector.kind.kind in _ROUTES]
        return self.has_other_routes and all(reflector.is_forbidden or reflector.is_missing for reflector in routes)

    def refused(self) -> None:
        """A reflector is refused. Where that matters it is told after a moment, with all that are refused till then."""
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._patience_seconds, self._tell_missed)

    def _tell_missed(self) -> None:
        self._timer = None
        missed = [reflector for reflector in self.unlisted() if reflector.is_forbidden]
        if missed:
            others = f"; and the same of {_names(missed[1:])}" if len(missed) > 1 else ""
            logger.warning("waiting for a Role: %s%s", missed[0].problem, others)

    def tell_excused(self) -> None:
        """Say once what is done without. Called when all else is listed."""
        excused = tuple(each for each in self._reflectors() if not each.is_listed and self.is_enough(each))
        if excused and excused != self._told:
            because = "routes come from files" if self._routes_are_elsewhere() else "routes are served without them"
            text = "not read from the cluster, which is fine since %s: the service account has no right to list %s"
            logger.info(text, because, _names(excused))
        self._told = excused

    def close(self) -> None:
        """Tell nothing any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _names(reflectors: Sequence[Reflector]) -> str:
    """Kinds by their API groups, as a Role has them: "gateway.networking.k8s.io: gateways, httproutes; core: pods"."""
    by_group: dict[str, dict[str, None]] = {}
    for reflector in reflectors:
        by_group.setdefault(reflector.kind.group or "core", {})[reflector.kind.plural] = None
    named = "; ".join(f"{group}: {', '.join(plurals)}" for group, plurals in by_group.items())
    namespaces = dict.fromkeys(reflector.namespace for reflector in reflectors if reflector.namespace)
    return named + (f" (in {', '.join(namespaces)})" if namespaces else "")
