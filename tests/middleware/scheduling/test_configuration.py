"""What does an EndpointPickerConfig say, and what is wrong with one?"""

from __future__ import annotations

import pytest

from middleware.scheduling.configuration import (
    PickerConfiguration,
    PickerConfigurationError,
    decode_picker_configuration,
)
from middleware.scheduling.filters import UtilizationFilter
from middleware.scheduling.pickers import MaxScorePicker, RandomPicker, WeightedRandomPicker
from middleware.scheduling.plugins import PLUGINS, PrefixSettings, Role
from middleware.scheduling.profile import DEFAULT_SCORERS
from middleware.scheduling.saturation import Thresholds
from middleware.scheduling.scorers import ActiveRequestScorer, PrefixCacheScorer, QueueScorer

HEAD = "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\n"


def decode(text: str, head: str = HEAD) -> PickerConfiguration:
    return decode_picker_configuration(head + text, file="picker.yaml")


def problems(text: str, head: str = HEAD) -> list[str]:
    with pytest.raises(PickerConfigurationError) as refused:
        decode(text, head)
    return [str(problem) for problem in refused.value.problems]


def test_the_documented_default_is_our_default() -> None:
    found = decode("""
plugins:
- type: metrics-data-source
- type: core-metrics-extractor
- type: approx-prefix-cache-producer
- type: queue-scorer
- type: kv-cache-utilization-scorer
- type: prefix-cache-scorer
- type: max-score-picker
- type: single-profile-handler
schedulingProfiles:
- name: default
  plugins:
  - {pluginRef: queue-scorer, weight: 2}
  - {pluginRef: kv-cache-utilization-scorer, weight: 2}
  - {pluginRef: prefix-cache-scorer, weight: 3}
  - {pluginRef: max-score-picker}
""")
    assert found == PickerConfiguration(profile=found.profile, is_default=False)
    assert found.profile.scorers == DEFAULT_SCORERS
    assert found.profile.picker == MaxScorePicker()


def test_the_extensions_own_test_configuration() -> None:
    found = decode(
        """apiVersion: inference.networking.x-k8s.io/v1alpha1
kind: EndpointPickerConfig
plugins:
  - type: queue-scorer
  - type: kv-cache-utilization-scorer
  - type: prefix-cache-scorer
  - type: lora-affinity-scorer
  - type: openai-parser
schedulingProfiles:
  - name: default
    plugins:
      - pluginRef: queue-scorer
      - pluginRef: kv-cache-utilization-scorer
      - pluginRef: prefix-cache-scorer
      - pluginRef: lora-affinity-scorer
parser:
  pluginRef: openai-parser
featureGates:
  - enableLegacyMetrics
""",
        head="",
    )
    assert [(scorer.name, scorer.weight) for scorer in found.profile.scorers] == [
        ("queue-scorer", 1.0),
        ("kv-cache-utilization-scorer", 1.0),
        ("prefix-cache-scorer", 1.0),
        ("lora-affinity-scorer", 1.0),
    ]


def test_parameters_reach_their_plugins() -> None:
    found = decode("""
plugins:
- {name: q, type: queue-scorer}
- {type: active-request-scorer, parameters: {idleThreshold: 2, maxBusyScore: 0.5, requestTimeout: 2m}}
- type: prefix-cache-scorer
  parameters: {matchLengthWeight: 0.25, matchLengthScaleTokens: 100}
- type: approx-prefix-cache-producer
  parameters: {autoTune: false, blockSizeTokens: 1, maxPrefixBlocksToMatch: 256, lruCapacityPerServer: 1000}
- {type: utilization-filter, parameters: {queueDepthThreshold: 3, headroom: 0.5}}
- {type: weighted-random-picker, parameters: {maxNumOfEndpoints: 2}}
- {name: full, type: utilization-detector, parameters: {kvCacheUtilThreshold: 0.9, metricsStalenessThreshold: 1s}}
- {type: metrics-data-source, parameters: {path: /prometheus/metrics}}
flowControl: {saturationDetector: {pluginRef: full}}
dataLayer: {sources: [{pluginRef: metrics-data-source, extractors: []}]}
""")
    profile = found.profile
    assert [weighted.scorer for weighted in profile.scorers] == [
        QueueScorer(),
        ActiveRequestScorer(idle_threshold=2, max_busy_score=0.5),
        PrefixCacheScorer(match_length_weight=0.25, match_length_scale_tokens=100),
    ]
    assert [named.filter for named in profile.filters] == [
        UtilizationFilter(thresholds=Thresholds(queue_depth=3, headroom=0.5))
    ]
    assert profile.picker == WeightedRandomPicker()
    assert found.prefix == PrefixSettings(is_automatic=False, block_tokens=1, capacity_tokens=1000, max_blocks=256)
    assert found.thresholds == Thresholds(kv_cache_usage=0.9, staleness_seconds=1.0)
    assert found.metrics_path == "/prometheus/metrics"


