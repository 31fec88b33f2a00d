"""Which plugins of an EndpointPickerConfig do we have, with which parameters?"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from typing import Any

from middleware.scheduling.filters import Filter, UtilizationFilter
from middleware.scheduling.picker_schema import THRESHOLDS
from middleware.scheduling.pickers import MaxScorePicker, Picker, RandomPicker, WeightedRandomPicker
from middleware.scheduling.prompt import MAX_BLOCKS, TOKEN_BYTES
from middleware.scheduling.saturation import Thresholds
from middleware.scheduling.scorers import (
    ActiveRequestScorer,
    KvCacheUtilizationScorer,
    LoraAffinityScorer,
    PrefixCacheScorer,
    QueueScorer,
    RunningRequestsScorer,
    Scorer,
)

MIN_AUTOMATIC_BLOCK_TOKENS = 64  # llm-d's bound: blocks of 16 took it too much memory
DEFAULT_CAPACITY_TOKENS = 500_000  # of an endpoint that does not tell: 31,250 blocks of 16


class Role(Enum):
    """What a plugin is for."""

    FILTER = "filter"
    SCORER = "scorer"
    PICKER = "picker"
    DETECTOR = "saturation detector"
    OTHER = "other"  # says what is so here in any case


@dataclass(frozen=True, slots=True, kw_only=True)
class Plugin:
    """A plugin type that we have. ``parameters`` is a schema."""

    role: Role
    parameters: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class PrefixSettings:
    """How prompts are cut into blocks, and how many are remembered."""

    is_automatic: bool = True  # what the endpoints' metrics say goes before the next two
    block_tokens: int = MIN_AUTOMATIC_BLOCK_TOKENS
    capacity_tokens: int = DEFAULT_CAPACITY_TOKENS  # of one endpoint
    max_blocks: int = MAX_BLOCKS  # of a prompt that are looked at


DEFAULT_PREFIX_SETTINGS = PrefixSettings()


def _takes(**parameters: Any) -> dict[str, Any]:
    return {"type": "object", "properties": parameters}


_COUNT = {"type": "integer", "minimum": 1}
_SHARE = {"type": "number", "minimum": 0, "maximum": 1}
_NOTHING = _takes()
_PREFIX: dict[str, Any] = {
    "autoTune": {"type": "boolean"},
    "blockSizeTokens": _COUNT,
    "blockSize": _COUNT,  # in bytes, as up to v1.3
    "hashBlockSize": _COUNT,  # the same up to v1.0
    "maxPrefixBlocksToMatch": _COUNT,
    "maxPrefixTokensToMatch": _COUNT,
    "lruCapacityPerServer": _COUNT,
}
_PICKER = _takes(maxNumOfEndpoints=_COUNT)  # whoever is tried after the first is picked then, by the same profile
_UTILIZATION = _takes(**THRESHOLDS, headroom={"type": "number", "minimum": 0})

PLUGINS: dict[str, Plugin] = {
    "queue-scorer": Plugin(role=Role.SCORER, parameters=_NOTHING),
    "running-requests-size-scorer": Plugin(role=Role.SCORER, parameters=_NOTHING),
    "kv-cache-utilization-scorer": Plugin(role=Role.SCORER, parameters=_NOTHING),
    "lora-affinity-scorer": Plugin(role=Role.SCORER, parameters=_NOTHING),
    "prefix-cache-scorer": Plugin(
        role=Role.SCORER,
        parameters=_takes(
            **_PREFIX,
            matchLengthWeight=_SHARE,
            matchLengthScaleTokens=_COUNT,
            prefixMatchInfoProducerName={"type": "string", "enum": ["approx-prefix-cache-producer"]},
        ),
    ),
    "active-request-scorer": Plugin(
        role=Role.SCORER,
        parameters=_takes(
            idleThreshold={"type": "integer", "minimum": 0}, maxBusyScore=_SHARE, requestTimeout={"type": "string"}
        ),
    ),
    "utilization-filter": Plugin(role=Role.FILTER, parameters=_UTILIZATION),
    "max-score-picker": Plugin(role=Role.PICKER, parameters=_PICKER),
    "weighted-random-picker": Plugin(role=Role.PICKER, parameters=_PICKER),
    "random-picker": Plugin(role=Role.PICKER, parameters=_PICKER),
    "utilization-detector": Plugin(role=Role.DETECTOR, parameters=_UTILIZATION),
    "single-profile-handler": Plugin(role=Role.OTHER, parameters=_NOTHING),
    "approx-prefix-cache-producer": Plugin(role=Role.OTHER, parameters=_takes(**_PREFIX)),
    "inflight-load-producer": Plugin(role=Role.OTHER, parameters=_NOTHING),
    "core-metrics-extractor": Plugin(role=Role.OTHER, parameters=_NOTHING),
    "metrics-data-source": Plugin(
        role=Role.OTHER,
        parameters=_takes(
            scheme={"type": "string", "enum": ["http"]},
            path={"type": "string", "pattern": "^/[!-~]*$"},
            insecureSkipVerify={"type": "boolean"},
        ),
    ),
    **{
        f"{name}-parser": Plugin(role=Role.OTHER, parameters=_NOTHING)
        for name in ("openai", "anthropic", "vllmhttp", "passthrough")
    },
}

# Plugins of llm-d-router and the Inference Extension that do something which Pointsman does not.
_ELSEWHERE = frozenset(
    """
    vllmgrpc-parser sglanghttp-parser vertexai-parser header-profile-handler data-parallel-profile-handler
    disagg-profile-handler always-disagg-pd-decider prefix-based-pd-decider always-disagg-multimodal-decider
    decode-filter prefill-filter encode-filter label-selector-filter prefix-cache-affinity-filter
    slo-headroom-tier-filter header-based-testing-filter session-affinity-filter topology-affinity-filter
    endpoint-attribute-filter precise-prefix-cache-scorer load-aware-scorer token-load-scorer
    context-length-aware-scorer no-hit-lru-scorer latency-scorer predicted-latency-scorer mm-cache-affinity-scorer
    session-affinity-scorer header-label-affinity-scorer endpoint-attribute-scorer topology-affinity-scorer
    latency-slo-admitter probabilistic-admitter precise-prefix-cache-producer burst-prefix-cache-producer
    token-producer predicted-latency-producer agent-identity-producer p2p-source models-data-source
    endpoint-notification-source k8s-notification-source dcgm-data-source global-strict-fairness-policy
    round-robin-fairness-policy program-aware-fairness-policy fcfs-ordering-policy edf-ordering-policy
    slo-deadline-ordering-policy static-usage-limit-policy priority-holdback-policy soft-reflective-ceiling-policy
    concurrency-detector file-discovery multicluster-file-discovery destination-endpoint-served-verifier
    request-attribute-reporter
    """.split()
)


def known_elsewhere(kind: str) -> str:
    """What is wrong with a plugin type that is not in PLUGINS."""
    if kind in _ELSEWHERE:
        return f'the plugin type "{kind}" of the Inference Extension is not implemented here'
    return f'"{kind}" is not a plugin type, must be one of {", ".join(sorted(PLUGINS))}'


def make_scorer(kind: str, parameters: dict[str, Any]) -> Scorer:
    """A scorer of a type that is one."""
    match kind:
        case "queue-scorer":
            return QueueScorer()
        case "running-requests-size-scorer":
            return RunningRequestsScorer()
        case "kv-cache-utilization-scorer":
            return KvCacheUtilizationScorer()
        case "lora-affinity-scorer":
            return LoraAffinityScorer()
        case "active-request-scorer":
            return ActiveRequestScorer(
                idle_threshold=parameters.get("idleThreshold", 0),
                max_busy_score=float(parameters.get("maxBusyScore", 1.0)),
            )
        case _:
            return PrefixCacheScorer(
                match_length_weight=float(parameters.get("matchLengthWeight", 0.0)),
                match_length_scale_tokens=parameters.get("matchLengthScaleTokens", 8192),
            )


def make_filter(kind: str, parameters: dict[str, Any]) -> Filter:
    """The one filter that there is."""
    return UtilizationFilter(thresholds=thresholds(parameters))


def make_picker(kind: str) -> Picker:
    """A picker of a type that is one."""
    match kind:
        case "weighted-random-picker":
            return WeightedRandomPicker()
        case "random-picker":
            return RandomPicker()
        case _:
            return MaxScorePicker()


def thresholds(parameters: dict[str, Any]) -> Thresholds:
    """Of a saturation detector or a filter."""
    defaults = Thresholds()
    staleness = parameters.get("metricsStalenessThreshold")
    return Thresholds(
        queue_depth=parameters.get("queueDepthThreshold", defaults.queue_depth),
        kv_cache_usage=float(parameters.get("kvCacheUtilThreshold", defaults.kv_cache_usage)),
        staleness_seconds=defaults.staleness_seconds if staleness is None else _seconds(staleness),
        headroom=float(parameters.get("headroom", defaults.headroom)),
    )


_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001, "us": 0.000001}


def _seconds(duration: str) -> float:
    """Of a duration as the schema lets it through."""
    return sum(float(number) * _UNITS[unit] for number, unit in re.findall(r"([0-9.]+)(h|ms|m|s|us)", duration))


def prefix_settings(given: list[dict[str, Any]]) -> PrefixSettings:
    """Of the plugins that say something about prefixes, the first that says it."""
    parameters: dict[str, Any] = {}
    for each in reversed(given):
        parameters.update(each)
    block = parameters.get("blockSizeTokens")
    in_bytes = parameters.get("blockSize", parameters.get("hashBlockSize"))
    if block is None and in_bytes is not None:
        block = max(1, in_bytes // TOKEN_BYTES)
    is_automatic = parameters.get("autoTune", in_bytes is None)  # which those with blocks in bytes did not know
    block_tokens = block or MIN_AUTOMATIC_BLOCK_TOKENS
    capacity = parameters.get("lruCapacityPerServer")
    max_blocks = parameters.get("maxPrefixBlocksToMatch", MAX_BLOCKS)
    max_tokens = parameters.get("maxPrefixTokensToMatch")
    if max_tokens is not None:
        max_blocks = max(1, max_tokens // block_tokens)
    return PrefixSettings(
        is_automatic=is_automatic,
        block_tokens=block_tokens,
        capacity_tokens=DEFAULT_CAPACITY_TOKENS if capacity is None else capacity * block_tokens,
        max_blocks=min(MAX_BLOCKS, max_blocks),
    )
