"""Why does a request get its rule, and why none of the others? Asks the routing table itself, one condition at a time.

There is no second matcher here: whether a condition holds is asked of a RoutingTable that holds nothing but this
condition, and who comes first is read from the ranks that the table sorts by.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from discovery.describe import describe_entry
from discovery.hostnames import hostname_rank
from discovery.route_entry import MODEL_HEADER, Pattern, RouteEntry, RouteRequest
from discovery.routing_table import RoutingTable
from discovery.shown import MASK, is_credential
from discovery.slices import Steps, run_at_once, run_in_slices
from discovery.snapshot import Listener, Routing, Rule

MAX_OTHERS = 50

Criterion = Literal["listener", "hostname", "model", "path", "method", "header", "query", "precedence"]

_PRECEDENCE = (
    "its route's own hostname is more specific",
    "its path is of a kind that ranks first (Exact, RegularExpression, PathPrefix)",
    "its path is longer",
    "it asks for a method",
    "it asks for more headers",
    "it asks for more query parameters",
)
_TIES = (
    "its route is older",
    "its route comes first by name",
    "its route comes first by kind",
    "it comes first in the route",
    "it comes first in the rule",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """Something that spoke against an entry."""

    criterion: Criterion
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Other:
    """An entry (a match of a rule) that does not take the request, and all that spoke against it."""

    listener: str
    entry: RouteEntry
    losses: tuple[Loss, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteExplanation:
    """Where a request goes. ``others`` are the nearest first: those that lost by the fewest conditions."""

    listener: Listener | None = None
    hostname: str | None = None  # that the request belongs to on its listener; None: the routes without hostnames
    entry: RouteEntry | None = None  # the match that takes the request
    others: tuple[Other, ...] = ()
    left_out: int = field(default=0)  # others that are not in the list

    @property
    def rule(self) -> Rule | None:
        """The rule that takes the request."""
        return self.entry.rule if self.entry is not None else None

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values; values of headers that may be credentials are masked."""
        return {
            "listener": self.listener.name if self.listener is not None else None,
            "hostname": self.hostname,
            "match": describe_entry(self.entry) if self.entry is not None else None,
            "rule": self.rule.id if self.rule is not None else None,
            "others": [
                {
                    "listener": other.listener,
                    "match": describe_entry(other.entry),
                    "because": [{"criterion": loss.criterion, "reason": loss.reason} for loss in other.losses],
                }
                for other in self.others
            ],
            "othersLeftOut": self.left_out,
        }


def explain_route(
    routing: Routing, request: RouteRequest, *, port: int | None = None, limit: int = MAX_OTHERS
) -> RouteExplanation:
    """Why the request gets its rule. ``port`` as for ``Routing.select_listener``."""
    return run_at_once(_explain_steps(routing, request, port, limit))


async def explain_route_in_slices(
    routing: Routing, request: RouteRequest, *, port: int | None = None, limit: int = MAX_OTHERS
) -> RouteExplanation:
    """The same while the event loop goes on."""
    return await run_in_slices(_explain_steps(routing, request, port, limit))


def _explain_steps(routing: Routing, request: RouteRequest, port: int | None, limit: int) -> Steps[RouteExplanation]:
    listener = routing.select_listener(request.host, port)
    winner: RouteEntry | None = None
    hostname: str | None = None
    if listener is not None:
        hostname = listener.table.hostname_for(request.host)
        winner = _winner(listener.table, request, hostname)
    found: list[tuple[tuple[object, ...], Other]] = []
    for candidate in routing.listeners:
        is_selected = candidate is listener
        for entry in candidate.table.entries:
            if winner is not None and entry.rule.id == winner.rule.id:
                continue  # another match of the rule that won lost nothing
            losses = [] if is_selected else [_listener_loss(candidate, listener, request, port)]
            losses += _losses(candidate.table, entry, request)
            if not losses and winner is not None:
                losses = [_precedence_loss(candidate.table, winner, entry, hostname)]
            other = Other(listener=candidate.name, entry=entry, losses=tuple(losses))
            found.append(((not is_selected, _distance(losses), entry.precedence()), other))
            yield
    found.sort(key=lambda pair: pair[0])
    others = tuple(other for _, other in found[:limit])
    return RouteExplanation(
        listener=listener, hostname=hostname, entry=winner, others=others, left_out=len(found) - len(others)
    )