def test_without_scorers_the_default_ones_score() -> None:
    found = decode("plugins: [{type: random-picker}]\n")
    assert found.profile.scorers == DEFAULT_SCORERS
    assert found.profile.picker == RandomPicker()
    assert decode("").profile.scorers == DEFAULT_SCORERS


def test_the_older_forms_are_read() -> None:
    found = decode("""
plugins:
- {type: prefix-cache-scorer, parameters: {hashBlockSize: 64, maxPrefixTokensToMatch: 320}}
saturationDetector: {queueDepthThreshold: 9, metricsStalenessThreshold: 500ms}
""")
    assert found.prefix == PrefixSettings(is_automatic=False, block_tokens=16, max_blocks=20)
    assert found.thresholds == Thresholds(queue_depth=9, staleness_seconds=0.5)


def test_of_several_detectors_the_one_referred_to_counts() -> None:
    found = decode("""
plugins:
- {name: first, type: utilization-detector, parameters: {queueDepthThreshold: 1}}
- {name: second, type: utilization-detector, parameters: {queueDepthThreshold: 2}}
saturationDetector: {pluginRef: second}
""")
    assert found.thresholds == Thresholds(queue_depth=2)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("200ms", 0.2), ("0.5s", 0.5), ("1m1.5s", 61.5), ("1h", 3600.0), ("0s", 0.0), ("250us", 0.00025)],
)
def test_durations_are_go_s(text: str, seconds: float) -> None:
    found = decode(f"saturationDetector: {{metricsStalenessThreshold: {text}}}\n")
    assert found.thresholds.staleness_seconds == pytest.approx(seconds)


def test_what_the_extension_adds_by_itself_may_be_referred_to_without_being_declared() -> None:
    found = decode("""
plugins: [{type: queue-scorer}]
parser: {pluginRef: openai-parser}
requestHandler: {parsers: [{pluginRef: anthropic-parser}]}
flowControl: {saturationDetector: {pluginRef: utilization-detector}}
dataLayer: {sources: [{pluginRef: metrics-data-source, extractors: [{pluginRef: core-metrics-extractor}]}]}
""")
    assert found.thresholds == Thresholds()


def test_a_picker_that_is_declared_picks_for_a_profile_without_one() -> None:
    found = decode("""
plugins: [{type: random-picker}, {type: queue-scorer}]
schedulingProfiles: [{name: default, plugins: [{pluginRef: queue-scorer}]}]
""")
    assert found.profile.picker == RandomPicker()


def test_the_newest_version_s_name_is_taken() -> None:
    decode("", head="apiVersion: llm-d.ai/v1\nkind: EndpointPickerConfig\n")


