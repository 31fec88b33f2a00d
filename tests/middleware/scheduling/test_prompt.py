"""Which blocks does a prompt have?"""

from __future__ import annotations

import orjson
import pytest

from middleware.inference_request import read_body
from middleware.scheduling.prompt import MAX_BLOCKS, Prompt, block_hashes, first_bytes, salt_of, seed_of


def prompt_of(body: bytes) -> Prompt:
    prompt = read_body(body, b"application/json").prompt
    assert prompt is not None
    return prompt


def hashes(body: object, *, model: str = "m", block_tokens: int = 4) -> list[int]:
    prompt = prompt_of(orjson.dumps(body))
    return block_hashes(first_bytes(prompt), seed=seed_of(model, salt_of(prompt)), block_tokens=block_tokens)


def common(one: list[int], other: list[int]) -> int:
    count = 0
    for a, b in zip(one, other, strict=False):
        if a != b:
            break
        count += 1
    return count


def test_a_block_of_one_token_is_four_bytes() -> None:
    assert len(block_hashes(b"aaaabbbb", seed=0, block_tokens=1)) == 2
    assert len(block_hashes(b"aaaabbb", seed=0, block_tokens=1)) == 1
    assert block_hashes(b"aaa", seed=0, block_tokens=1) == []


def test_a_hash_stands_for_everything_before_it() -> None:
    one = block_hashes(b"aaaabbbbcccc", seed=0, block_tokens=1)
    other = block_hashes(b"aaaaxxxxcccc", seed=0, block_tokens=1)
    assert [a == b for a, b in zip(one, other, strict=True)] == [True, False, False]
    assert len(set(block_hashes(b"aaaaaaaaaaaa", seed=0, block_tokens=1))) == 3


def test_the_next_turn_of_a_conversation_begins_with_the_last() -> None:
    turns = [{"role": "user", "content": f"turn {number} of our long conversation"} for number in range(5)]
    first = hashes({"model": "m", "messages": turns[:3]})
    second = hashes({"messages": turns, "model": "m", "stream": True})
    assert common(first, second) == len(first) or common(first, second) == len(first) - 1  # up to the closing bracket
    assert len(second) > len(first)


@pytest.mark.parametrize(
    "field",
    ["messages", "prompt", "input", "system", "instructions", "tools"],
)
def test_every_interface_has_its_prompt(field: str) -> None:
    assert len(hashes({field: "x" * 100})) == 6


def test_what_comes_first_at_the_model_comes_first_here() -> None:
    shared = {"tools": ["t" * 60], "system": "s" * 60}
    one = hashes({"messages": ["a" * 60], **shared})
    other = hashes({**shared, "messages": ["b" * 60]})
    assert common(one, other) == 8


def test_a_body_without_a_prompt_has_no_blocks() -> None:
    assert hashes({"model": "m"}) == []


@pytest.mark.parametrize("body", [b"", b"[]", b"[" * 100, b"--b\r\nmultipart"], ids=repr)
def test_only_a_json_object_has_a_prompt(body: bytes) -> None:
    assert read_body(body, None).prompt is None


def test_model_and_salt_keep_prompts_apart() -> None:
    prompt = {"prompt": "x" * 100}
    chains = [
        hashes(prompt),
        hashes(prompt, model="n"),
        hashes({**prompt, "cache_salt": "a"}),
        hashes({**prompt, "cache_salt": "b"}),
    ]
    assert len({chain[0] for chain in chains}) == 4


def test_no_more_than_the_limit_is_hashed() -> None:
    assert first_bytes(prompt_of(b'{"prompt": "abcdefgh"}'), limit_bytes=4) == b'"abc'
    assert len(block_hashes(b"x" * 1_000_000, seed=0, block_tokens=16)) == MAX_BLOCKS == 2048
    assert len(block_hashes(b"x" * 1_000_000, seed=0, block_tokens=16, max_blocks=7)) == 7
