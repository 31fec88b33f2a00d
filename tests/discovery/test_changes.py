"""What a reload has changed, in one line."""

from __future__ import annotations

import pytest

from discovery.changes import describe_change, describe_change_in_slices
from discovery.load import Compiled
from discovery.snapshot import SnapshotStore
from tests.discovery.loading import LoadText

BACKEND = """\
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: Backend
metadata: {name: %s}
spec: {endpoints: [%s]}
---
"""
ENDPOINT = "{ip: {address: 10.0.0.%d, port: 80}}"
ROUTE = """\
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: %s}
spec: {rules: [{backendRefs: [{group: gateway.envoyproxy.io, kind: Backend, name: %s, weight: %d}]}]}
---
"""
NAMESPACE = "apiVersion: v1\nkind: Namespace\nmetadata: {name: x}\n"


def backend(name: str, *endpoints: int) -> str:
    return BACKEND % (name, ", ".join(ENDPOINT % number for number in endpoints))


BEFORE = ROUTE % ("r", "a", 1) + backend("a", 1, 2)


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param(BEFORE, "nothing has changed", id="nothing"),
        pytest.param(BEFORE + NAMESPACE, "no rule and no endpoint has changed", id="nothing-that-matters"),
        pytest.param(BEFORE + ROUTE % ("s", "a", 1), "+1 rule", id="a-rule"),
        pytest.param(ROUTE % ("r", "a", 2) + backend("a", 1, 2), "1 rule changed", id="a-weight"),
        pytest.param(
            BEFORE.replace("rules: [{", "rules: [{matches: [{path: {value: /x}}], "), "1 rule changed", id="a-match"
        ),
        pytest.param(
            BEFORE.replace("spec: {rules", "spec: {hostnames: [a.example], rules"), "1 rule changed", id="a-host"
        ),
        pytest.param(ROUTE % ("r", "a", 1) + backend("a", 1, 3, 4), "+2 endpoints, -1 endpoint", id="endpoints"),
        pytest.param(
            ROUTE % ("s", "b", 1) + ROUTE % ("t", "b", 1) + backend("b", 5),
            "+2 rules, -1 rule, +1 backend, -1 backend, +1 endpoint, -2 endpoints",
            id="everything",
        ),
    ],
)
async def test_a_change_is_one_line(load_text: LoadText, text: str, expected: str) -> None:
    before = load_text.compiled(BEFORE)
    after = load_text(text).compile(previous=before)
    assert describe_change(before, after) == expected
    assert await describe_change_in_slices(before, after) == expected


def test_snapshots_can_be_compared_too(load_text: LoadText) -> None:
    store = SnapshotStore()
    empty = store.current
    compiled: Compiled = load_text.compiled(BEFORE)
    now = store.publish(compiled.routing, compiled.membership)
    assert describe_change(empty, now) == "+1 listener, +1 rule, +1 backend, +2 endpoints"
