"""How is a pick told? The score table for people, and in short as an answer's header (pure)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import orjson

from middleware.scheduling.load import Knowledge, Load
from middleware.scheduling.profile import ScoreTable
from middleware.upstream.registry import Candidate, Pick

EXPLAIN_HEADER = b"x-pointsman-explain"
SERVED_HEADER = b"x-gateway-destination-endpoint-served"
MAX_TOLD = 10  # endpoints in a header: clients take heads of 8 KiB and more

Json = dict[str, Any]


class PickScores(NamedTuple):
    """Every number behind one pick, and the endpoints that they are about."""

    table: ScoreTable
    pool: Sequence[Candidate]

    def lines(self) -> list[str]:
        """A line for each of the best endpoints, the picked one first."""
        lines = []
        for index in best(self.table)[:MAX_TOLD]:
            name, why = _name(self.pool[index]), self.table.left_out[index]
            if why:
                lines.append(f"{name} left out: {why}")
                continue
            scores = " ".join(f"{scorer}={row[index] or 0:.4g}" for scorer, row in self.table.scores.items())
            lines.append(f"{name} total={self.table.totals[index] or 0:.4g} {scores}".rstrip())
        return lines


def best(table: ScoreTable) -> list[int]:
    """The endpoints by their totals, the picked one first."""
    return sorted(range(len(table.totals)), key=lambda index: (index != table.picked, -(table.totals[index] or 0.0)))


def describe_load(load: Load) -> Json:
    """What is known of one endpoint."""
    described: Json = {
        "metrics": load.knowledge.value,
        "waiting": load.waiting,
        "running": load.running,
        "queue": load.queue,
        "kvCacheUsage": round(load.kv_usage, 4),
    }
    if load.adapters is not None:
        described["adapters"] = {
            "running": sorted(load.adapters.running),
            "waiting": sorted(load.adapters.waiting),
            "limit": load.adapters.limit,
        }
    if load.is_silent:
        described["silent"] = True
    if load.last_failure:
        described["lastFailure"] = load.last_failure
    return described


def describe_scores(table: ScoreTable, index: int) -> Json:
    """The scores of one endpoint, before their weights, and the total; or why it was left out."""
    if table.left_out[index]:
        return {"leftOut": table.left_out[index]}
    return {
        "scores": {name: _rounded(row[index]) for name, row in table.scores.items()},
        "total": _rounded(table.totals[index]),
    }


def explanation_headers(pick: Pick, table: ScoreTable | None, pool: Sequence[Candidate]) -> list[tuple[bytes, bytes]]:
    """The decision as the answer tells it: the best endpoints first, without those for which there is no room."""
    told: Json = {"backend": pick.backend_ref.name, "endpoint": _name(pick)}
    if table is not None:
        in_order = best(table)
        told["endpoints"] = [
            {"endpoint": _name(pool[index]), **describe_scores(table, index)} for index in in_order[:MAX_TOLD]
        ]
        if len(in_order) > MAX_TOLD:
            told["leftOut"] = len(in_order) - MAX_TOLD
        stale = sum(one.upstream.load.knowledge is Knowledge.STALE for one in pool)
        if stale:
            told["stale"] = stale
    text = orjson.dumps(told).decode().encode("ascii", "replace")
    return [(EXPLAIN_HEADER, text), (SERVED_HEADER, address_of(pick).encode("ascii", "replace"))]


def address_of(one: Candidate | Pick) -> str:
    """ip:port, an IPv6 address in brackets."""
    address = one.endpoint.address
    return f"[{address}]:{one.endpoint.port}" if ":" in address else f"{address}:{one.endpoint.port}"


def _name(one: Candidate | Pick) -> str:
    return one.endpoint.pod or address_of(one)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
