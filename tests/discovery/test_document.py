"""docs/manifests.md is what the code does, field by field."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from discovery.document import Row, UndocumentedFieldError, document, rows
from discovery.document_notes import FIELDS, INTRODUCTIONS, INVALID, REMARKS
from discovery.resources import fields
from discovery.resources.kinds import KINDS

PAGE = Path(__file__).parent.parent.parent / "docs" / "manifests.md"


def row(kind: str, field: str, group: str = "gateway.networking.k8s.io") -> Row:
    known = KINDS[group, kind]
    (found,) = [r for r in rows(known, list(known.versions.values())[-1]) if r.field == field]
    return found


def test_the_page_is_current() -> None:
    assert PAGE.read_text("utf-8") == document(), "python -m discovery.document > docs/manifests.md"


def test_the_page_comes_from_a_command() -> None:
    ran = subprocess.run([sys.executable, "-m", "discovery.document"], capture_output=True, text=True, check=True)
    assert ran.stdout == document()


def test_every_kind_is_introduced_and_every_version_documented() -> None:
    assert set(INTRODUCTIONS) == set(KINDS)
    for kind in KINDS.values():
        for version in kind.versions.values():
            assert rows(kind, version)


def test_every_note_is_about_a_field_that_there_is() -> None:
    for name, kind in KINDS.items():
        listed = {r.field.replace("[]", "") for v in kind.versions.values() for r in rows(kind, v)}
        notes = [note.path for note in fields.NOTES.get(name, ())]
        for path in (*notes, *FIELDS.get(name, {}), *REMARKS.get(name, {})):
            assert path.replace("[]", "") in listed, (name, path)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        pytest.param(
            row("HTTPRoute", "spec.rules[].backendRefs[].weight"),
            ("integer 0 to 1,000,000; default 1", "done"),
            id="done",
        ),
        pytest.param(row("Gateway", "spec.addresses"), ("list", "warned"), id="warned"),
        pytest.param(row("HTTPRoute", "spec.rules[].filters[].cors"), ("mapping", "invalid"), id="invalid"),
        pytest.param(
            row("BackendTrafficPolicy", "spec.rateLimit.global", "gateway.envoyproxy.io"), ("mapping", "invalid"),
            id="restricts",
        ),
        pytest.param(
            row("AIGatewayRoute", "spec.targetRefs", "aigateway.envoyproxy.io"), ("", "warned"), id="no-longer-there"
        ),
        pytest.param(row("Pod", "status.podIP", ""), ("", "done"), id="kind-without-a-schema"),
        pytest.param(row("ConfigMap", "data.baseModel", ""), ("", "done"), id="adapter-map"),
        pytest.param(row("HTTPRouteFilter", "spec", "gateway.envoyproxy.io"), ("", "invalid"), id="filter"),
    ],
)  # fmt: skip
def test_a_field_is_done_warned_or_invalid(found: Row, expected: tuple[str, str]) -> None:
    assert (found.values, found.state) == expected


def test_a_field_of_which_nothing_is_known_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    name = ("gateway.networking.k8s.io", "HTTPRoute")
    monkeypatch.setitem(FIELDS, name, {"spec.rules[].filters[].cors": (INVALID, "")})
    with pytest.raises(UndocumentedFieldError, match=r"HTTPRoute: spec.rules\[\].*cors"):
        rows(KINDS[name], "v1")
