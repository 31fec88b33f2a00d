"""What is a gateway that can be left unwatched? `python -m bench.switched serve …`: SIGUSR1 takes the observers
(metrics, access log, traces) from its chain, SIGUSR2 gives them back. All else is as in `pointsman serve`.

For bench.observing alone: one process that is measured in both states shows what two processes hide, since they differ
by more than that in where their memory lies.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from typing import Any, overload

from starlette.types import ASGIApp

import app.cli
import app.lifespan
import app.main
from middleware.telemetry import ExchangeObserver


class SwitchedObservers(Sequence[ExchangeObserver]):
    """The observers, or nobody."""

    def __init__(self, observers: Sequence[ExchangeObserver]) -> None:
        self._all = tuple(observers)
        self._current = self._all
        signal.signal(signal.SIGUSR1, lambda number, frame: self._switch(()))
        signal.signal(signal.SIGUSR2, lambda number, frame: self._switch(self._all))

    def _switch(self, observers: tuple[ExchangeObserver, ...]) -> None:
        self._current = observers

    def __iter__(self) -> Iterator[ExchangeObserver]:
        return iter(self._current)

    def __len__(self) -> int:
        return len(self._current)

    @overload
    def __getitem__(self, index: int) -> ExchangeObserver: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[ExchangeObserver]: ...
    def __getitem__(self, index: int | slice) -> ExchangeObserver | Sequence[ExchangeObserver]:
        return self._current[index]


def build_switched_chain(**collaborators: Any) -> ASGIApp:
    """The chain, whose observers can be switched off."""
    observers = SwitchedObservers(collaborators.pop("observers"))
    return app.main.build_chain(**collaborators, observers=observers)


if __name__ == "__main__":
    setattr(app.lifespan, "build_chain", build_switched_chain)  # noqa: B010  # a name that lifespan imports
    app.cli.main()
