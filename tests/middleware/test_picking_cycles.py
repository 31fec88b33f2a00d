"""Is a request to a pool freed with its last reference? The garbage collector has better things to do."""

from __future__ import annotations

import asyncio
import gc
from dataclasses import replace

from starlette.types import Message, Receive, Scope, Send

from discovery.backend import PoolSettings
from middleware.endpoint_picking import EndpointPickingMiddleware
from middleware.exchange import Exchange
from middleware.scheduling.scheduler import Scheduler
from middleware.upstream.registry import Candidate
from middleware.upstream.rule_traffic import RuleTraffic
from tests.support.exchanges import make_endpoint, make_exchange, make_ref, make_rule, make_upstream


class NoUse:
    """Nobody reads the pool's metrics."""

    def touch(self, pool_id: str) -> None:
        """Nothing to do."""


async def proxy(scope: Scope, receive: Receive, send: Send) -> None:
    exchange: Exchange = scope["pointsman.exchange"]
    assert exchange.next_pick is not None
    exchange.next_pick([])


async def receive() -> Message:
    raise AssertionError("nobody reads here")


async def send(message: Message) -> None:
    raise AssertionError("nobody writes here")


def test_a_request_to_a_pool_leaves_no_reference_cycle() -> None:
    arm = make_ref()
    assert arm.backend is not None
    arm = replace(arm, backend=replace(arm.backend, pool=PoolSettings()))
    endpoint = make_endpoint()
    pool = (Candidate(endpoint, make_upstream(endpoint)),)
    exchange = make_exchange(rule=make_rule(arm), rule_traffic=RuleTraffic(), arms=(arm,), candidates=lambda _: pool)
    exchange.request_id = "to-be-freed"  # other tests' requests may still be held by what they ran
    stage = EndpointPickingMiddleware(proxy, scheduler=Scheduler(), use=NoUse())
    gc.collect()
    gc.disable()
    try:
        asyncio.run(stage({"type": "http", "headers": [], "pointsman.exchange": exchange}, receive, send))
        del exchange
        left = [one for one in gc.get_objects() if isinstance(one, Exchange) and one.request_id == "to-be-freed"]
        assert len(left) == 0
    finally:
        gc.enable()
