"""Which requests are shed?"""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType

import pytest

from discovery.backend import PoolSettings
from discovery.snapshot import BackendRef
from middleware.errors import SaturatedError
from middleware.shedding import decide, has_priorities, objective_of, priority_of
from tests.support.exchanges import make_ref, make_rule


def pool_ref(priorities: dict[str, int], models: dict[str, int]) -> BackendRef:
    ref = make_ref()
    assert ref.backend is not None
    pool = PoolSettings(priorities=MappingProxyType(priorities), model_priorities=MappingProxyType(models))
    return replace(ref, backend=replace(ref.backend, pool=pool))


RULE = make_rule(pool_ref({"batch": -1, "chat": 2}, {}), pool_ref({"batch": -5}, {"qwen": -1, "vip": 1}), make_ref())


@pytest.mark.parametrize(
    ("model", "objective", "expected"),
    [
        pytest.param(None, None, 0, id="nothing"),
        pytest.param(None, "chat", 2, id="objective"),
        pytest.param("qwen", "batch", -1, id="the-first-pool-that-knows-it"),
        pytest.param("qwen", None, -1, id="model"),
        pytest.param("qwen", "chat", 2, id="the-objective-goes-first"),
        pytest.param("vip", "unknown", 1, id="an-unknown-objective-is-none"),
        pytest.param("other", "unknown", 0, id="unknown"),
    ],
)
def test_the_priority_of_a_request(model: str | None, objective: str | None, expected: int) -> None:
    assert priority_of(RULE, model=model, objective=objective) == expected


def test_rules_without_priorities_are_not_looked_at() -> None:
    assert has_priorities(RULE)
    assert not has_priorities(make_rule(make_ref(), pool_ref({}, {})))


@pytest.mark.parametrize(
    ("headers", "objective"),
    [
        pytest.param([], None, id="none"),
        pytest.param([(b"x-gateway-inference-objective", b" batch ")], "batch", id="the-extension-s"),
        pytest.param(
            [(b"x-gateway-inference-objective", b"a"), (b"x-llm-d-inference-objective", b"b")], "b", id="llm-d-s-first"
        ),
    ],
)
def test_an_objective_is_named_in_a_header(headers: list[tuple[bytes, bytes]], objective: str | None) -> None:
    assert objective_of(headers) == objective


def test_only_what_is_below_0_is_shed_and_only_when_the_pool_is_full() -> None:
    decide(-1, lambda: 0.99)
    with pytest.raises(SaturatedError):
        decide(-1, lambda: 1.0)

    def not_asked() -> float:
        raise AssertionError

    decide(0, not_asked)
