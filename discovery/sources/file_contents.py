"""What do these files and folders hold at this moment, and may it have changed since? Nothing is decoded."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from discovery.resources.problem import Problem, Severity

SUFFIXES = (".yaml", ".yml", ".json")

_YOUNG_NS = 2 * 10**9  # a file changed this recently may change again without a new time stamp


@dataclass(frozen=True, slots=True, kw_only=True)
class FileText:
    """One file as it was read: its text, or why it could not be read."""

    name: str  # as the user gave it, or found in a folder that the user gave
    text: str = ""
    problem: Problem | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """All files as they were read, in order. Equal fingerprints mean equal contents (and names)."""

    files: tuple[FileText, ...]
    fingerprint: str


def read_contents(paths: Sequence[Path]) -> Contents:
    """Each file once, whichever names lead to it. What cannot be read is a problem, never an exception."""
    files: list[FileText] = []
    seen: set[Path] = set()
    digest = hashlib.sha256()
    for path in paths:
        for file in _files_of(path):
            if isinstance(file, Problem):
                read = FileText(name=file.file, problem=file)
            elif (real := file.resolve()) in seen:
                continue
            else:
                seen.add(real)
                read = _read(file)
            files.append(read)
            for part in (read.name, read.text, read.problem.message if read.problem else ""):
                encoded = part.encode("utf-8", "surrogateescape")
                digest.update(b"%d:" % len(encoded))
                digest.update(encoded)
    return Contents(files=tuple(files), fingerprint=digest.hexdigest())


def read_signature(paths: Sequence[Path], *, now_ns: Callable[[], int] = time.time_ns) -> object | None:
    """What the file system says of all files without reading them; None when it cannot be relied upon.

    Equal signatures mean unchanged files: modification and status change time, size, device and inode behind all
    symbolic links. A time stamp is as coarse as a clock tick, so a file that changed a moment ago says nothing yet.
    """
    signature: list[object] = []
    now = now_ns()
    for path in paths:
        for file in _files_of(path):
            if isinstance(file, Problem):
                signature.append(str(file))
                continue
            try:
                stat = os.stat(file)
            except OSError as error:
                signature.append((str(file), type(error).__name__))
                continue
            newest = max(stat.st_mtime_ns, stat.st_ctime_ns)
            if abs(now - newest) < _YOUNG_NS:
                return None
            signature.append((str(file), stat.st_mtime_ns, stat.st_ctime_ns, stat.st_size, stat.st_dev, stat.st_ino))
    return tuple(signature)


def _files_of(path: Path) -> Iterator[Path | Problem]:
    try:
        if not path.is_dir():
            yield path
            return
        names = sorted(entry.name for entry in path.iterdir())
        found = [path / name for name in names if name.endswith(SUFFIXES) and not name.startswith(".")]
        files = [file for file in found if not file.is_dir()]
    except OSError as error:
        yield _problem(path, _reason(error))
        return
    if not files:
        yield _problem(path, "no *.yaml, *.yml or *.json file in this folder")
    yield from files


def _read(file: Path) -> FileText:
    name = str(file)
    try:
        text = file.read_text("utf-8-sig")
    except OSError as error:
        return FileText(name=name, problem=_problem(file, _reason(error)))
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        return FileText(name=name, problem=_problem(file, "not UTF-8", line))
    return FileText(name=name, text=text)


def _reason(error: OSError) -> str:
    return {FileNotFoundError: "no such file or folder", PermissionError: "no permission to read it"}.get(
        type(error), f"cannot be read: {error.strerror}"
    )


def _problem(file: Path, message: str, line: int = 0) -> Problem:
    return Problem(severity=Severity.REFUSED, message=message, file=str(file), line=line)
