"""The child process that decodes documents: texts on stdin, what they hold on stdout. (`python -m` this module.)

Frames are a length of four bytes and MessagePack: lists of texts in, pieces of what they hold out, in the same order.
It ends with its input, so nothing is left behind when the gateway is killed.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from functools import cache
from typing import BinaryIO

import msgspec

from discovery.resources.collection import MODELS, Origin
from discovery.resources.decode import decode_document
from discovery.resources.decoded import Decoded
from discovery.resources.meta import Resource
from discovery.resources.problem import Problem

PIECE_OBJECTS = 20  # so that taking over one is a millisecond
NICENESS = 5  # serving comes first

_NAMES = {model.__name__: model for model in MODELS}
_ENCODER = msgspec.msgpack.Encoder()


class Piece(msgspec.Struct, array_like=True):
    """A part of a Decoded in transit; objects as (name of the model, line, MessagePack)."""

    objects: list[tuple[str, int, msgspec.Raw]]
    problems: list[Problem]
    skipped: list[Problem]
    is_last: bool


def pack(decoded: Decoded) -> Iterator[Piece]:
    """What a document holds, ready for the pipe; a `kind: List` of thousands in many pieces."""
    size = PIECE_OBJECTS
    for start in range(0, max(len(decoded.objects), len(decoded.problems), len(decoded.skipped), 1), size):
        end = start + size
        yield Piece(
            objects=[
                (type(resource).__name__, origin.line, msgspec.Raw(_ENCODER.encode(resource)))
                for resource, origin in decoded.objects[start:end]
            ],
            problems=decoded.problems[start:end],
            skipped=decoded.skipped[start:end],
            is_last=all(end >= len(part) for part in (decoded.objects, decoded.problems, decoded.skipped)),
        )


def unpack(piece: Piece, decoded: Decoded) -> None:
    """Add what is in a piece. Raises msgspec.DecodeError."""
    objects = ((_decoder(name).decode(data), Origin(file="", line=line)) for name, line, data in piece.objects)
    decoded.objects.extend(objects)
    decoded.problems.extend(piece.problems)
    decoded.skipped.extend(piece.skipped)


@cache
def _decoder(name: str) -> msgspec.msgpack.Decoder[Resource]:
    return msgspec.msgpack.Decoder(_NAMES[name])


def frame(data: bytes) -> bytes:
    """With its length before it."""
    return len(data).to_bytes(4, "big") + data


def _read_frames(stream: BinaryIO) -> Iterator[bytes]:
    while len(head := stream.read(4)) == 4:
        yield stream.read(int.from_bytes(head, "big"))


def main() -> None:
    """Decode until the input ends."""
    os.nice(NICENESS)
    texts = msgspec.msgpack.Decoder(list[str])
    for data in _read_frames(sys.stdin.buffer):
        for text in texts.decode(data):
            for piece in pack(decode_document(text)):
                sys.stdout.buffer.write(frame(_ENCODER.encode(piece)))
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
