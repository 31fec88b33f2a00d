"""How does a client stay on its arm? A token that names the arm travels in a cookie or a header (GEP-1619).

Sticky canaries need it: whoever was drawn to the new model keeps talking to it, while the weights decide for whoever
is new. The token holds no secret and nothing of the client: for each rule the client met, which arm and since when. It
needs no memory here, and every replica of the gateway reads the others' tokens.

A client that brings a value of its own in the header or cookie, such as a user's id, is kept by it as well: the arm is
drawn from the value. An arm whose weight became 0, or that is gone, takes nobody any more: the client is drawn anew.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from discovery.rule_policy import SessionPersistence
from discovery.snapshot import BackendRef, Rule
from middleware.cookies import read_cookie
from middleware.exchange import Exchange

MAX_ENTRIES = 16  # rules that one token remembers; the oldest leaves
_ENTRY = re.compile(rb"([0-9a-f]{8})\.([0-9a-f]{8})\.([0-9a-f]{1,12})")
_TOKEN = re.compile(rb"p1(?:-[0-9a-f]{8}\.[0-9a-f]{8}\.[0-9a-f]{1,12}){1,%d}" % MAX_ENTRIES)


@dataclass(slots=True, kw_only=True)
class Session:
    """What one request's token says, and what the answer's will say."""

    settings: SessionPersistence
    rule_key: bytes
    others: tuple[tuple[bytes, bytes, bytes], ...]  # entries of other rules: rule, arm, since
    arm_key: bytes | None  # the arm this client is on, if it is on one
    now: int  # unix seconds
    since: int  # unix seconds: of the entry, or now
    own_value: bytes | None = None  # the client's own value, which is no token of ours

    def preferred(self, arms: tuple[BackendRef, ...]) -> tuple[BackendRef, ...]:
        """The arms with the client's own first. It has to be among those that were drawn, as none of weight 0 is: else
        the client is on no arm any more."""
        if self.arm_key is None:
            return arms
        for number, arm in enumerate(arms):
            if arm_key_of(arm) == self.arm_key:
                return (arm, *arms[:number], *arms[number + 1 :]) if number else arms
        self.arm_key = None
        return arms

    def draw(self) -> float | None:
        """The number that a client's own value stands for, uniform in [0, 1); None where there is no such value."""
        if self.own_value is None:
            return None
        digest = hashlib.blake2b(self.rule_key + self.own_value, digest_size=8).digest()
        return (int.from_bytes(digest) >> 11) * 2.0**-53

    def answer_headers(self, arm: BackendRef) -> list[tuple[bytes, bytes]]:
        """What the answer says, when it says anything new: a cookie once, a header each time.

        Who is on an arm stays on it though another has answered this time: a moment's failure of one arm must not move
        its clients to the others for good, which the weights do not want.
        """
        settings, is_kept = self.settings, self.arm_key is not None
        key, since = (self.arm_key, self.since) if self.arm_key is not None else (arm_key_of(arm), self.now)
        entry = (self.rule_key, key, b"%x" % since)
        entries = (*self.others[-(MAX_ENTRIES - 1) :], entry)
        token = b"p1" + b"".join(b"-" + b".".join(parts) for parts in entries)
        if settings.kind == "Header":
            return [(settings.name, token)]
        if is_kept or self.own_value is not None:
            return []
        age = b""
        if settings.is_permanent and settings.absolute_timeout_seconds is not None:
            age = b"; Max-Age=%d" % settings.absolute_timeout_seconds
        return [(b"set-cookie", settings.name + b"=" + token + b"; Path=" + settings.path + age + b"; HttpOnly")]


@lru_cache(maxsize=4096)
def key_of(name: str) -> bytes:
    """Eight hexadecimal digits that stand for a rule or an arm in tokens; the same in every process."""
    return hashlib.blake2b(name.encode(), digest_size=4).hexdigest().encode()


def arm_key_of(arm: BackendRef) -> bytes:
    """What stands for an arm: its backend and not its name alone, which a Service's two ports share, and so may a pool
    and a Backend; and which of the rule's backendRefs it is, where several have the same backend."""
    name = arm.name if arm.backend is None else arm.backend.id
    return key_of(f"{name}#{arm.twin}" if arm.twin else name)


def read_session(
    rule: Rule, exchange: Exchange, raw_headers: list[tuple[bytes, bytes]], *, clock: Callable[[], float] = time.time
) -> Session | None:
    """The session of a request; None where the rule keeps none.

    ``raw_headers`` are the client's own: the session's header can be one that is not forwarded.
    """
    settings = rule.session
    if settings is None:
        return None
    if settings.kind == "Cookie":
        value = read_cookie(exchange.by_name.get(b"cookie", b""), settings.name)
    else:
        value = next((value for name, value in raw_headers if name == settings.name), None)
    now = int(clock())
    # By its name, where it has one: clients keep their arms when the rule gets another place, and on every listener.
    rule_key = key_of(f"{rule.route_kind}/{rule.route}/{rule.name}")
    session = Session(settings=settings, rule_key=rule_key, others=(), arm_key=None, now=now, since=now)
    if not value:
        return session
    if not _TOKEN.fullmatch(value):
        session.own_value = value
        return session
    entries = _ENTRY.findall(value)
    session.others = tuple(entry for entry in entries if entry[0] != rule_key)
    for entry_rule, arm, since in entries:
        timeout = settings.absolute_timeout_seconds
        if entry_rule == rule_key and (timeout is None or now - int(since, 16) < timeout):
            session.arm_key, session.since = arm, int(since, 16)
    return session
