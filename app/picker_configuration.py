"""Which EndpointPickerConfig is in use? The file of `--picker-config`, read at start and again when it has changed.

A file that cannot be used is refused at start; later the last good one stays in use, and the log says what is wrong.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from pathlib import Path

from app.configuration import ConfigurationRefusedError
from discovery.sources.file_contents import FileText, read_contents, read_signature
from discovery.tasks import end
from middleware.scheduling.configuration import (
    PickerConfiguration,
    PickerConfigurationError,
    decode_picker_configuration,
)

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.5
SETTLE_SECONDS = 0.1


class PickerConfigurationFile:
    """``load`` once, then ``follow`` until ``close``. Without a file none of them does anything."""

    def __init__(self, path: Path | None, *, use: Callable[[PickerConfiguration], None]) -> None:
        self._path = path
        self._use = use
        self._text: str | None = None  # that was looked at last, good or not
        self._task: asyncio.Task[None] | None = None
        self._reread = asyncio.Event()

    def load(self) -> None:
        """Read and use. Raises ConfigurationRefusedError."""
        if self._path is None:
            return
        file = self._read()
        if file.problem is not None:
            raise ConfigurationRefusedError([file.problem])
        self._text = file.text
        try:
            self._use(decode_picker_configuration(file.text, file=file.name))
        except PickerConfigurationError as error:
            raise ConfigurationRefusedError(error.problems) from None

    def follow(self) -> None:
        """From here on changes take effect, in a task that ``close`` ends."""
        if self._path is not None:
            self._task = asyncio.create_task(self._follow(self._path))

    def reread(self) -> None:
        """Look at the file now (SIGHUP)."""
        self._reread.set()

    async def close(self) -> None:
        """Stop following. Safe to call twice."""
        task, self._task = self._task, None
        await end(task)

    async def _follow(self, path: Path) -> None:
        signature: object | None = None
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(POLL_SECONDS):
                    await self._reread.wait()
            self._reread.clear()
            new_signature = await asyncio.to_thread(read_signature, [path])
            if new_signature is not None and new_signature == signature:
                continue
            signature = new_signature
            file = await asyncio.to_thread(self._read)
            await asyncio.sleep(SETTLE_SECONDS)
            # A file that is being written is not taken for a whole one: two reads have to agree.
            if file == await asyncio.to_thread(self._read):
                self._take(file)
            else:
                signature = None

    def _take(self, file: FileText) -> None:
        if file.problem is not None or not file.text.strip() or file.text == self._text:
            return  # gone, being written anew, or the same
        self._text = file.text
        try:
            self._use(decode_picker_configuration(file.text, file=file.name))
        except PickerConfigurationError as error:
            for problem in error.problems:
                logger.error("%s", problem)
            logger.error("the new EndpointPickerConfig is refused; the last good one stays in use")
        else:
            logger.info("a new EndpointPickerConfig is in use")

    def _read(self) -> FileText:
        assert self._path is not None
        if self._path.is_dir():
            raise IsADirectoryError(self._path)
        return read_contents([self._path]).files[0]
