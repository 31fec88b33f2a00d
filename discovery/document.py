"""What becomes of every field of every kind? Prints docs/manifests.md: `python -m discovery.document`.

A field of a schema is done when the typed model of its kind reads it; what is not read must be a FieldNote or stand in
document_notes.py. A field that is nowhere raises UndocumentedFieldError, and so a test fails.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, get_args

import msgspec

from discovery.document_notes import DONE, FIELDS, INTRODUCTIONS, INVALID, REMARKS, SHAPES, WARNED
from discovery.resources.fields import NOTES, Effect
from discovery.resources.kinds import KINDS, Kind
from discovery.resources.schema import Schema, load_schema

_MAX_VALUES = 6  # of an enum

HEADER = """\
<!-- Made by `python -m discovery.document > docs/manifests.md`; a test fails when it is not current. -->

# Manifests: every field

Pointsman reads the manifests of Gateway API, the Gateway API Inference Extension, Envoy Gateway and Envoy AI Gateway as
they are. This page lists every field of every kind that it reads. `pointsman check FILES` says the same of your files.

| word | meaning |
|---|---|
| done | it has its effect |
| warned | known, without effect: `check` and `serve` print a warning, and everything else of the object works |
| invalid | without it more would be accepted or forwarded than is said: what needs it is answered with 500 |

Everything else is **refused**, as an API server would: fields that are not listed, values of the wrong type, out of
range or against a pattern, and every CEL rule of the CustomResourceDefinitions. `metadata` is read for name, namespace,
labels, annotations, generation, uid and the times; `status` only of Pods. Kinds that are not listed are skipped, with
one line each; a policy of a kind that is not listed counts as a policy that is not implemented.
"""


class UndocumentedFieldError(Exception):
    """A field of a schema of which nothing is known."""


class Row(NamedTuple):
    """One field, or one with all below it."""

    field: str
    values: str
    state: str
    remark: str


def document() -> str:
    """The page. Raises UndocumentedFieldError."""
    parts = [HEADER]
    for kind in KINDS.values():
        version = list(kind.versions.values())[-1]
        group = f" ({kind.group})" if kind.group else ""
        parts.append(f"\n## {kind.kind}{group}\n")
        parts.append(f"{INTRODUCTIONS[kind.group, kind.kind]} Versions: {', '.join(kind.versions)}.\n")
        parts.append("| field | values | | |\n|---|---|---|---|")
        parts.extend(f"| `{row.field}` | {row.values} | {row.state} | {row.remark} |" for row in rows(kind, version))
        if not kind.has_schema:
            parts.append("\nAll other fields are passed over without a word.")
    return "\n".join(parts) + "\n"


def rows(kind: Kind, version: str) -> list[Row]:
    """All fields of one version of a kind. Raises UndocumentedFieldError."""
    name = (kind.group, kind.kind)
    remarks = REMARKS.get(name, {})
    if not kind.has_schema:
        paths = SHAPES.get(name) or tuple(_model_fields(kind.model, ""))
        return [Row(path, "", DONE, remarks.get(path, "")) for path in paths]
    if kind.model is None:
        return [Row("spec", "", INVALID if kind.kind == "HTTPRouteFilter" else WARNED, kind.unused)]
    schema = load_schema(kind.group, version, kind.kind) or {}
    walk = _Walk(kind, _notes(kind), FIELDS.get(name, {}), remarks)
    found = [*walk.rows(schema["properties"]["spec"], _field_type(kind.model, "spec"), "spec")]
    removed = [note for note in NOTES.get(name, ()) if note.effect is Effect.REMOVED]
    return found + [Row(note.path, "", WARNED, note.reason) for note in removed]


class _Walk:
    """Down a schema and a typed model side by side."""

    def __init__(
        self,
        kind: Kind,
        notes: Mapping[str, tuple[str, str]],
        fields: Mapping[str, tuple[str, str]],
        remarks: Mapping[str, str],
    ) -> None:
        self._kind = kind
        self._known = {**notes, **fields}
        self._remarks = remarks

    def rows(self, schema: Schema, model: Any, path: str) -> Iterator[Row]:
        if path in self._known:
            yield Row(path, _values(schema), *self._known[path])
        elif "items" in schema:
            yield from self.rows(schema["items"], model, f"{path}[]")
        elif schema.get("properties"):
            types = _struct_fields(model)
            for key, below in schema["properties"].items():
                where = f"{path}.{key}"
                if types is not None and key in types:
                    yield from self.rows(below, types[key], where)
                elif any(known == where or known.startswith((f"{where}.", f"{where}[")) for known in self._known):
                    yield from self.rows(below, None, where)
                elif types is None and model is not None:
                    yield Row(where, _values(below), DONE, self._remarks.get(where, ""))
                else:
                    raise UndocumentedFieldError(f"{self._kind.kind}: {where}")
        else:
            yield Row(path, _values(schema), DONE, self._remarks.get(path.removesuffix("[]"), ""))


def _notes(kind: Kind) -> dict[str, tuple[str, str]]:
    """What the notes say of each path; of several that depend on the value, all."""
    found: dict[str, tuple[str, str]] = {}
    for note in NOTES.get((kind.group, kind.kind), ()):
        if note.effect is Effect.REMOVED:
            continue
        state = INVALID if note.effect is Effect.RESTRICTS else WARNED
        before = found.get(note.path)
        if before is None:
            found[note.path] = (state, note.reason)
        else:
            found[note.path] = (f"{before[0]} or {state}", f"{before[1]}; else {note.reason}")
    return found


def _model_fields(model: Any, path: str) -> Iterator[str]:
    """The fields that a typed model reads, for kinds without a schema."""
    for key, below in (_struct_fields(model) or {}).items():
        if path or key not in ("group", "kind", "metadata"):
            where = f"{path}.{key}" if path else key
            is_list = str(below).startswith("tuple[")
            nested = list(_model_fields(below, f"{where}[]" if is_list else where))
            yield from nested or [where]


def _struct_fields(model: Any) -> dict[str, Any] | None:
    """The fields of the struct that a type is or holds (`X | None`, `tuple[X, ...]`); None when it holds none."""
    if isinstance(model, type) and issubclass(model, msgspec.Struct):
        # `is_from_api` is what we note of an object, not what anybody writes in it.
        return {field.encode_name: field.type for field in msgspec.structs.fields(model) if field.name != "is_from_api"}
    for part in get_args(model):
        found = _struct_fields(part)
        if found is not None:
            return found
    return None


def _field_type(model: Any, name: str) -> Any:
    return (_struct_fields(model) or {})[name]


def _values(schema: Schema) -> str:
    """What a field takes, in a few words."""
    if "enum" in schema:
        shown = [str(value) or '""' for value in schema["enum"]]
        text = ", ".join(shown[:_MAX_VALUES]) + (", …" if len(shown) > _MAX_VALUES else "")
    elif schema.get("x-kubernetes-int-or-string"):
        text = "quantity"
    else:
        name = str(schema.get("type", ""))
        text = {"array": "list", "object": "mapping"}.get(name, name) + _range(schema)
    default = schema.get("default")
    if isinstance(default, str | int) and default != "":
        text += f"; default {default}"
    return text.replace("|", "\\|")


def _range(schema: Schema) -> str:
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is not None and high is not None:
        return f" {low:,} to {high:,}"
    if low is not None:
        return f" from {low:,}"
    return "" if high is None else f" to {high:,}"


if __name__ == "__main__":
    sys.stdout.write(document())
