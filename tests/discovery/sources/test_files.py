"""Files and folders: which are read, and what cannot be read is a line, never a traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from discovery.resources.problem import Severity
from discovery.sources.files import FileSource

NAMESPACE = "apiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}}}\n"


def names(*paths: Path) -> list[str]:
    return [n.name for n in FileSource(paths).read().resources.namespaces]


def problems(*paths: Path) -> list[str]:
    state = FileSource(paths).read()
    assert all(p.severity is Severity.REFUSED for p in state.problems)
    return [str(p) for p in state.problems]


def test_a_folder_s_manifests_are_those_directly_inside_without_dot_files(tmp_path: Path) -> None:
    for name in ("b.yaml", "a.yml", "c.json", ".hidden.yaml", "notes.txt", "sub/d.yaml", "dir.yaml/e.yaml"):
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(NAMESPACE.format(name=file.stem.strip(".")), "utf-8")
    (tmp_path / "c.json").write_text('{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "c"}}', "utf-8")
    assert names(tmp_path) == ["a", "b", "c"]


def test_a_file_is_read_under_any_name_and_only_once(tmp_path: Path) -> None:
    file = tmp_path / "config"
    file.write_text(NAMESPACE.format(name="x"), "utf-8")
    (tmp_path / "link.yaml").symlink_to(file)
    assert names(file, file, tmp_path) == ["x"]


def test_a_config_map_volume_is_read_through_its_symlinks(tmp_path: Path) -> None:
    (tmp_path / "..2026").mkdir()
    (tmp_path / "..2026" / "routes.yaml").write_text(NAMESPACE.format(name="x"), "utf-8")
    (tmp_path / "..data").symlink_to("..2026")
    (tmp_path / "routes.yaml").symlink_to("..data/routes.yaml")
    assert names(tmp_path) == ["x"]


def test_each_reading_is_the_whole_state(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(NAMESPACE.format(name="one"), "utf-8")
    source = FileSource([tmp_path])
    assert [n.name for n in source.read().resources.namespaces] == ["one"]
    file.write_text(NAMESPACE.format(name="two"), "utf-8")
    assert [n.name for n in source.read().resources.namespaces] == ["two"]


def test_what_cannot_be_read_is_a_line(tmp_path: Path) -> None:
    (tmp_path / "latin.yaml").write_bytes(b"a: 1\nb: \xe9\n")
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken.yaml").symlink_to("nowhere")
    assert problems(tmp_path / "missing.yaml") == [f"{tmp_path}/missing.yaml: no such file or folder"]
    assert problems(tmp_path / "latin.yaml") == [f"{tmp_path}/latin.yaml:2: not UTF-8"]
    assert problems(tmp_path / "empty") == [f"{tmp_path}/empty: no *.yaml, *.yml or *.json file in this folder"]
    assert problems(tmp_path / "broken.yaml") == [f"{tmp_path}/broken.yaml: no such file or folder"]
    assert problems(tmp_path / "latin.yaml" / "x") == [f"{tmp_path}/latin.yaml/x: cannot be read: Not a directory"]


def test_a_file_without_permission_is_a_line(tmp_path: Path) -> None:
    """Root may read everything, so where the tests run as root the file is read by a child that is somebody else."""
    (tmp_path / "a.yaml").write_text("", "utf-8")
    (tmp_path / "a.yaml").chmod(0)
    script = "import os, sys; from discovery.sources.files import FileSource; os.chdir(sys.argv[1]); "
    if os.geteuid() == 0:
        script += "os.setgroups([]); os.setgid(65534); os.setuid(65534); "
    script += "print(*FileSource(['a.yaml']).read().problems)"
    ran = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=False)
    assert (ran.stdout, ran.stderr) == ("a.yaml: no permission to read it\n", "")


def test_a_byte_order_mark_is_nothing(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_bytes(b"\xef\xbb\xbf" + NAMESPACE.format(name="x").encode())
    assert names(file) == ["x"]
