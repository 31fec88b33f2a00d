"""Does each alert tell what it is for, and nothing while all is well? Asked of Prometheus' own rule tester."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.real.prometheus import command
from tests.support.processes import PROJECT

pytestmark = pytest.mark.real

RULES = yaml.safe_load((PROJECT / "k8s/components/alerts/prometheus-rule.yaml").read_text("utf-8"))["spec"]
ALERTS = {rule["alert"] for group in RULES["groups"] for rule in group["rules"]}
HOUR = "x60"  # a sample a minute

RULE = 'route="default/llm",rule="0"'
WELL = {
    "pointsman_build_info": f"1{HOUR}",
    f'pointsman_requests_total{{{RULE},code="200",reason=""}}': f"0+60{HOUR}",
    f'pointsman_attempts_total{{{RULE},outcome="answered"}}': f"0+60{HOUR}",
    f'pointsman_time_to_first_byte_seconds_bucket{{{RULE},le="5.0"}}': f"0+60{HOUR}",
    f'pointsman_time_to_first_byte_seconds_bucket{{{RULE},le="60.0"}}': f"0+60{HOUR}",
    f'pointsman_time_to_first_byte_seconds_bucket{{{RULE},le="+Inf"}}': f"0+60{HOUR}",
    f"pointsman_rule_requests_waiting{{{RULE}}}": f"0{HOUR}",
    'pointsman_backend_endpoints{backend="default/qwen",kind="InferencePool"}': f"3{HOUR}",
    'pointsman_upstream_breakers{endpoint="10.0.0.7:8000",state="open"}': f"0{HOUR}",
    'pointsman_upstream_healthy{endpoint="10.0.0.7:8000"}': f"1{HOUR}",
    'pointsman_upstream_load_age_seconds{endpoint="10.0.0.7:8000"}': f"1{HOUR}",
    'pointsman_body_memory_bytes{instance="gw"}': f"1{HOUR}",
    'pointsman_body_memory_limit_bytes{instance="gw"}': f"100{HOUR}",
    'pointsman_config_last_reload_successful{instance="gw"}': f"1{HOUR}",
    'pointsman_kubernetes_stale_seconds{instance="gw",kind="pods"}': f"60{HOUR}",
    'pointsman_event_loop_lag_seconds_bucket{instance="gw",le="0.001"}': f"0+600{HOUR}",
    'pointsman_event_loop_lag_seconds_bucket{instance="gw",le="+Inf"}': f"0+600{HOUR}",
    'pointsman_log_lines_dropped_total{instance="gw"}': f"7{HOUR}",
    'pointsman_trace_spans_lost_total{instance="gw"}': f"7{HOUR}",
}

# What is different, for each alert. An empty value: there is no such series.
ILL = {
    "PointsmanAbsent": {"pointsman_build_info": ""},
    "PointsmanErrors": {f'pointsman_requests_total{{{RULE},code="503",reason="no_endpoints"}}': f"0+6{HOUR}"},
    "PointsmanBrokenStreams": {f'pointsman_attempts_total{{{RULE},outcome="broken"}}': f"0+2{HOUR}"},
    "PointsmanNoEndpoints": {'pointsman_backend_endpoints{backend="default/qwen",kind="InferencePool"}': f"0{HOUR}"},
    "PointsmanEndpointEjected": {'pointsman_upstream_breakers{endpoint="10.0.0.7:8000",state="open"}': f"1{HOUR}"},
    "PointsmanEndpointUnhealthy": {'pointsman_upstream_healthy{endpoint="10.0.0.7:8000"}': f"0{HOUR}"},
    "PointsmanSlowFirstByte": {f'pointsman_time_to_first_byte_seconds_bucket{{{RULE},le="5.0"}}': f"0+6{HOUR}"},
    "PointsmanQueueing": {f"pointsman_rule_requests_waiting{{{RULE}}}": f"4{HOUR}"},
    "PointsmanOverloaded": {f'pointsman_requests_total{{{RULE},code="503",reason="overloaded"}}': f"0+1{HOUR}"},
    "PointsmanBodyMemory": {'pointsman_body_memory_bytes{instance="gw"}': f"90{HOUR}"},
    "PointsmanConfigRejected": {'pointsman_config_last_reload_successful{instance="gw"}': f"0{HOUR}"},
    "PointsmanWatchStale": {'pointsman_kubernetes_stale_seconds{instance="gw",kind="pods"}': f"0+60{HOUR}"},
    "PointsmanLoadUnknown": {'pointsman_upstream_load_age_seconds{endpoint="10.0.0.7:8000"}': f"0+60{HOUR}"},
    "PointsmanEventLoopSlow": {'pointsman_event_loop_lag_seconds_bucket{instance="gw",le="0.001"}': f"0+500{HOUR}"}
    | {'pointsman_event_loop_lag_seconds_bucket{instance="gw",le="1.0"}': f"0+600{HOUR}"},
    "PointsmanLogLinesDropped": {'pointsman_log_lines_dropped_total{instance="gw"}': f"0+5{HOUR}"},
    "PointsmanTracesLost": {'pointsman_trace_spans_lost_total{instance="gw"}': f"0+5{HOUR}"},
}


def told(different: dict[str, str], folder: Path) -> str:
    """What the rule tester says when nobody expects an alert: which ones there are."""
    series = [{"series": name, "values": values} for name, values in (WELL | different).items() if values]
    (folder / "rules.yaml").write_text(yaml.safe_dump(RULES))
    expected: list[dict[str, Any]] = [{"eval_time": "59m", "alertname": alert, "exp_alerts": []} for alert in ALERTS]
    tests = {
        "rule_files": ["rules.yaml"],
        "tests": [{"interval": "1m", "input_series": series, "alert_rule_test": expected}],
    }
    (folder / "tests.yaml").write_text(yaml.safe_dump(tests))
    done = subprocess.run(
        [command("promtool"), "test", "rules", str(folder / "tests.yaml")], capture_output=True, text=True, check=False
    )
    return done.stdout + done.stderr


def test_nothing_is_told_while_all_is_well(tmp_path: Path) -> None:
    assert "SUCCESS" in told({}, tmp_path)


@pytest.mark.parametrize("alert", sorted(ALERTS))
def test_an_alert_tells_what_it_is_for_and_no_other_does(alert: str, tmp_path: Path) -> None:
    said = told(ILL[alert], tmp_path)
    telling = {name for name in ALERTS if f'alertname="{name}"' in said}
    assert telling == {alert}, said
    assert "<no value>" not in said


def test_every_alert_is_tested() -> None:
    assert ILL.keys() == ALERTS
