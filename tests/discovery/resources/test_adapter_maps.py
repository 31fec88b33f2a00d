"""ConfigMaps that name a base model's adapters: what is read of them and what is wrong with them."""

from __future__ import annotations

import pytest

from discovery.resources.decode import decode
from discovery.resources.inference import AdapterMap
from discovery.resources.problem import Severity
from tests.discovery.loading import LoadText

TEXT = """\
apiVersion: v1
kind: ConfigMap
metadata: {name: %s, labels: {inference.networking.k8s.io/bbr-managed: "true"}%s}
data:
  baseModel: %s
  adapters: |
%s
"""


def config_map(name: str = "a", base: str = "llama", adapters: str = "- one", created: str = "") -> str:
    lines = "\n".join(f"    {line}" for line in adapters.splitlines())
    return TEXT % (name, f", creationTimestamp: {created}" if created else "", base, lines)


def lines(load_text: LoadText, text: str) -> list[str]:
    return [line.partition(": ")[2] for line in load_text.lines(text)]


def test_names_are_trimmed_and_empty_ones_left_out() -> None:
    ((resource, _),) = decode(
        config_map(base="' llama '", adapters="- ' one '\n- ''\n-\n- two\n- one"), file="f"
    ).objects
    assert isinstance(resource, AdapterMap)
    assert (resource.base_model, resource.adapters, resource.faults) == ("llama", ("one", "two"), ())


def test_a_config_map_without_the_label_is_none_of_our_business() -> None:
    decoded = decode("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {baseModel: 1}\n", file="f")
    assert decoded.objects == []
    assert [p.message for p in decoded.skipped] == [
        "skipped: ConfigMap without the label inference.networking.k8s.io/bbr-managed and without ca.crt is not read"
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param(config_map(base="' '"), "data.baseModel: is required, and must not be blank", id="blank-base"),
        pytest.param(config_map(adapters="one: two"), "data.adapters: must be a YAML list of names", id="not-a-list"),
        pytest.param(config_map(adapters="- one\n---\n- two"), "data.adapters: must be a YAML list", id="two-lists"),
        pytest.param(config_map(adapters="- [1]"), "data.adapters: item 0 must be a name", id="not-a-name"),
        pytest.param(config_map(adapters="- one\n- 2"), "data.adapters: item 1 must be a name: put it in", id="number"),
        pytest.param(config_map(adapters="- 'one"), "data.adapters: must be a YAML list of names: line", id="bad-yaml"),
    ],
)
def test_what_an_api_server_cannot_see_becomes_a_condition(load_text: LoadText, text: str, expected: str) -> None:
    (line,) = lines(load_text, text)
    assert line.startswith(f"ConfigMap/a: {expected}")
    assert line.endswith("(Invalid)")


def test_no_adapters_is_right(load_text: LoadText) -> None:
    assert lines(load_text, config_map().partition("  adapters")[0]) == []
    assert lines(load_text, config_map(adapters="# none yet")) == []


def test_data_holds_strings_only() -> None:
    text = config_map().replace("adapters: |", "adapters:")
    (problem,) = decode(text, file="f").problems
    assert problem.severity is Severity.REFUSED
    assert str(problem).endswith(
        "data.adapters: must be a string, not a list: write `adapters: |` and the list below it"
    )


def test_an_adapter_belongs_to_one_base_model_and_the_older_map_counts(load_text: LoadText) -> None:
    text = "---\n".join(
        [
            config_map("a", base="qwen", created="2026-02-01T00:00:00Z"),
            config_map("b", base="llama", created="2026-01-01T00:00:00Z"),
            config_map("c", base="llama"),
        ]
    )
    (line,) = lines(load_text, text)
    assert line == "ConfigMap/a: data.adapters: one is an adapter of llama already, in default/b (Invalid)"


@pytest.mark.parametrize("group", ["inference.networking.x-k8s.io", "llm-d.ai"])
@pytest.mark.parametrize(
    ("kind", "spec", "expected"),
    [
        pytest.param("InferenceObjective", "{priority: high, poolRef: {name: p}}", "spec.priority: must be", id="type"),
        pytest.param("InferenceObjective", "{priority: 1}", "spec.poolRef: is required", id="no-pool"),
        pytest.param(
            "InferenceModelRewrite", "{poolRef: {name: p}, rules: [{targets: []}]}",
            "spec.rules[0].targets: must have at",
            id="no-target",
        ),
        pytest.param(
            "InferenceModelRewrite",
            "{poolRef: {name: p}, rules: [{matches: [{model: {value: ''}}], targets: [{modelRewrite: m}]}]}",
            "spec.rules[0].matches[0].model.value: must have at least 1 character",
            id="no-model",
        ),
    ],
)  # fmt: skip
def test_objectives_and_rewrites_are_checked(group: str, kind: str, spec: str, expected: str) -> None:
    text = f"apiVersion: {group}/v1alpha2\nkind: {kind}\nmetadata: {{name: x}}\nspec: {spec}\n"
    (problem,) = decode(text, file="f").problems
    assert problem.severity is Severity.REFUSED
    assert f"{problem.field}: {problem.message}".startswith(expected)