PROFILE = "schedulingProfiles: [{name: a, plugins: [{%s}]}]"
PLUGIN = "schedulingProfiles[0].plugins[0]"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        pytest.param("plugins: [{type: decode-filter}]", "Extension is not implemented here", id="known-elsewhere"),
        pytest.param("plugins: [{type: my-scorer}]", '"my-scorer" is not a plugin type', id="unknown-type"),
        pytest.param("plugin: []", "plugin: unknown field", id="unknown-key"),
        pytest.param("plugins: [{type: queue-scorer, parameters: {a: 1}}]", "parameters.a: unknown", id="parameter"),
        pytest.param("plugins: [{type: queue-scorer}, {type: queue-scorer}]", "plugins[1].name: there are", id="twice"),
        pytest.param(PROFILE % "pluginRef: x", f'{PLUGIN}.pluginRef: there is no plugin named "x"', id="no-plugin"),
        pytest.param("parser: {pluginRef: x}", 'parser.pluginRef: there is no plugin named "x"', id="no-parser"),
        pytest.param(
            "schedulingProfiles: [{name: a}, {name: b}]", "schedulingProfiles[1]: more than", id="two-profiles"
        ),
        pytest.param("featureGates: [flowControl]", 'featureGates[0]: the feature "flowControl" is not', id="feature"),
        pytest.param("flowControl: {maxBytes: 1}", "flowControl.maxBytes: unknown field", id="flow-control"),
        pytest.param(
            "plugins: [{type: queue-scorer}]\n" + PROFILE % "pluginRef: queue-scorer, weight: -1",
            f"{PLUGIN}.weight: must be at least 0",
            id="negative-weight",
        ),
        pytest.param(
            "plugins: [{type: max-score-picker}, {type: random-picker}]", "a profile has one picker", id="two-pickers"
        ),
        pytest.param(
            "plugins: [{type: max-score-picker}]\n" + PROFILE % "pluginRef: max-score-picker, weight: 1",
            f"{PLUGIN}.weight: only a scorer has a weight",
            id="weight-of-a-picker",
        ),
        pytest.param(
            "plugins: [{type: openai-parser}]\n" + PROFILE % "pluginRef: openai-parser",
            f'{PLUGIN}.pluginRef: "openai-parser" is neither',
            id="no-scheduling-plugin",
        ),
        pytest.param(
            "plugins: [{type: metrics-data-source, parameters: {scheme: https}}]", "parameters.scheme:", id="https"
        ),
        pytest.param("saturationDetector: {metricsStalenessThreshold: soon}", "StalenessThreshold:", id="duration"),
        pytest.param(
            "plugins: [{type: queue-scorer}]\nparser: {pluginRef: queue-scorer}",
            'parser.pluginRef: "queue-scorer" is not one of anthropic-parser,',
            id="no-parser-by-type",
        ),
        pytest.param(
            "plugins: [{type: queue-scorer}]\nsaturationDetector: {pluginRef: queue-scorer}",
            'saturationDetector.pluginRef: "queue-scorer" is not one of utilization-detector',
            id="no-detector",
        ),
        pytest.param(
            "plugins: [{type: queue-scorer}]\ndata: {sources: [{pluginRef: queue-scorer}]}",
            'data.sources[0].pluginRef: "queue-scorer" is not one of metrics-data-source',
            id="no-source",
        ),
        pytest.param(
            "dataLayer: {sources: [{pluginRef: metrics-data-source, extractors: [{pluginRef: queue-scorer}]}]}",
            'extractors[0].pluginRef: there is no plugin named "queue-scorer"',
            id="no-extractor",
        ),
        pytest.param(
            "plugins: [{type: single-profile-handler}, {name: b, type: single-profile-handler}]",
            "plugins[1].type: there is a profile handler already",
            id="two-handlers",
        ),
        pytest.param("---\na: 1", "must hold one EndpointPickerConfig, not 2 documents", id="two-documents"),
        pytest.param("plugins: [", "not YAML", id="not-yaml"),
    ],
)
def test_what_cannot_be_used_is_refused_with_its_place(text: str, problem: str) -> None:
    found = problems(text)
    assert any(problem in line for line in found), found
    assert all(line.startswith("picker.yaml:") for line in found)


@pytest.mark.parametrize(
    "head", ["", "kind: EndpointPickerConfig", "apiVersion: v1\nkind: EndpointPickerConfig", "[]", "a"]
)
def test_another_object_is_refused(head: str) -> None:
    assert problems("", head + "\n")


def test_everything_that_is_wrong_is_said_at_once_with_its_line() -> None:
    assert problems("plugins:\n- type: nope-scorer\n- type: decode-filter\n") == [
        f'picker.yaml:4: EndpointPickerConfig: plugins[0].type: "nope-scorer" is not a plugin type, must be one of '
        f"{', '.join(sorted(PLUGINS))}",
        'picker.yaml:5: EndpointPickerConfig: plugins[1].type: the plugin type "decode-filter" of the Inference '
        "Extension is not implemented here",
    ]


@pytest.mark.parametrize("kind", [kind for kind, plugin in PLUGINS.items() if plugin.role is not Role.OTHER])
def test_every_plugin_can_be_configured(kind: str) -> None:
    assert not decode(f"plugins: [{{type: {kind}}}]\n").is_default
