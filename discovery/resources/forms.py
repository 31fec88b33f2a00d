"""Where does the form that we take differ from the schema's? What users leave out, and both versions of a pool."""

from __future__ import annotations

from typing import Any

from discovery.resources.adapter_maps import read_adapter_map
from discovery.resources.kinds import CERTIFICATE_MAP, Kind
from discovery.resources.meta import ENVOY_AI_GATEWAY, INFERENCE, INFERENCE_ALPHA
from discovery.resources.schema import Schema


def complete_ai_reference(ref: Any) -> None:
    """An AIGatewayRoute's backendRef may name its kind without the group, as the first releases had it."""
    if not isinstance(ref, dict):
        return
    if ref.get("kind") == "InferencePool" and ref.get("group") in (None, "", INFERENCE_ALPHA):
        ref["group"] = INFERENCE
    elif ref.get("kind") == "AIServiceBackend" and ref.get("group") in (None, "", ENVOY_AI_GATEWAY):
        ref.pop("kind")
        ref.pop("group", None)


def without_nulls(data: Any) -> Any:
    """A null is an absent field, as where a schema is checked."""
    if isinstance(data, dict):
        return {key: without_nulls(value) for key, value in data.items() if value is not None}
    return [without_nulls(item) for item in data] if isinstance(data, list) else data


def relax(kind: Kind, schema: Schema) -> Schema:
    """The schema, but a v1alpha2 pool may lack its port and its picker, and must not lack its selector."""
    if (kind.group, kind.kind) != (INFERENCE_ALPHA, "InferencePool"):
        return schema
    properties = schema["properties"]
    spec = {**properties["spec"], "required": ["selector"]}
    return {**schema, "properties": {**properties, "spec": spec}, "required": ["spec"]}


def internal_form(kind: Kind, body: dict[str, Any]) -> dict[str, Any]:
    """The shape of the typed model where it differs from the schema's: pools of both versions, adapter maps."""
    if kind is CERTIFICATE_MAP:
        return {"caCertificates": body["data"]["ca.crt"]}
    if kind.kind == "ConfigMap":
        return read_adapter_map(body)
    if kind.kind != "InferencePool":
        return body
    spec = body["spec"]
    if kind.group == INFERENCE:
        labels = spec["selector"]["matchLabels"]
        ports = [port["number"] for port in spec["targetPorts"]]
        picker = spec.get("endpointPickerRef", {})
    else:
        labels = spec["selector"]
        ports = [spec["targetPortNumber"]] if "targetPortNumber" in spec else []
        picker = spec.get("extensionRef", {})
    return {
        "spec": {
            "matchLabels": labels,
            "targetPorts": ports,
            "appProtocol": spec.get("appProtocol", "http"),
            "failsOpen": picker.get("failureMode", "FailOpen") == "FailOpen",
        }
    }
