"""What is known of a pool's endpoints, what are their scores, and which one would be picked now?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from discovery.snapshot import BackendRef, Rule
from middleware import shedding
from middleware.endpoint_picking import known
from middleware.exchange import Exchange
from middleware.headers import RawHeaders
from middleware.load_balancing import scheduled_pool
from middleware.pick_explanation import address_of, describe_load, describe_scores
from middleware.scheduling.load import Knowledge
from middleware.scheduling.scheduler import Asked, Scheduler
from middleware.shedding import Shedder
from middleware.upstream.registry import Candidate

Json = dict[str, Any]


def explain_admission(exchange: Exchange, rule: Rule, headers: RawHeaders, shedder: Shedder) -> Json:
    """The request's priority and what it means now. The objective is looked at here whether or not it is trusted."""
    objective = shedding.objective_of(headers)
    priority = shedding.priority_of(rule, model=exchange.model, objective=objective)
    saturation = shedder.saturation(exchange)
    return {
        "objective": objective,
        "priority": priority,
        "saturation": round(saturation, 4),
        "isShed": priority < 0 and saturation >= 1.0,
    }


def explain_pick(
    arm: Json,
    ref: BackendRef,
    *,
    rule: Rule,
    everyone: Sequence[Candidate],
    pool: tuple[Candidate, ...],
    asked: Asked,
    scheduler: Scheduler,
) -> None:
    """Add to the endpoints of an arm, which are ``everyone`` in this order, what is known of them, and to those that
    may be tried, the ``pool``, their scores. Other backends than pools have no scores, and before anything is known
    nobody has."""
    settings = scheduled_pool(rule, ref)
    if ref.backend is None or settings is None or not pool:
        return
    if all(candidate.upstream.load.knowledge is Knowledge.UNREAD for candidate in pool):
        return  # offline, or just started: any of them
    numbers = {candidate.upstream.id: number for number, candidate in enumerate(pool)}
    table = scheduler.explain(ref.backend.id, settings, asked, [one.upstream.load for one in pool])
    for described, candidate in zip(arm["endpoints"], everyone, strict=True):
        described["load"] = describe_load(candidate.upstream.load)
        number = numbers.get(candidate.upstream.id)
        if number is not None:
            described.update(describe_scores(table, number))
    arm["wouldPick"] = address_of(pool[table.picked])
    if not known(settings, pool):
        message = f"Nothing is known of the endpoints of {ref.name}, and it fails closed."
        arm["answer"] = {"status": 503, "code": "no_endpoints", "message": message}


def load_line(endpoint: Json) -> str | None:
    """The same for a person; None for an endpoint that nobody has asked yet."""
    load = endpoint.get("load")
    if load is None or load["metrics"] == "unread":
        return None
    text = f"metrics {load['metrics']}: queue {load['queue']}, running {load['running']}, kv {load['kvCacheUsage']:.0%}"
    if "lastFailure" in load:
        text += f", last failure: {load['lastFailure']}"
    if load.get("silent"):
        text += ", silent"
    if "leftOut" in endpoint:
        return f"{text}; left out: {endpoint['leftOut']}"
    if "total" not in endpoint:
        return text
    scores = ", ".join(f"{name} {score:g}" for name, score in endpoint["scores"].items())
    return f"{text}; {scores}, total {endpoint['total']:g}"
