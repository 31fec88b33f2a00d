"""Which blocks does a request's prompt begin with? Chained hashes over its raw bytes (pure).

A model server reuses the KV cache of a prompt's beginning when another prompt begins in the same way, block by block.
What the blocks are in tokens we do not know, and need not: equal bytes are equal tokens. So the prompt's JSON is cut
into blocks as it stands, without a tokenizer and without its chat template, four bytes for a token. The hash of a block
is seeded with that of the block before it, and the first with the model and the cache salt: equal hashes mean that all
before them is equal, too. The next turn of a conversation begins with the bytes of this one, up to its closing bracket.
"""

from __future__ import annotations

import sys

import msgspec
import xxhash

TOKEN_BYTES = 4
MAX_BLOCKS = 2048  # of a prompt that are hashed, half a millisecond

_digest = xxhash.xxh3_64_intdigest


class Prompt(msgspec.Struct):
    """The parts of a JSON body that make up its prompt, as they stand there: views, which keep the body in memory.

    In the order in which model servers put them before the model: what comes first must be equal first.
    """

    tools: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    system: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET  # /v1/messages
    instructions: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET  # /v1/responses
    messages: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET  # /v1/chat/completions, /v1/messages
    input: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET  # /v1/responses
    prompt: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET  # /v1/completions
    cache_salt: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


def first_bytes(prompt: Prompt, *, limit_bytes: int = sys.maxsize) -> bytes:
    """The prompt's first bytes. At most ``limit_bytes`` are taken of each part: copying 50 MiB that nobody hashes would
    hold up the streams."""
    parts = [
        bytes(memoryview(part)[:limit_bytes])
        for part in (prompt.tools, prompt.system, prompt.instructions, prompt.messages, prompt.input, prompt.prompt)
        if part is not msgspec.UNSET
    ]
    return parts[0] if len(parts) == 1 else b"\n".join(parts)


def salt_of(prompt: Prompt) -> bytes:
    """Its cache salt; b"" when it has none."""
    return b"" if prompt.cache_salt is msgspec.UNSET else bytes(prompt.cache_salt)


def seed_of(model: str | None, salt: bytes) -> int:
    """Where the chain starts: what is cached for one model or salt is of no use to another."""
    return _digest((model or "").encode() + b"\n" + salt)


def block_hashes(prompt: bytes, *, seed: int, block_tokens: int, max_blocks: int = MAX_BLOCKS) -> list[int]:
    """The hash of each whole block, at most ``max_blocks``; what is left at the end is no block."""
    size = block_tokens * TOKEN_BYTES
    end = min(len(prompt) // size, max_blocks) * size
    hashes = []
    link = seed
    for start in range(0, end, size):
        link = _digest(prompt[start : start + size], link)
        hashes.append(link)
    return hashes
