"""Can the project be installed, imaged and started as its files say? No Docker here: the Dockerfile's lines are run."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tomllib
import urllib.request
from pathlib import Path

import pytest

from tests.support.ports import free_port
from tests.support.processes import PROJECT

DOCKERFILE = (PROJECT / "Dockerfile").read_text()
NOBODY = 65532
# The interpreter of a test run can be in a folder of root's. To read and to search there is granted, to write is not.
_AS_NOBODY = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
_AS_NOBODY += ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search", "--"]


def instructions(name: str) -> list[str]:
    return [line.removeprefix(f"{name} ") for line in DOCKERFILE.splitlines() if line.startswith(f"{name} ")]


def tracked_files() -> list[str]:
    listed = subprocess.run(["git", "ls-files"], cwd=PROJECT, capture_output=True, text=True, check=True)
    return listed.stdout.splitlines()


def test_every_source_that_the_image_copies_is_tracked() -> None:
    tracked = tracked_files()
    for copy in instructions("COPY"):
        if copy.startswith("--from"):
            continue
        *sources, _ = copy.split()
        for source in sources:
            assert any(file == source or file.startswith(f"{source}/") for file in tracked), source


def test_the_image_does_not_run_as_root() -> None:
    (user,) = instructions("USER")
    assert user.split(":")[0] not in ("0", "root")


def test_every_dependency_is_locked_by_hash_and_no_index_is_named() -> None:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    locked = (PROJECT / "requirements.txt").read_text()
    assert "://" not in locked
    pinned = {name.lower().replace("_", "-") for name in re.findall(r"^([\w.-]+)==", locked, re.MULTILINE)}
    for dependency in project["dependencies"]:
        name = re.split(r"[\[<>=!~ ;]", dependency)[0].lower()
        assert name in pinned, f"{name}: run make lock"


def test_each_dependency_has_its_reason_beside_it() -> None:
    block = (PROJECT / "pyproject.toml").read_text().split("dependencies = [", 1)[1].split("]\n", 1)[0]
    for line in block.strip().splitlines():
        assert "#" in line, line


def test_no_file_names_a_path_of_the_machine_it_was_written_on() -> None:
    folder = str(PROJECT.parent)
    for name in tracked_files():
        if name != "LICENSE" and len(folder) > 1:
            assert f"{folder}/main" not in (PROJECT / name).read_text(errors="replace"), name


@pytest.mark.timeout(300)
def test_the_images_install_lines_give_a_command_that_another_user_runs_from_a_read_only_folder(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        # Every folder above must let the other user through; pytest makes its own for root alone.
        base = Path("/tmp") / f"pointsman-image-{os.getpid()}"  # noqa: S108
        base.mkdir(mode=0o755)
    else:
        base = tmp_path
    try:
        _install_and_serve(base)
    finally:
        shutil.rmtree(base, ignore_errors=True)


def _install_and_serve(base: Path) -> None:
    source, venv = base / "src", base / "venv"
    source.mkdir()
    archive = subprocess.run(["git", "ls-files", "-z"], cwd=PROJECT, capture_output=True, check=True).stdout
    for name in archive.decode().split("\0"):
        if name and (PROJECT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(PROJECT / name, source / name)
    for line in instructions("RUN"):
        command = line.replace("/opt/pointsman", str(venv)).replace("python -m venv", f"{sys.executable} -m venv")
        subprocess.run(command.split(), cwd=source, check=True, capture_output=True)

    empty = base / "empty"
    empty.mkdir()
    empty.chmod(0o555)
    manifests = base / "manifests"
    manifests.mkdir()
    shutil.copy(PROJECT / "routes.yaml", manifests)
    port, admin_port = free_port(), free_port()
    serve = [str(venv / "bin" / "pointsman"), "serve", str(manifests), "--port", str(port)]
    is_other = os.geteuid() == 0
    process: subprocess.Popen[bytes] = subprocess.Popen(
        [*(_AS_NOBODY if is_other else []), *serve, "--host", "127.0.0.1", "--admin-port", str(admin_port)],
        cwd=empty,
        env={"PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        said = b""
        assert process.stdout is not None
        while b"serving" not in said:
            more = process.stdout.readline()
            assert more, said
            said += more
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/models", timeout=10) as answer:
            assert b"deepseek-r1" in answer.read()
        if is_other:
            status = Path(f"/proc/{process.pid}/status").read_text()
            assert f"Uid:\t{NOBODY}" in status
        process.send_signal(signal.SIGTERM)
        rest, _ = process.communicate(timeout=20)
        assert process.returncode == 0, said + rest
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()
