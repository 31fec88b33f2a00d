"""How are documents decoded in another process? Starts the child for one change and ends it with that."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import time
from collections.abc import AsyncGenerator, Iterator, Sequence
from pathlib import Path

import msgspec

from discovery.resources.decoded import Decoded
from discovery.slices import SLICE_SECONDS
from discovery.sources.decode_worker import Piece, frame, unpack

_BATCH_DOCUMENTS = 20
_BATCH_BYTES = 64 * 1024
_DECODER = msgspec.msgpack.Decoder(Piece)
_ROOT = str(Path(__file__).parent.parent.parent)


class ChildFailedError(Exception):
    """The child could not be started, or ended early; the text says which."""


async def decode_in_child(texts: Sequence[str]) -> AsyncGenerator[Decoded, None]:
    """What each text holds, in order. The child is gone when the iteration ends, however it ends.

    Raises ChildFailedError.
    """
    process = await _start()
    writing = asyncio.create_task(_write(process, texts))
    end = time.perf_counter() + SLICE_SECONDS
    try:
        for _ in texts:
            decoded, is_last = Decoded(), False
            while not is_last:
                piece = await _read(process)
                unpack(piece, decoded)
                is_last = piece.is_last
                if time.perf_counter() >= end:  # what is in the buffer already is read without a break
                    await asyncio.sleep(0)
                    end = time.perf_counter() + SLICE_SECONDS
            yield decoded
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


async def _read(process: asyncio.subprocess.Process) -> Piece:
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
