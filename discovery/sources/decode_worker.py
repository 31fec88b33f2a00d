"""The child process that decodes documents: texts on stdin, what they hold on stdout. (`python -m` this module.)

Frames are a length of four bytes and MessagePack: a list of texts in, a list of packed documents out for each of them.
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
from discovery.resources.decode import Decoded, decode_document
from discovery.resources.meta import Resource
from discovery.resources.problem import Problem

NICENESS = 5  # serving comes first

_NAMES = {model.__name__: model for model in MODELS}
_ENCODER = msgspec.msgpack.Encoder()


class PackedDocument(msgspec.Struct, array_like=True):
    """A Decoded in transit; objects as (name of the model, line, MessagePack)."""

    objects: list[tuple[str, int, msgspec.Raw]]
    problems: list[Problem]
    skipped: list[Problem]


def pack(decoded: Decoded) -> PackedDocument:
    """What a document holds, ready for the pipe."""
    return PackedDocument(
        objects=[
            (type(resource).__name__, origin.line, msgspec.Raw(_ENCODER.encode(resource)))
            for resource, origin in decoded.objects
        ],
        problems=decoded.problems,
        skipped=decoded.skipped,
    )


def unpack(packed: PackedDocument) -> Decoded:
    """What ``pack`` was given. Raises msgspec.DecodeError."""
    return Decoded(
        objects=[(_decoder(name).decode(data), Origin(file="", line=line)) for name, line, data in packed.objects],
        problems=packed.problems,
        skipped=packed.skipped,
    )


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
        packed = [pack(decode_document(text)) for text in texts.decode(data)]
        sys.stdout.buffer.write(frame(_ENCODER.encode(packed)))
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
