"""Which objects do these files and folders hold? (And the ones that `--model` stands for.)"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from discovery.resources.decode import Decoded, combine, decode
from discovery.resources.problem import Problem, Severity
from discovery.resources.schema import forget_schemas
from discovery.sources.shorthand import decode_models
from discovery.sources.source import SourceState

SUFFIXES = (".yaml", ".yml", ".json")


class FileSource:
    """Manifests in files, and in folders: `*.yaml *.yml *.json` directly inside, no dot files."""

    def __init__(self, paths: Sequence[Path | str], *, models: Sequence[str] = ()) -> None:
        self._paths = tuple(Path(path) for path in paths)
        self._models = tuple(models)

    def read(self) -> SourceState:
        """All files as they are at this moment."""
        parts: list[Decoded] = []
        seen: set[Path] = set()
        for path in self._paths:
            for file in _files_of(path):
                if isinstance(file, Problem):
                    parts.append(Decoded(problems=[file]))
                elif (real := file.resolve()) not in seen:
                    seen.add(real)
                    parts.append(_read(file))
        parts.append(decode_models(self._models))
        forget_schemas()
        resources, problems = combine(parts)
        return SourceState(resources=resources, problems=tuple(problems))


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


def _read(file: Path) -> Decoded:
    try:
        text = file.read_text("utf-8-sig")
    except OSError as error:
        return Decoded(problems=[_problem(file, _reason(error))])
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        return Decoded(problems=[_problem(file, "not UTF-8", line)])
    return decode(text, file=str(file))


def _reason(error: OSError) -> str:
    return {FileNotFoundError: "no such file or folder", PermissionError: "no permission to read it"}.get(
        type(error), f"cannot be read: {error.strerror}"
    )


def _problem(file: Path, message: str, line: int = 0) -> Problem:
    return Problem(severity=Severity.REFUSED, message=message, file=str(file), line=line)
