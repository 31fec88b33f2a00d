"""Do the dashboard, the alerts and the pages name only metrics that there are? (tests/real asks a real Prometheus.)"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from tests.k8s.kustomize import K8S, build_over, find
from tests.support.processes import PROJECT

METRICS = (PROJECT / "docs/metrics.md").read_text("utf-8")
KNOWN = dict(re.findall(r"^\| `(pointsman_\w+)` \| \w+ \| ([\w, ]*) \|", METRICS, re.MULTILINE))
HISTOGRAM = re.compile(r"_(?:bucket|sum|count)\Z")
FILES = (
    *sorted((K8S / "components").rglob("*.json")),
    *sorted((K8S / "components/alerts").glob("*rule.yaml")),
    *sorted((PROJECT / "docs").glob("*.md")),
    PROJECT / "README.md",
)


@pytest.mark.parametrize("file", [pytest.param(file, id=file.name) for file in FILES])
def test_every_metric_that_is_named_is_told(file: Path) -> None:
    named = set(re.findall(r"pointsman_[a-z_]+[a-z]", file.read_text("utf-8")))
    unknown = {name for name in named if name not in KNOWN and HISTOGRAM.sub("", name) not in KNOWN}
    assert not unknown


def test_the_components_hold_what_they_say(tmp_path: Path) -> None:
    text = "resources: [$K8S]\ncomponents: [$K8S/components/grafana-dashboard, $K8S/components/alerts]\n"
    objects = build_over(tmp_path, text)
    dashboard = find(objects, "ConfigMap", "pointsman-dashboard")
    assert dashboard["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert json.loads(dashboard["data"]["pointsman.json"])["title"] == "Pointsman"
    for group in find(objects, "PrometheusRule")["spec"]["groups"]:
        for rule in group["rules"]:
            assert rule["annotations"].keys() == {"summary", "description"}, rule["alert"]
            assert rule["labels"]["severity"] in {"critical", "warning"}


def test_panels_do_not_overlap() -> None:
    board = json.loads((K8S / "components/grafana-dashboard/pointsman.json").read_text("utf-8"))
    taken: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        at = panel["gridPos"]
        cells = {(at["x"] + i, at["y"] + j) for i in range(at["w"]) for j in range(at["h"])}
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= 24
        taken |= cells
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])


def test_alerts_are_yaml_that_prometheus_reads_under_spec() -> None:
    rules = yaml.safe_load((K8S / "components/alerts/prometheus-rule.yaml").read_text("utf-8"))
    assert rules["spec"].keys() == {"groups"}
