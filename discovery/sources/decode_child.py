"""How are documents decoded in another process? Starts the child for one change and ends it with that."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncGenerator, Iterator, Sequence
from pathlib import Path

import msgspec

from discovery.resources.decode import Decoded
from discovery.sources.decode_worker import PackedDocument, frame, unpack

_BATCH_DOCUMENTS = 20  # so that taking over one answer is a millisecond
_BATCH_BYTES = 64 * 1024
_DECODER = msgspec.msgpack.Decoder(list[PackedDocument])
_ROOT = str(Path(__file__).parent.parent.parent)


class ChildFailedError(Exception):
    """The child could not be started, or ended early; the text says which."""


async def decode_in_child(texts: Sequence[str]) -> AsyncGenerator[Decoded, None]:
    """What each text holds, in order. The child is gone when the iteration ends, however it ends.

    Raises ChildFailedError.
    """
    process = await _start()
    writing = asyncio.create_task(_write(process, texts))
    try:
        count = 0
        while count < len(texts):
            packed = await _read(process)
            for document in packed:
                yield unpack(document)
            count += len(packed)
            await asyncio.sleep(0)  # what is in the buffer already would be read on without a break
    finally:
        writing.cancel()
        await asyncio.wait({writing})
        await _end(process)


async def _start() -> asyncio.subprocess.Process:
    starting = asyncio.ensure_future(
        asyncio.create_subprocess_exec(
            sys.executable or "python3",
            "-P",
            "-m",
            "discovery.sources.decode_worker",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [_ROOT, os.environ.get("PYTHONPATH")]))},
            start_new_session=True,  # a signal for the gateway is not one for its children
        )
    )
    try:
        return await asyncio.shield(starting)
    except asyncio.CancelledError:  # a process that is being started is there already
        await _end(await starting)
        raise
    except OSError as error:
        raise ChildFailedError(f"the child process did not start: {error.strerror}") from None


async def _end(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.kill()
    await process.communicate()  # waits, and frees the pipes


async def _write(process: asyncio.subprocess.Process, texts: Sequence[str]) -> None:
    stream = process.stdin
    assert stream is not None
    encode = msgspec.msgpack.Encoder().encode
    with contextlib.suppress(ConnectionError):  # reading finds that the child is gone
        for batch in _batches(texts):
            stream.write(frame(encode(batch)))
            await stream.drain()
        stream.close()


async def _read(process: asyncio.subprocess.Process) -> list[PackedDocument]:
    stream = process.stdout
    assert stream is not None
    try:
        size = int.from_bytes(await stream.readexactly(4), "big")
        return _DECODER.decode(await stream.readexactly(size))
    except (asyncio.IncompleteReadError, ConnectionError, msgspec.DecodeError):
        raise ChildFailedError("the child process ended early") from None


def _batches(texts: Sequence[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    size = 0
    for text in texts:
        batch.append(text)
        size += len(text)
        if len(batch) >= _BATCH_DOCUMENTS or size >= _BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
