"""Do the dashboard and the alerts ask for what the gateway counts? Every query, asked of a real Prometheus."""

from __future__ import annotations

import json
import math
import re
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.real.prometheus import Prometheus, command
from tests.real.scene import observed_gateways
from tests.support.processes import PROJECT

pytestmark = [pytest.mark.anyio, pytest.mark.real]

COMPONENTS = PROJECT / "k8s/components"
DASHBOARD = json.loads((COMPONENTS / "grafana-dashboard/pointsman.json").read_text("utf-8"))
RULES = yaml.safe_load((COMPONENTS / "alerts/prometheus-rule.yaml").read_text("utf-8"))["spec"]
ALERTS = [rule for group in RULES["groups"] for rule in group["rules"]]
COMPARISON = re.compile(r"\s(?:>|<|==)\s[\d.]+\Z")
TARGETS = [
    pytest.param(target["expr"], id=f"{panel['title']} {target['refId']}")
    for panel in DASHBOARD["panels"]
    for target in panel.get("targets", ())
]


@pytest.fixture(scope="module")
async def prometheus(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Prometheus]:
    async with observed_gateways(tmp_path_factory.mktemp("observed")) as observing:
        yield observing


def filled_in(expression: str) -> str:
    """A panel's expression as Grafana sends it with all routes chosen."""
    text = expression.replace("$__rate_interval", "1m").replace("$route", ".*").replace("$rule", ".*")
    assert "$" not in text
    return text


async def test_the_scrapes_worked(prometheus: Prometheus) -> None:
    assert [value for _, value in await prometheus.query("up")] == [1.0, 1.0]
    assert await prometheus.query("min_over_time(up[1m]) == 0") == []


@pytest.mark.parametrize("expression", TARGETS)
async def test_a_panel_shows_something(prometheus: Prometheus, expression: str) -> None:
    values = [value for _, value in await prometheus.query(filled_in(expression))]
    assert [value for value in values if not math.isnan(value)], expression


async def test_variables_have_values(prometheus: Prometheus) -> None:
    for variable in DASHBOARD["templating"]["list"]:
        if variable["type"] == "query":
            found = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"]["query"])
            assert found is not None
            parameters: dict[str, str] = {"match[]": filled_in(found.group(1))}
            values = await prometheus.get(f"label/{found.group(2)}/values", **parameters)
            assert len(values) > (1 if variable["name"] == "route" else 0), variable["name"]


@pytest.mark.parametrize("alert", [pytest.param(alert, id=alert["alert"]) for alert in ALERTS])
async def test_an_alert_looks_at_something(prometheus: Prometheus, alert: dict[str, Any]) -> None:
    """What is compared is there; whether it is too much is up to the load."""
    expression = alert["expr"]
    measured, count = COMPARISON.subn("", expression)
    if absent := re.fullmatch(r"absent\((.+)\)", expression):
        measured, count = absent.group(1), 1
    assert count == 1, expression
    values = [value for _, value in await prometheus.query(measured)]
    assert [value for value in values if not math.isnan(value)], measured


async def test_what_is_wrong_in_this_scene_would_be_told(prometheus: Prometheus) -> None:
    telling = {alert["alert"] for alert in ALERTS if await prometheus.query(alert["expr"])}
    assert {
        "PointsmanErrors",
        "PointsmanBrokenStreams",
        "PointsmanNoEndpoints",
        "PointsmanEndpointEjected",
        "PointsmanOverloaded",
    } <= telling
    assert telling.isdisjoint({"PointsmanAbsent", "PointsmanBodyMemory", "PointsmanWatchStale", "PointsmanTracesLost"})


async def test_exemplars_lead_to_traces(prometheus: Prometheus) -> None:
    found = await prometheus.get(
        "query_exemplars",
        query="pointsman_request_duration_seconds_bucket",
        start=prometheus.at - 600,
        end=prometheus.at + 60,
    )
    ids = {example["labels"]["trace_id"] for series in found for example in series["exemplars"]}
    assert ids
    assert all(re.fullmatch("[0-9a-f]{32}", trace_id) for trace_id in ids)


async def test_nothing_is_told_twice_or_created(prometheus: Prometheus) -> None:
    names = await prometheus.get("label/__name__/values")
    assert not [name for name in names if name.endswith("_created")]
    assert "pointsman_requests_total" in names


def test_promtool_takes_the_rules(tmp_path: Path) -> None:
    rules = tmp_path / "rules.yaml"
    rules.write_text(yaml.safe_dump(RULES))
    done = subprocess.run(
        [command("promtool"), "check", "rules", "--lint-fatal", str(rules)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
