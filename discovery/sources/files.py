"""Which objects do these files and folders hold? (And the ones that `--model` stands for.) Once, or at each change.

A change counts when two reads a moment apart agree, so a file that is being written is not taken for a whole one. Files
are watched by polling what the file system says of them: that works on every file system, and through the symbolic
links that a ConfigMap volume swaps.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from pathlib import Path

from discovery.resources.decoded import Decoded, combine, combine_steps
from discovery.resources.problem import Problem, Severity
from discovery.slices import collector_paused, run_in_slices
from discovery.sources.document_decoder import DocumentDecoder, Progress, unreadable
from discovery.sources.file_contents import Contents, read_contents, read_signature
from discovery.sources.shorthand import decode_models
from discovery.sources.source import SourceState

POLL_SECONDS = 0.5
BLANK_SECONDS = 1.2  # an empty file that had text is believed after this long
SETTLE_SECONDS = 0.1


class FileSource:
    """Manifests in files, and in folders: `*.yaml *.yml *.json` directly inside, no dot files."""

    def __init__(
        self,
        paths: Sequence[Path | str],
        *,
        models: Sequence[str] = (),
        poll_seconds: float = POLL_SECONDS,
        settle_seconds: float = SETTLE_SECONDS,
        blank_seconds: float = BLANK_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._paths = tuple(Path(path) for path in paths)
        self._models = tuple(models)
        self._poll_seconds = poll_seconds
        self._settle_seconds = settle_seconds
        self._blank_seconds = blank_seconds
        self._clock = clock
        self._blank_since: dict[str, float] = {}  # files that are empty, and since when
        self._decoder = DocumentDecoder()
        self.last: SourceState | None = None  # the last state that was not refused
        self._fingerprint: str | None = None  # of the state that was told last
        self._count = 0  # objects of the last state that was not refused
        self._pods: frozenset[str] = frozenset()  # of the last state that was not refused
        self._deleted: frozenset[str] = frozenset()
        self._reread = asyncio.Event()

    def read(self, *, progress: Progress | None = None) -> SourceState:
        """All files as they are at this moment. ``progress`` is told from time to time how far decoding is."""
        contents = read_contents(self._paths)
        self._blank_since = {file.name: -math.inf for file in contents.files if not file.text.strip()}
        parts = self._decoder.decode(contents.files, progress=progress)
        resources, problems = combine([*unreadable(contents.files), *parts, decode_models(self._models)])
        return self._accept(SourceState(resources=resources, problems=tuple(problems)), contents)

    async def watch(self) -> AsyncGenerator[SourceState, None]:
        """The whole state at once, unless it was read before, and again whenever the contents have changed.

        A state that was refused is told too, once; ``reread`` tells the state even when it is the same.
        """
        signature: object | None = None
        while True:
            is_wanted = self._fingerprint is None or self._reread.is_set()
            self._reread.clear()
            new_signature = await asyncio.to_thread(read_signature, self._paths)
            if is_wanted or new_signature is None or new_signature != signature:
                signature = new_signature
                contents = await self._read_settled()
                if is_wanted or contents.fingerprint != self._fingerprint:
                    yield await self._decode(contents)
            await self._wait()

    def reread(self) -> None:
        """Have ``watch`` read everything now and tell it (SIGHUP)."""
        self._reread.set()

    async def _wait(self) -> None:
        try:
            async with asyncio.timeout(self._poll_seconds):
                await self._reread.wait()
        except TimeoutError:
            pass

    async def _read_settled(self) -> Contents:
        """The contents as soon as two reads agree."""
        contents = await asyncio.to_thread(read_contents, self._paths)
        while contents.fingerprint != self._fingerprint:
            await asyncio.sleep(self._settle_seconds)
            again = await asyncio.to_thread(read_contents, self._paths)
            if again.fingerprint == contents.fingerprint and not self._is_cut_short(again):
                break
            contents = again
        return contents

    def _is_cut_short(self, contents: Contents) -> bool:
        """Whether a file that had text has been empty for a moment only: one that is written anew (a shell's `>`) is
        empty first, for as long as what writes it takes to begin."""
        now = self._clock()
        blank = {file.name for file in contents.files if file.problem is None and not file.text.strip()}
        self._blank_since = {name: self._blank_since.get(name, now) for name in blank}
        return any(now - since < self._blank_seconds for since in self._blank_since.values())

    async def _decode(self, contents: Contents) -> SourceState:
        parts: list[Decoded] = [*unreadable(contents.files)]
        with collector_paused():
            parts += await self._decoder.decode_aside(contents.files)
            parts.append(decode_models(self._models))
            resources, problems = await run_in_slices(combine_steps(parts))
        return self._accept(SourceState(resources=resources, problems=tuple(problems)), contents)

    def _accept(self, state: SourceState, contents: Contents) -> SourceState:
        """The state as it is told: a set that had objects and has none is more likely being written than meant."""
        self._fingerprint = contents.fingerprint
        problems = state.problems
        is_refused = any(problem.severity is Severity.REFUSED for problem in problems)
        count = state.resources.count()
        if not is_refused and count == 0 and self._count > 0:
            message = f"no objects any more, {self._count} before: they are kept"
            where = str(self._paths[0]) if self._paths else ""
            problems = (*problems, Problem(severity=Severity.REFUSED, message=message, file=where))
        elif not is_refused:
            self._count = count
            pods = frozenset(pod.identity for pod in state.resources.pods)
            self._deleted = (self._deleted | self._pods) - pods if self._pods or self._deleted else frozenset()
            self._pods = pods
        told = SourceState(
            resources=state.resources,
            problems=problems,
            fingerprint=contents.fingerprint,
            deleted_pods=self._deleted,
        )
        if not any(problem.severity is Severity.REFUSED for problem in problems):
            self.last = told
        return told
