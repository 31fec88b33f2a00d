"""When do checks turn an endpoint's health, and in which words is it told?"""

from __future__ import annotations

import pytest

from discovery.rule_policy import ActiveHealth
from middleware.upstream.endpoint_health import EndpointHealth, Finding, Result

OK = Result(Finding.WELL)
WRONG = Result(Finding.WRONG_ANSWER, "status 500")
NETWORK = Result(Finding.RETRIABLE, "no connection")
SETTINGS = ActiveHealth(path=b"/health", healthy_threshold=2)


@pytest.mark.parametrize(
    ("is_healthy", "results", "expected"),
    [
        pytest.param(False, [OK], [True], id="the-first-pass-is-enough"),
        pytest.param(False, [NETWORK, OK, OK], [False, False, True], id="later-the-threshold-holds"),
        pytest.param(True, [NETWORK, NETWORK, NETWORK], [True, True, False], id="the-network-fails-three-times"),
        pytest.param(True, [NETWORK, NETWORK, OK, NETWORK, NETWORK], [True] * 5, id="in-a-row"),
        pytest.param(True, [WRONG], [False], id="a-wrong-answer-is-enough"),
        pytest.param(True, [WRONG, OK, NETWORK, OK, OK], [False, False, False, False, True], id="passes-in-a-row"),
    ],
)
def test_thresholds(is_healthy: bool, results: list[Result], expected: list[bool]) -> None:
    health = EndpointHealth(SETTINGS, is_healthy=is_healthy)
    found = []
    for result in results:
        before = health.is_healthy
        has_changed = health.note(result)
        assert has_changed is (health.is_healthy is not before)
        found.append(health.is_healthy)
    assert found == expected


def test_its_words() -> None:
    health = EndpointHealth(SETTINGS, is_healthy=False)
    words = [str(health)]
    for result in (NETWORK, NETWORK, OK, OK):
        health.note(result)
        words.append(str(health))
    assert words == [
        "not checked yet",
        "unhealthy: active check failed once: no connection",
        "unhealthy: active check failed 2 times: no connection",
        "unhealthy: 1 of 2 checks passed",
        "healthy",
    ]
