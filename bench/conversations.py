"""What do clients ask? Conversations of several turns, many of which share a system prompt."""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import orjson

SYSTEM_PROMPTS = 8
SYSTEM_TOKENS = 800
QUESTION_TOKENS = (60, 600)  # of one turn, from .. to
ANSWER_TOKENS = 24
TURNS = (2, 8)
TOKEN_BYTES = 4

_WORDS = ("points", "signal", "train", "track", "lever", "carriage", "station", "board", "engine", "rail")


def text(draw: random.Random, tokens: int) -> str:
    """Words that nobody else says."""
    words = []
    size = 0
    while size < tokens * TOKEN_BYTES:
        words.append(f"{draw.choice(_WORDS)}{draw.randrange(10_000)}")
        size += len(words[-1]) + 1
    return " ".join(words)


@dataclass
class Conversation:
    """One client's talk."""

    messages: list[dict[str, Any]]
    turns_left: int


@dataclass
class Workload:
    """Makes the requests of one run. ``name`` is in all that they say: nothing is cached from the run before."""

    seed: int
    name: str = ""
    waiting: deque[Conversation] = field(default_factory=deque)  # for their next turn

    def __post_init__(self) -> None:
        self.draw = random.Random(self.seed)
        self.systems = [f"run {self.name}, rules {n}: {text(self.draw, SYSTEM_TOKENS)}" for n in range(SYSTEM_PROMPTS)]

    def next(self) -> Conversation:
        """The conversation whose turn is asked next: now and then a new one, else the one that waits longest."""
        draw = self.draw
        mean_turns = sum(TURNS) / 2
        if self.waiting and draw.random() > 1 / mean_turns:
            conversation = self.waiting.popleft()
        else:
            # Some rules are asked for much more often than others.
            system = self.systems[min(int(draw.expovariate(0.5)), SYSTEM_PROMPTS - 1)]
            conversation = Conversation([{"role": "system", "content": system}], draw.randint(*TURNS))
        conversation.messages.append({"role": "user", "content": text(draw, draw.randint(*QUESTION_TOKENS))})
        return conversation

    def answered(self, conversation: Conversation) -> None:
        """Its turn is over."""
        conversation.messages.append({"role": "assistant", "content": text(self.draw, ANSWER_TOKENS)})
        conversation.turns_left -= 1
        if conversation.turns_left:
            self.waiting.append(conversation)


def body_of(conversation: Conversation, model: str) -> bytes:
    """The request."""
    return orjson.dumps(
        {"model": model, "messages": conversation.messages, "max_tokens": ANSWER_TOKENS, "stream": True}
    )


def prompt_of(conversation: Conversation) -> bytes:
    """The bytes that a simulated pod takes for the prompt."""
    return orjson.dumps(conversation.messages)
