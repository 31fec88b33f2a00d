"""Which adapters does a ConfigMap name, and what is wrong with its text? (The body-based router's adapter maps.)

`data.baseModel` is a model's name, `data.adapters` a YAML list in a string. An API server stores any strings, so what
is wrong with them is not refused: it becomes the object's condition.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from discovery.resources.inference import ADAPTER_MAP_LABEL
from discovery.resources.schema import Finding, Validator
from discovery.resources.yaml_documents import DocumentError, read_documents

_BODY = Validator(
    {
        "type": "object",
        "x-kubernetes-preserve-unknown-fields": True,
        "properties": {"data": {"type": "object", "additionalProperties": {"type": "string"}}},
    }
)


def is_adapter_map(metadata: Any) -> bool:
    """Whether a ConfigMap's metadata has the label; all other ConfigMaps are none of our business."""
    labels = metadata.get("labels") if isinstance(metadata, dict) else None
    return isinstance(labels, dict) and labels.get(ADAPTER_MAP_LABEL) == "true"


def check_config_map(body: Mapping[str, Any]) -> list[Finding]:
    """What an API server would refuse: `data` holds strings only."""
    findings = _BODY.validate(body)[1]
    hint = ": write `adapters: |` and the list below it"
    return [(path, message + (hint if path == ("data", "adapters") else "")) for path, message in findings]


def read_adapter_map(body: Mapping[str, Any]) -> dict[str, Any]:
    """The content in the shape of AdapterMap."""
    data = body.get("data") or {}
    faults: list[dict[str, str]] = []
    base_model = data.get("baseModel", "").strip()
    if not base_model:
        faults.append({"field": "data.baseModel", "message": "is required, and must not be blank"})
    adapters, fault = _read_adapters(data.get("adapters", ""))
    if fault:
        faults.append({"field": "data.adapters", "message": fault})
    return {"baseModel": base_model, "adapters": adapters, "faults": faults}


def _read_adapters(text: str) -> tuple[list[str], str]:
    try:
        documents = [document.data for document in read_documents(text)]
    except DocumentError as error:
        return [], f"must be a YAML list of names: line {error.line}: {error.message}"
    if not documents:
        return [], ""
    if len(documents) > 1 or not isinstance(documents[0], list):
        return [], "must be a YAML list of names, such as `- food-review`"
    for number, name in enumerate(documents[0]):
        if name is not None and not isinstance(name, str):
            return [], f"item {number} must be a name: put it in quotes"
    names = (name.strip() for name in documents[0] if name)
    return list(dict.fromkeys(name for name in names if name)), ""
