"""Which objects does a text hold, and what is wrong with it? Text -> documents -> objects and problems.

Each object goes through the same steps: metadata, the fields that are gone or that we forgive, the schema of its kind
with all its defaults, the CEL rules, the fields that we do not implement, and then the typed model. What an API server
would refuse is refused whole; the other objects of the text are still read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from typing import Any

import msgspec

from discovery.resources.adapter_maps import check_config_map, is_adapter_map
from discovery.resources.collection import Origin
from discovery.resources.decoded import Decoded
from discovery.resources.fields import NOTES, UNSET_IS_OURS, Effect, occurrences
from discovery.resources.forms import complete_ai_reference, internal_form, relax, without_nulls
from discovery.resources.inference import ADAPTER_MAP_LABEL
from discovery.resources.kinds import CERTIFICATE_MAP, KINDS, Kind, find_misspelt, find_namesake
from discovery.resources.meta import (
    DEFAULT_NAMESPACE,
    ENVOY_AI_GATEWAY,
    Resource,
    UnimplementedPolicy,
)
from discovery.resources.problem import FieldPath, Problem, Severity, format_path
from discovery.resources.rules import broken_rules
from discovery.resources.schema import Finding, Schema, Validator, clear_schema_caches, load_schema
from discovery.resources.yaml_documents import Document, DocumentError, read_documents, split_documents

_NAME = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"
_NAMESPACE = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
_STRING_MAP: Schema = {"type": "object", "additionalProperties": {"type": "string"}}
# What we use of metadata; the rest is not looked at.
_METADATA: Schema = {
    "type": "object",
    "required": ["name"],
    "x-kubernetes-preserve-unknown-fields": True,
    "properties": {
        "name": {"type": "string", "minLength": 1, "maxLength": 253, "pattern": _NAME},
        "namespace": {"type": "string", "minLength": 1, "maxLength": 63, "pattern": _NAMESPACE},
        "uid": {"type": "string"},
        "generation": {"type": "integer"},
        "creationTimestamp": {"type": "string", "format": "date-time"},
        "deletionTimestamp": {"type": "string", "format": "date-time"},
        "labels": _STRING_MAP,
        "annotations": _STRING_MAP,
    },
}
_METADATA_VALIDATOR = Validator(_METADATA)
_STEP = re.compile(r"[A-Za-z0-9_-]+")  # of msgspec's "$.status.conditions[0].type"


@cache
def _load_validator(kind: Kind, version: str) -> Validator:
    schema = load_schema(kind.group, version, kind.kind) or {}  # a test sees to it that it is there
    return Validator(relax(kind, schema))


def forget_schemas() -> None:
    """Give back the memory of what was loaded: schemas are only needed while objects are read."""
    _load_validator.cache_clear()
    clear_schema_caches()


def decode(text: str, *, file: str) -> Decoded:
    """Everything that a YAML or JSON text holds; ``file`` is the name that problems are reported under."""
    decoded = Decoded()
    for line, document in split_documents(text):
        decoded.add(decode_document(document), file=file, line=line)
    return decoded


def decode_document(text: str) -> Decoded:
    """What one document of a text holds, with lines counted from its own start and no file's name."""
    decoded = Decoded()
    try:
        for document in read_documents(text):
            for data, path in _unpack(document.data, ()):
                _ObjectDecoder(data, document, path, decoded).decode()
    except DocumentError as error:
        decoded.problems.append(Problem(severity=Severity.REFUSED, message=error.message, line=error.line))
    return decoded


def decode_object(data: Any) -> Decoded:
    """What one object of plain data comes to, such as an API server gives it: no file, no lines."""
    decoded = Decoded()
    _ObjectDecoder(data, Document(data=data, line=0), (), decoded).decode()
    return decoded


def _unpack(data: Any, path: FieldPath) -> Iterator[tuple[Any, FieldPath]]:
    """The objects of a `kind: List`, and of lists in it; anything else is one object."""
    is_list = isinstance(data, dict) and str(data.get("kind", "")).endswith("List") and "items" in data
    if is_list and isinstance(data["items"], list):
        for index, item in enumerate(data["items"]):
            yield from _unpack(item, (*path, "items", index))
    else:
        yield data, path


