"""Do the pages for newcomers say what is so? Their manifests pass `check`, their make targets and links are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from discovery.load import load
from tests.support.processes import PROJECT

README = (PROJECT / "README.md").read_text()
PAGES = [PROJECT / "README.md", PROJECT / "bench/README.md", *sorted((PROJECT / "docs").glob("*.md"))]

every_page = pytest.mark.parametrize("page", [pytest.param(page, id=page.stem) for page in PAGES])


def test_the_first_routes_yaml_has_nothing_to_mend(tmp_path: Path) -> None:
    (block,) = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)
    (tmp_path / "routes.yaml").write_text(block)
    compiled = load([tmp_path]).compile()
    assert [str(problem) for problem in compiled.problems if not problem.is_expected] == []
    assert compiled.routing.model_names == {"qwen", "deepseek-r1"}


@every_page
def test_every_make_target_is_there(page: Path) -> None:
    targets = set(re.findall(r"^([\w-]+):", (PROJECT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"(?:`|^    )make ([\w-]+)", page.read_text(), re.MULTILINE)) <= targets


def anchors(page: Path) -> set[str]:
    """What GitHub makes of the headings."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@every_page
def test_every_link_leads_somewhere(page: Path) -> None:
    for path, anchor in re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", page.read_text()):
        target = page.parent / path if path else page
        assert target.exists(), path
        assert not anchor or anchor in anchors(target), anchor


def test_every_source_that_the_readme_names_is_there() -> None:
    named = re.findall(r"`((?:app|middleware|discovery|k8s|docs|\.ci)/[\w./-]*)`", README)
    assert named
    assert [path for path in named if not (PROJECT / path).exists()] == []
