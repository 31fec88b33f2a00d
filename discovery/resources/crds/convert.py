"""How the JSON beside this file is made: `python discovery/resources/crds/convert.py FOLDER` (see README.md)."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).parent


def convert(source: Path) -> dict[str, Any]:
    """One schema file without its `status`: status is read leniently, so its schema would only cost memory."""
    document: dict[str, Any] = yaml.safe_load(source.read_text("utf-8"))
    document["schema"]["properties"].pop("status", None)
    return document


def main(folder: Path) -> None:
    """Write one compact JSON file for each `group_version_Kind.yaml` in ``folder``."""
    for source in sorted(folder.glob("*.yaml")):
        text = json.dumps(convert(source), separators=(",", ":"), sort_keys=True)
        (HERE / f"{source.stem}.json").write_text(text + "\n", "utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
