"""What has changed from one snapshot to the next? One line for the log."""

from __future__ import annotations

from collections.abc import Collection, Hashable
from typing import Protocol

from discovery.backend import Membership
from discovery.slices import Steps, run_at_once, run_in_slices
from discovery.snapshot import Listener, Routing


class Served(Protocol):
    """What a snapshot and a compiled configuration have in common."""

    @property
    def routing(self) -> Routing: ...

    @property
    def membership(self) -> Membership: ...


def describe_change(old: Served, new: Served) -> str:
    """Such as "+2 rules, -1 rule, 1 rule changed, +3 endpoints", or "nothing has changed"."""
    return run_at_once(_change_steps(old, new))


async def describe_change_in_slices(old: Served, new: Served) -> str:
    """The same while the event loop goes on."""
    return await run_in_slices(_change_steps(old, new))


def _change_steps(old: Served, new: Served) -> Steps[str]:
    parts: list[str] = []
    if old.routing is not new.routing:
        before, after = old.routing, new.routing
        parts += _differences("listener", {i.name for i in before.listeners}, {i.name for i in after.listeners})
        yield
        settings = {i.name: _settings(i) for i in before.listeners}
        edited = sum(i.name in settings and settings[i.name] != _settings(i) for i in after.listeners)
        if edited:
            parts.append(f"{_count(edited, 'listener')} changed")
        rules = {rule.id: rule for rule in before.rules}
        asked, asks = (yield from _conditions(before)), (yield from _conditions(after))
        yield
        parts += _differences("rule", rules.keys(), {rule.id for rule in after.rules})
        yield
        changed = 0
        for rule in after.rules:
            former = rules.get(rule.id)
            is_same = former is rule or former == rule
            changed += former is not None and not (is_same and asked.get(rule.id) == asks.get(rule.id))
            yield
        if changed:
            parts.append(f"{_count(changed, 'rule')} changed")
        parts += _differences("backend", before.backends.keys(), after.backends.keys())
    if old.membership is not new.membership:
        parts += _differences("endpoint", (yield from _endpoints(old)), (yield from _endpoints(new)))
    if parts:
        return ", ".join(parts)
    return "nothing has changed" if old.routing is new.routing else "no rule and no endpoint has changed"


def _settings(listener: Listener) -> tuple[object, ...]:
    return listener.hostname, listener.port, listener.body_limit, listener.tells_rate_limits


def _conditions(routing: Routing) -> Steps[dict[str, set[object]]]:
    """What the matches of each rule ask of a request, on each listener."""
    found: dict[str, set[object]] = {}
    for listener in routing.listeners:
        for entry in listener.table.entries:
            found.setdefault(entry.rule.id, set()).add((listener.name, entry.conditions()))
            yield
    return found


def _endpoints(served: Served) -> Steps[set[tuple[str, str]]]:
    """Each endpoint of each backend."""
    found: set[tuple[str, str]] = set()
    for backend, endpoints in served.membership.items():
        found.update((backend, endpoint.id) for endpoint in endpoints)
        yield
    return found


def _differences(noun: str, old: Collection[Hashable], new: Collection[Hashable]) -> list[str]:
    known, given = set(old), set(new)
    added, removed = len(given - known), len(known - given)
    return [f"{sign}{_count(number, noun)}" for sign, number in (("+", added), ("-", removed)) if number]


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