class _ObjectDecoder:
    """One object on its way from plain data to a typed model. ``decode`` leaves the outcome in ``out``."""

    def __init__(self, data: Any, document: Document, base: FieldPath, out: Decoded) -> None:
        self._data = data
        self._document = document
        self._base = base
        self._out = out
        self._kind = ""
        self._name = ""
        self._namespace = ""

    def decode(self) -> None:
        data = self._data
        if not isinstance(data, dict):
            self._refuse((), "a Kubernetes object is a mapping with apiVersion, kind and metadata")
            return
        api_version, kind = data.get("apiVersion"), data.get("kind")
        self._kind = kind if isinstance(kind, str) else ""
        metadata = data.get("metadata")
        if isinstance(metadata, dict):
            name, namespace = metadata.get("name"), metadata.get("namespace")
            self._name = name if isinstance(name, str) else ""
            self._namespace = namespace if isinstance(namespace, str) else DEFAULT_NAMESPACE
        for key, value in (("apiVersion", api_version), ("kind", kind)):
            if not isinstance(value, str) or not value:
                self._refuse((key,), "is required" if value is None else "must be a string")
                return
        group, _, version = str(api_version).rpartition("/")
        known = KINDS.get((group, self._kind))
        if known is None:
            self._decode_unknown(group, version)
        elif known.kind == "ConfigMap" and not is_adapter_map(metadata):
            content = data.get("data")
            if version == "v1" and isinstance(content, dict) and "ca.crt" in content:
                self._decode_known(CERTIFICATE_MAP, version)
            else:
                self._skip(f"ConfigMap without the label {ADAPTER_MAP_LABEL} and without ca.crt")
        elif version not in known.versions and known.model is UnimplementedPolicy:
            self._decode_unimplemented(group)  # in whatever version: its target must not be served without it
        elif version not in known.versions:
            versions = ", ".join(known.versions)
            self._refuse(("apiVersion",), f"{self._kind} has no version {version}, known: {versions}")
        else:
            self._decode_known(known, version)

    def _decode_known(self, kind: Kind, version: str) -> None:
        findings: list[Finding] = []
        metadata, found = _METADATA_VALIDATOR.validate(self._data.get("metadata") or {})
        findings.extend((("metadata", *path), message) for path, message in found)
        body = {key: value for key, value in self._data.items() if key not in ("apiVersion", "kind", "metadata")}
        restrictions: list[str] = []
        if not kind.has_schema:
            body = without_nulls(body)
            if kind.kind == "ConfigMap":
                findings.extend(check_config_map(body))
        else:
            body.pop("status", None)
            body = self._forgive(kind, body)
            restrictions = self._note_fields(kind, body)
            body = self._check(kind, version, body, findings)
        for path, message in findings:
            self._refuse(path, message)
        if findings:
            return
        if kind.model is None:
            self._warn((), kind.unused)
            return
        metadata.setdefault("namespace", DEFAULT_NAMESPACE)
        if not kind.is_namespaced:
            metadata["namespace"] = ""
        content = {**internal_form(kind, body), "group": kind.group, "kind": kind.kind, "metadata": metadata}
        if restrictions:
            content["restrictions"] = restrictions
        self._build(kind.model, content)

    def _forgive(self, kind: Kind, body: dict[str, Any]) -> dict[str, Any]:
        """The body as its schema takes it: without fields that are gone, and with what users leave out."""
        spec = body.get("spec")
        if not isinstance(spec, dict):
            return body
        for note in NOTES.get((kind.group, kind.kind), ()):
            if note.effect is Effect.REMOVED:
                field_name = note.path.removeprefix("spec.")
                if spec.pop(field_name, None) is not None:
                    self._warn(("spec", field_name), note.reason)
        if (kind.group, kind.kind) == (ENVOY_AI_GATEWAY, "AIGatewayRoute"):
            for _, ref in occurrences(body, "spec.rules[].backendRefs[]"):
                complete_ai_reference(ref)
        return body

    def _note_fields(self, kind: Kind, body: dict[str, Any]) -> list[str]:
        """Warnings about fields that do nothing; the result is those without which the object must not be used."""
        restrictions: list[str] = []
        for note in NOTES.get((kind.group, kind.kind), ()):
            if note.effect is Effect.REMOVED:
                continue
            for path, value in occurrences(body, note.path):
                if not note.applies(value):
                    continue
                if note.effect is Effect.IGNORED:
                    self._warn(path, note.reason, is_expected=note.is_expected)
                else:
                    restrictions.append(f"{format_path(path)}: {note.reason}")
        return restrictions

    def _check(self, kind: Kind, version: str, body: dict[str, Any], findings: list[Finding]) -> dict[str, Any]:
        validator = _load_validator(kind, kind.versions[version])
        checked, found = validator.validate(body)
        if not found and "spec" not in checked:
            found = [(("spec",), "is required")]
        findings.extend(found or broken_rules(kind, validator, checked))
        result: dict[str, Any] = checked
        for path in UNSET_IS_OURS.get((kind.group, kind.kind), ()):
            _forget_default(result, body, path)
        return result

    def _decode_unknown(self, group: str, version: str) -> None:
        misspelt = find_misspelt(group, self._kind)
        if misspelt is not None:
            self._refuse(("kind",), f'unknown kind, did you mean "{misspelt.kind}"?')
            return
        spec = self._data.get("spec")
        # Not only kinds named "…Policy": what attaches to a Gateway or a route may be what keeps prompts in or out.
        if isinstance(spec, dict) and (_targets_what_is_served(spec) or self._is_targeted_policy(spec)):
            self._decode_unimplemented(group)
            return
        namesake = find_namesake(self._kind)
        hint = f", did you mean {namesake.group}?" if namesake is not None else ""
        if self._kind == "EndpointPickerConfig":
            hint = ", --picker-config takes it"
        what = f"{self._kind} of {group}" if group else self._kind
        self._skip(what, hint)

    def _decode_unimplemented(self, group: str) -> None:
        metadata, found = _METADATA_VALIDATOR.validate(self._data.get("metadata") or {})
        for path, message in found:
            self._refuse(("metadata", *path), message)
        if not found:
            spec = without_nulls(self._data.get("spec") or {})
            self._build(UnimplementedPolicy, {"group": group, "kind": self._kind, "metadata": metadata, "spec": spec})

    def _is_targeted_policy(self, spec: dict[str, Any]) -> bool:
        return self._kind.endswith("Policy") and bool({"targetRef", "targetRefs", "targetSelectors"} & set(spec))

    def _build(self, model: type[Resource], content: dict[str, Any]) -> None:
        try:
            resource = msgspec.convert(content, model)
        except msgspec.ValidationError as error:
            message, _, place = str(error).partition(" - at `$")
            path = tuple(int(step) if step.isdigit() else step for step in _STEP.findall(place))
            self._refuse(path, message[:1].lower() + message[1:])
            return
        line = self._document.line_of(self._base) if self._base else self._document.line
        self._out.objects.append((resource, Origin(file="", line=line)))

    def _skip(self, what: str, hint: str = "") -> None:
        self._out.skipped.append(self._problem(Severity.WARNING, (), f"skipped: {what} is not read{hint}"))

    def _refuse(self, path: FieldPath, message: str) -> None:
        self._out.problems.append(self._problem(Severity.REFUSED, path, message))

    def _warn(self, path: FieldPath, message: str, *, is_expected: bool = False) -> None:
        problem = self._problem(Severity.WARNING, path, message)
        self._out.problems.append(replace(problem, is_expected=True) if is_expected else problem)

    def _problem(self, severity: Severity, path: FieldPath, message: str) -> Problem:
        return Problem(
            severity=severity,
            message=message,
            line=self._document.line_of((*self._base, *path)),
            kind=self._kind,
            namespace=self._namespace,
            name=self._name,
            field=format_path(path),
        )


_SERVED_KINDS = frozenset(
    {"Gateway", "HTTPRoute", "GRPCRoute", "AIGatewayRoute", "InferencePool", "Service", "Backend", "AIServiceBackend"}
)


def _targets_what_is_served(spec: dict[str, Any]) -> bool:
    given = [spec.get("targetRef")]
    for key in ("targetRefs", "targetSelectors"):
        listed = spec.get(key)
        given += listed if isinstance(listed, list) else []
    return any(isinstance(target, dict) and target.get("kind") in _SERVED_KINDS for target in given)


def _forget_default(checked: Any, given: Any, path: tuple[str, ...]) -> None:
    """Take a default of the schema's back where the object itself says nothing. A step `[]` is every item of a list."""
    for number, step in enumerate(path[:-1]):
        if step == "[]":
            if isinstance(checked, list) and isinstance(given, list):
                for checked_item, given_item in zip(checked, given, strict=True):
                    _forget_default(checked_item, given_item, path[number + 1 :])
            return
        checked = checked.get(step) if isinstance(checked, dict) else None
        given = given.get(step) if isinstance(given, dict) else None
    if isinstance(checked, dict) and (not isinstance(given, dict) or given.get(path[-1]) is None):
        checked.pop(path[-1], None)
