"""What may stand in an EndpointPickerConfig? Its shape, without the plugins' own parameters."""

from __future__ import annotations

from typing import Any

KIND = "EndpointPickerConfig"
API_VERSIONS = ("llm-d.ai/v1alpha1", "inference.networking.x-k8s.io/v1alpha1", "llm-d.ai/v1")
# What these switch on is how it works here, or makes no difference.
IGNORED_GATES = frozenset({"enableLegacyMetrics", "dataLayer", "prepareDataPlugins"})

_NAME = {"type": "string", "minLength": 1}
_REFERENCE = {"type": "object", "required": ["pluginRef"], "properties": {"pluginRef": _NAME}}


def list_of(item: dict[str, Any]) -> dict[str, Any]:
    """A list."""
    return {"type": "array", "items": item}


# Go's durations, which have fractions where Gateway API's have none.
DURATION = {"type": "string", "pattern": "^([0-9]{1,5}([.][0-9]{1,9})?(h|ms|m|s|us)){1,4}$"}
THRESHOLDS: dict[str, Any] = {
    "queueDepthThreshold": {"type": "integer", "minimum": 1},
    "kvCacheUtilThreshold": {"type": "number", "minimum": 0.001, "maximum": 1},
    "metricsStalenessThreshold": DURATION,
}

_DATA = {
    "type": "object",
    "properties": {
        "injectDefaults": {"type": "boolean"},
        "sources": list_of(
            {
                "type": "object",
                "required": ["pluginRef"],
                "properties": {"pluginRef": _NAME, "extractors": list_of(_REFERENCE)},
            }
        ),
    },
}

CONFIGURATION: dict[str, Any] = {
    "type": "object",
    "properties": {
        "apiVersion": {"type": "string"},
        "kind": {"type": "string"},
        "metadata": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
        "featureGates": list_of({"type": "string"}),
        "plugins": list_of(
            {
                "type": "object",
                "required": ["type"],
                "properties": {
                    "name": _NAME,
                    "type": _NAME,
                    "parameters": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                },
            }
        ),
        "schedulingProfiles": list_of(
            {
                "type": "object",
                "required": ["name"],
                "properties": {
                    "name": _NAME,
                    "plugins": list_of(
                        {
                            "type": "object",
                            "required": ["pluginRef"],
                            "properties": {"pluginRef": _NAME, "weight": {"type": "number", "minimum": 0}},
                        }
                    ),
                },
            }
        ),
        "dataLayer": _DATA,
        "data": _DATA,
        # A reference, or as up to v1.0 the thresholds themselves.
        "saturationDetector": {"type": "object", "properties": {"pluginRef": _NAME, **THRESHOLDS}},
        "flowControl": {"type": "object", "properties": {"saturationDetector": _REFERENCE}},
        "parser": _REFERENCE,
        "requestHandler": {"type": "object", "properties": {"parsers": list_of(_REFERENCE)}},
    },
}
