"""What would happen to a request, and why? The decisions of every stage, asked of the same functions that serve.

Nothing is sent. Offline (`pointsman explain`) there is no experience of endpoints; on the admin port their breakers and
what is in flight count as they do for a request.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from dataclasses import dataclass
from typing import Any

import orjson

from app.admin.explain_picks import explain_admission, explain_pick
from discovery.describe import describe_endpoint
from discovery.describe_policy import describe_rate_limit
from discovery.describe_rule import describe_rule, describe_targets
from discovery.explain import explain_route_in_slices
from discovery.rule_policy import ConsistentHash
from discovery.shown import MASK, is_credential
from discovery.snapshot import BackendRef, Rule, Snapshot
from middleware import (
    admission,
    circuit_breaking,
    endpoint_picking,
    model_extraction,
    model_rewriting,
    rate_limits,
    route_matching,
    shedding,
    traffic_splitting,
)
from middleware.endpoint_picking import Choose
from middleware.errors import GatewayError
from middleware.exchange import Exchange
from middleware.headers import RawHeaders, header_map, strip_client_headers, upstream_headers
from middleware.load_balancing import Balancer, hash_key, scheduled_pool
from middleware.rate_limits import RateLimiter
from middleware.scheduling.scheduler import Asked, Scheduler
from middleware.shedding import Shedder
from middleware.targets import upstream_target
from middleware.upstream.registry import Candidate, Pick, UpstreamRegistry

Json = dict[str, Any]

MAX_REQUESTS = 100_000
DRAWS_PER_SLICE = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A request to explain."""

    model: str | None = None
    method: str = "POST"
    path: str = "/v1/chat/completions"
    headers: tuple[tuple[str, str], ...] = ()  # a Host among them says which listener is asked
    requests: int = 0  # how many draws to make, to show how the traffic would spread
    port: int | None = None  # where listeners are told apart by port
    body: bytes | None = None  # JSON; None: one that names the model and has no prompt


async def explain(
    question: Question,
    *,
    snapshot: Snapshot,
    registry: UpstreamRegistry,
    limiter: RateLimiter,
    shedder: Shedder,
    scheduler: Scheduler,
) -> Json:
    """What becomes of the request: where it goes, or the answer that the gateway gives, each with the reasons.

    Works in slices: a question about 10,000 models must not hold up the streams.
    """
    exchange = _exchange(question)
    answer: Json = {
        "request": {
            "method": exchange.method,
            "target": exchange.target.decode("latin-1"),
            "host": exchange.host.decode("latin-1"),
            "model": question.model,
            "configuration": snapshot.version,
        }
    }
    try:
        model_extraction.locate(exchange, snapshot, question.port)
        model_extraction.decide(exchange)
        answer["request"]["model"] = exchange.model
        asked = route_matching.route_request(exchange)
        routing = await explain_route_in_slices(snapshot.routing, asked, port=question.port)
        answer["routing"] = routing.as_dict()
        exchange.rule = rule = route_matching.decide(exchange)
        if rule is not None:
            answer["rule"] = describe_rule(rule)
        direct = admission.decide(exchange)
        if direct is not None:
            answer["answer"] = {"status": direct.status, "headers": _shown(direct.headers)}
            return answer
        assert rule is not None
        if rule.policy.rate_limits:
            answer["rateLimits"] = [
                {**describe_rate_limit(held.limit), "remaining": int(limiter.remaining(rule, held))}
                for held in rate_limits.decide(rule.policy.rate_limits, exchange)
            ]
        if shedding.has_priorities(rule):
            answer["admission"] = explain_admission(exchange, rule, _raw_headers(question), shedder)
        candidates = _Candidates(exchange, rule, registry)
        scheduled = Asked(exchange)
        answer["arms"] = [_arm(exchange, ref, rule, candidates(ref), registry) for ref in rule.backend_refs]
        for arm, ref in zip(answer["arms"], rule.backend_refs, strict=True):
            scheduled.model = model_rewriting.target_model(exchange, ref.model_rewrites)
            explain_pick(
                arm,
                ref,
                rule=rule,
                everyone=candidates.ready(ref),
                pool=candidates(ref),
                asked=scheduled,
                scheduler=scheduler,
            )
        if question.requests:
            kind = rule.policy.load_balancer
            key = hash_key(kind, exchange) if isinstance(kind, ConsistentHash) else None
            balancer = Balancer(kind=kind, draw=random.random, turns={}, key=key)

            def choose(ref: BackendRef, pool: tuple[Candidate, ...]) -> Candidate:
                settings = scheduled_pool(rule, ref)
                if ref.backend is None or settings is None:
                    return balancer.choose(ref, pool)
                scheduled.model = model_rewriting.target_model(exchange, ref.model_rewrites)
                loads = [candidate.upstream.load for candidate in pool]
                return pool[scheduler.would_pick(ref.backend.id, settings, scheduled, loads)]

            answer["draws"] = await _draws(exchange, rule, candidates, min(question.requests, MAX_REQUESTS), choose)
    except GatewayError as error:
        answer["answer"] = {"status": error.status, "code": error.reason.value, "message": error.message}
    return answer


