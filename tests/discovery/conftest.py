"""Real files in a folder of their own, read by the one call that `serve` and `check` use."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from tests.discovery.loading import LoadText


@pytest.fixture
def load_text(tmp_path: Path) -> LoadText:
    """Write YAML to `routes.yaml` and load it."""
    file = tmp_path / "routes.yaml"

    def write(text: str) -> Path:
        file.write_text(textwrap.dedent(text), "utf-8")
        return file

    return LoadText(write)
