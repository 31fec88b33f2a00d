"""What do these documents hold? Each is decoded once, however often it is asked for, in this process or in a child.

A change of a few lines decodes a few documents. Many at once go to a child process (decode_worker.py): the YAML parser
holds the interpreter for a whole document, and the streams of a serving gateway must not wait for it.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import aclosing
from dataclasses import dataclass

from discovery.resources.decode import decode_document, forget_schemas
from discovery.resources.decoded import Decoded
from discovery.resources.yaml_documents import split_documents
from discovery.slices import Steps, run_in_slices
from discovery.sources.file_contents import FileText

logger = logging.getLogger(__name__)

Progress = Callable[[int, int], None]  # documents decoded, documents in all

CHILD_BYTES = 64 * 1024  # new text from which on a child process is worth its start; below, it is 30 ms of work
_LARGE_DOCUMENT_BYTES = 16 * 1024  # one that would hold up the loop for 10 ms
_PROGRESS_STEP = 50


@dataclass(frozen=True, slots=True)
class _Place:
    """A document in a file."""

    file: str
    line: int  # lines before it
    digest: bytes


class DocumentDecoder:
    """Decodes the documents of files, and remembers those of the last time."""

    def __init__(self) -> None:
        self._known: dict[bytes, Decoded] = {}

    def decode(self, files: Iterable[FileText], *, progress: Progress | None = None) -> list[Decoded]:
        """What each file holds, without a break."""
        places: list[_Place] = []
        missing: dict[bytes, str] = {}
        for _ in self._split(files, places, missing):
            pass
        for number, (digest, text) in enumerate(missing.items()):
            if progress is not None and number % _PROGRESS_STEP == 0:
                progress(number, len(missing))
            self._known[digest] = decode_document(text)
        if progress is not None:
            progress(len(missing), len(missing))
        forget_schemas()
        parts: list[Decoded] = []
        for _ in self._place(places, parts):
            pass
        return parts

    async def decode_aside(self, files: Iterable[FileText]) -> list[Decoded]:
        """The same while the event loop goes on."""
        places: list[_Place] = []
        missing: dict[bytes, str] = {}
        await run_in_slices(self._split(files, places, missing))
        sizes = [len(text) for text in missing.values()]
        if sum(sizes) >= CHILD_BYTES or max(sizes, default=0) >= _LARGE_DOCUMENT_BYTES:
            await self._decode_in_child(missing)
        await run_in_slices(self._decode_missing(missing))
        parts: list[Decoded] = []
        await run_in_slices(self._place(places, parts))
        return parts

    def _split(self, files: Iterable[FileText], places: list[_Place], missing: dict[bytes, str]) -> Steps[None]:
        for file in files:
            for line, text in split_documents(file.text):
                digest = hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=16).digest()
                places.append(_Place(file.name, line, digest))
                if digest not in self._known:
                    missing[digest] = text
                yield

    def _decode_missing(self, missing: dict[bytes, str]) -> Steps[None]:
        """Those that the child did not decode: all of them where there was none."""
        for digest, text in missing.items():
            if digest not in self._known:
                self._known[digest] = decode_document(text)
                yield
        forget_schemas()

    async def _decode_in_child(self, missing: dict[bytes, str]) -> None:
        from discovery.sources.decode_child import ChildFailedError, decode_in_child  # only reloads need it

        digests = iter(list(missing))
        try:
            async with aclosing(decode_in_child(list(missing.values()))) as results:
                async for decoded in results:
                    self._known[next(digests)] = decoded
        except ChildFailedError as error:
            logger.warning("manifests are read in this process: %s", error)

    def _place(self, places: list[_Place], parts: list[Decoded]) -> Steps[None]:
        """The documents at their places in the files, and those that are in no file any more forgotten."""
        part, file = Decoded(), ""
        used: dict[bytes, Decoded] = {}
        for place in places:
            if place.file != file or not parts:
                part, file = Decoded(), place.file
                parts.append(part)
            used[place.digest] = decoded = self._known[place.digest]
            part.add(decoded, file=place.file, line=place.line)
            yield
        self._known = used


def unreadable(files: Iterable[FileText]) -> Iterator[Decoded]:
    """The problems of the files that could not be read."""
    for file in files:
        if file.problem is not None:
            yield Decoded(problems=[file.problem])