def _exchange(question: Question) -> Exchange:
    body = question.body
    if body is None:
        body = b"" if question.model is None else orjson.dumps({"model": question.model})
    headers = strip_client_headers(_raw_headers(question))
    if all(name != b"host" for name, _ in headers):
        headers.insert(0, (b"host", b"localhost"))
    if body:
        headers.append((b"content-length", b"%d" % len(body)))
    by_name = header_map(headers)
    target = question.path.encode("latin-1", "replace")
    path, _, query = target.partition(b"?")
    return Exchange(
        request_id="explained",
        method=question.method.upper(),
        target=target,
        raw_path=path,
        query=query,
        headers=headers,
        by_name=by_name,
        host=by_name[b"host"],
        peer="127.0.0.1",
        scheme="http",
        started_at=time.perf_counter(),
        started_unix=time.time(),
        body=body,
        body_size=len(body),
    )


def _raw_headers(question: Question) -> RawHeaders:
    return [(name.lower().encode("latin-1"), value.encode("latin-1", "replace")) for name, value in question.headers]


class _Candidates:
    """`candidates(arm)` as CircuitBreaking puts it into the Exchange, for a request that is not under way."""

    def __init__(self, exchange: Exchange, rule: Rule, registry: UpstreamRegistry) -> None:
        assert exchange.snapshot is not None
        self._membership = exchange.snapshot.membership
        self._rule = rule
        self._registry = registry

    def ready(self, ref: BackendRef) -> tuple[Candidate, ...]:
        if ref.backend is None:
            return ()
        return self._registry.candidates(ref.backend.id, self._membership.get(ref.backend.id, ()))

    def __call__(self, ref: BackendRef) -> tuple[Candidate, ...]:
        return circuit_breaking.admitted(self.ready(ref), self._rule, self._membership, self._registry)


def _arm(
    exchange: Exchange, ref: BackendRef, rule: Rule, candidates: tuple[Candidate, ...], registry: UpstreamRegistry
) -> Json:
    total = sum(other.weight for other in rule.backend_refs if other.priority == ref.priority)
    share = ref.weight / total if total else 0.0
    arm: Json = {"backend": ref.name, "weight": ref.weight, "share": round(share, 6)}
    if ref.priority:
        arm["priority"] = ref.priority
    if ref.refusal is not None:
        arm["answer"] = {"status": 500, "code": ref.refusal.reason, "message": ref.refusal.message}
        return arm
    assert ref.backend is not None
    assert exchange.snapshot is not None
    arm["kind"] = ref.backend.kind
    may_be_tried = {candidate.upstream.id for candidate in candidates}
    endpoints = []
    for candidate in registry.candidates(ref.backend.id, exchange.snapshot.membership.get(ref.backend.id, ())):
        breaker = candidate.upstream.breaker(rule.policy.passive_health)
        active = rule.policy.active_health
        health = candidate.upstream.checks.get(active) if active is not None else None
        endpoints.append(
            {
                **describe_endpoint(candidate.endpoint),
                "inFlight": candidate.upstream.in_flight,
                "breaker": breaker.state.value,
                **({"health": str(health)} if health is not None else {}),
                "mayBeTried": candidate.upstream.id in may_be_tried,
            }
        )
    arm["endpoints"] = endpoints
    if not endpoints:
        arm["answer"] = {"status": 503, "code": "no_endpoints", "message": f"No ready endpoint serves {ref.name}."}
    elif candidates:
        pick = Pick(ref, candidates[0].endpoint, candidates[0].upstream)
        arm["upstreamRequest"] = {
            "target": upstream_target(exchange, pick).decode("latin-1"),
            "headers": _shown(upstream_headers(exchange, pick, model_rewriting.outgoing(exchange, ref))),
        }
    targets = model_rewriting.targets_for(exchange.model, ref.model_rewrites)
    if targets is not None:
        arm["asksFor"] = describe_targets(targets)
    return arm


async def _draws(exchange: Exchange, rule: Rule, candidates: _Candidates, count: int, choose: Choose) -> Json:
    backends: Counter[str] = Counter()
    endpoints: Counter[str] = Counter()
    models: Counter[str] = Counter()
    for number in range(count):
        if number % DRAWS_PER_SLICE == 0:
            await asyncio.sleep(0)
        try:
            arms = traffic_splitting.decide(rule, random.random())
            pick = endpoint_picking.decide(arms, candidates, [], choose)
        except GatewayError as error:
            backends[f"answered {error.status} {error.reason.value}"] += 1
            continue
        backends[pick.backend_ref.name] += 1
        endpoints[pick.endpoint.pod or pick.upstream.label] += 1
        targets = model_rewriting.targets_for(exchange.model, pick.backend_ref.model_rewrites)
        if targets is not None:
            models[model_rewriting.draw_target(targets, random.random())] += 1
    drawn = {"requests": count, "backends": dict(backends.most_common()), "endpoints": dict(endpoints.most_common())}
    return {**drawn, "models": dict(models.most_common())} if models else drawn


def _shown(headers: RawHeaders) -> list[list[str]]:
    return [
        [name.decode("latin-1"), MASK if is_credential(name) else value.decode("utf-8", "replace")]
        for name, value in headers
    ]