def _winner(table: RoutingTable, request: RouteRequest, hostname: str | None) -> RouteEntry | None:
    """The match by which the table's rule takes the request."""
    rule = table.match(request)
    ranked = [
        (rank, entry)
        for entry in table.entries
        if rule is not None and entry.rule.id == rule.id and not _losses(table, entry, request)
        if (rank := table.rank(entry, hostname)) is not None
    ]
    return min(ranked, key=lambda pair: pair[0])[1] if ranked else None


def _losses(table: RoutingTable, entry: RouteEntry, request: RouteRequest) -> list[Loss]:
    """What of an entry does not hold on its own listener."""
    losses = [*_hostname_losses(table, entry, request)]
    bare = RouteEntry(rule=entry.rule)
    if not _holds(replace(bare, path_kind=entry.path_kind, path=entry.path, path_regex=entry.path_regex), request):
        kind = entry.path_kind.name.replace("_", " ").lower()
        losses.append(Loss(criterion="path", reason=f"the path {request.path} is not that of {kind} {entry.path}"))
    if not _holds(replace(bare, method=entry.method), request):
        losses.append(Loss(criterion="method", reason=f"the method is {request.method}, not {entry.method}"))
    absent = [pattern for pattern in entry.headers if not _holds(replace(bare, headers=(pattern,)), request)]
    losses += [_header_loss(pattern, request) for pattern in absent]
    for pattern in entry.query:
        if not _holds(replace(bare, query=(pattern,)), request):
            name = pattern.name.decode("utf-8", "replace")
            losses.append(Loss(criterion="query", reason=f"the query parameter {name} is not {_wanted(pattern)}"))
    return losses


def _holds(condition: RouteEntry, request: RouteRequest) -> bool:
    return RoutingTable([condition]).match(request) is not None


def _hostname_losses(table: RoutingTable, entry: RouteEntry, request: RouteRequest) -> Iterator[Loss]:
    hostname = table.hostname_for(request.host)
    if table.rank(entry, hostname) is not None:
        return
    if entry.hostnames and all(hostname_rank(name, request.host) < 0 for name in entry.hostnames):
        names = ", ".join(entry.hostnames)
        yield Loss(criterion="hostname", reason=f"the host {request.host} is not one of {names}")
    elif hostname is not None:
        reason = f"the host belongs to the more specific hostname {hostname}, and its routes alone are asked"
        yield Loss(criterion="hostname", reason=reason)


def _header_loss(pattern: Pattern, request: RouteRequest) -> Loss:
    if pattern.name == MODEL_HEADER:
        return Loss(criterion="model", reason=f"the model is not {_wanted(pattern)}")
    name = pattern.name.decode("utf-8", "replace")
    if pattern.name not in request.headers:
        return Loss(criterion="header", reason=f"there is no header {name}")
    wanted = MASK if is_credential(pattern.name) else _wanted(pattern)
    return Loss(criterion="header", reason=f"the header {name} is not {wanted}")


def _wanted(pattern: Pattern) -> str:
    if pattern.value is None:
        return f"as the expression {pattern.source} describes it"
    return pattern.value.decode("utf-8", "replace")


def _listener_loss(listener: Listener, selected: Listener | None, request: RouteRequest, port: int | None) -> Loss:
    if port is not None and listener.port is not None and listener.port != port:
        reason = f"listener {listener.name} has port {listener.port}, not {port}"
    elif hostname_rank(listener.hostname, request.host) < 0:
        reason = f"listener {listener.name} takes {listener.hostname}, not {request.host}"
    else:
        name = selected.name if selected is not None else ""
        reason = f"the host belongs to listener {name}, which is more specific than {listener.name}"
    return Loss(criterion="listener", reason=reason)


def _precedence_loss(table: RoutingTable, winner: RouteEntry, entry: RouteEntry, hostname: str | None) -> Loss:
    first, second = table.rank(winner, hostname), table.rank(entry, hostname)
    reason = "it comes first"
    if first is not None and second is not None:
        for mine, its, why in zip(first[:-1], second[:-1], _PRECEDENCE, strict=True):
            if mine != its:
                return Loss(criterion="precedence", reason=f"rule {winner.rule.id} comes first: {why}")
        ties = zip(winner.tie_break, entry.tie_break, _TIES, strict=False)
        reason = next((why for mine, its, why in ties if mine != its), reason)
    return Loss(criterion="precedence", reason=f"rule {winner.rule.id} comes first: {reason}")


def _distance(losses: list[Loss]) -> tuple[int, bool]:
    """Nearer is what lost by fewer conditions; what matched, and only came later, is the nearest."""
    conditions = [loss for loss in losses if loss.criterion != "precedence"]
    return len(conditions), any(loss.criterion == "hostname" for loss in conditions)
