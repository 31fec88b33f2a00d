"""What do the CEL rules of InferencePool and InferenceModel say?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from discovery.resources.schema import Finding

Data = Mapping[str, Any]


def check_inference_pool(spec: Data) -> Iterator[Finding]:
    """All rules of a v1 InferencePool."""
    seen: set[int] = set()
    for index, port in enumerate(spec.get("targetPorts", ())):
        if port["number"] in seen:
            yield ("targetPorts", index, "number"), "port number must be unique"
        seen.add(port["number"])
    picker = spec.get("endpointPickerRef")
    if picker is not None and picker.get("kind", "Service") == "Service" and "port" not in picker:
        yield ("endpointPickerRef", "port"), 'is required when kind is "Service" or left out'


def check_inference_model(spec: Data) -> Iterator[Finding]:
    """All rules of an InferenceModel."""
    targets = spec.get("targetModels", ())
    if len({"weight" in target for target in targets}) > 1:
        yield ("targetModels",), "weights must be set for all models, or for none of them"
