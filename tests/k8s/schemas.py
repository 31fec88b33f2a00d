"""What would an API server say to an object? Kubernetes' own schemas, and those of the CRDs that we ship."""

from __future__ import annotations

from pathlib import Path

import kubernetes_validate
import yaml

from discovery.load import load
from discovery.resources.kinds import KINDS
from discovery.resources.problem import Severity
from tests.k8s.kustomize import Manifest

OLDEST = "1.29"  # docs/deploy.md says so: the demo has native sidecars
# Kinds of operators, whose schemas are not ours to ship.
FOREIGN = {"argoproj.io", "flagger.app", "kustomize.config.k8s.io", "monitoring.coreos.com"}


def group_of(manifest: Manifest) -> str:
    """The API group; "" for the core's."""
    return str(manifest["apiVersion"]).rpartition("/")[0]


def is_ours(manifest: Manifest) -> bool:
    """Whether we ship the schema of its kind."""
    kind = KINDS.get((group_of(manifest), manifest["kind"]))
    return kind is not None and kind.has_schema


def refusals(objects: tuple[Manifest, ...], version: str, folder: Path) -> list[str]:
    """What an API server of that version would not store. ``folder`` is for a file in between."""
    found = []
    for manifest in objects:
        if not is_ours(manifest) and group_of(manifest) not in FOREIGN:
            try:
                kubernetes_validate.validate(dict(manifest), version, strict=True)
            except kubernetes_validate.ValidationError as error:
                found.append(f"{manifest['kind']}/{manifest['metadata']['name']}: {error.message}")
    file = folder / "objects.yaml"
    file.write_text(yaml.safe_dump_all([dict(each) for each in objects if is_ours(each)]))
    return found + [str(problem) for problem in load([file]).problems if problem.severity is not Severity.WARNING]
