"""Does a session's token say what it should, whatever a client makes of it?"""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from discovery.backend import Backend
from discovery.rule_policy import SessionPersistence
from discovery.snapshot import BackendRef
from middleware.cookies import read_cookie
from middleware.sessions import MAX_ENTRIES, Session, arm_key_of, read_session
from tests.support.exchanges import make_exchange, make_ref, make_rule

STABLE, CANARY = make_ref("default/stable"), make_ref("default/canary")
HEADER = SessionPersistence(kind="Header", name=b"x-arm")
COOKIE = SessionPersistence(kind="Cookie", name=b"arm")


def read(
    value: bytes,
    *,
    route: str = "default/llm",
    name: str = "0",
    settings: SessionPersistence = HEADER,
    now: float = 1000.0,
) -> Session:
    rule = replace(make_rule(STABLE, CANARY, session=settings), route=route, name=name)
    headers = [(b"cookie", b"a=b; arm=" + value)] if settings.kind == "Cookie" else [(b"x-arm", value)]
    session = read_session(rule, make_exchange(headers=headers), headers, clock=lambda: now)
    assert session is not None
    return session


def token(session: Session, arm: str = "default/canary") -> bytes:
    ((_, value),) = session.answer_headers(make_ref(arm))
    return value


def test_a_token_brings_its_arm_to_the_front() -> None:
    session = read(token(read(b"")))
    assert session.preferred((STABLE, CANARY)) == (CANARY, STABLE)
    assert session.preferred((STABLE,)) == (STABLE,)  # not drawn: it has no weight
    assert session.draw() is None


def test_two_rules_that_share_a_name_keep_their_own_arms() -> None:
    first = token(read(b"", route="default/a"), "default/canary")
    second = token(read(first, route="default/b"), "default/stable")
    assert read(second, route="default/a").preferred((STABLE, CANARY))[0] is CANARY
    assert read(second, route="default/b").preferred((CANARY, STABLE))[0] is STABLE


def test_a_token_grows_no_further_than_its_bound() -> None:
    value = b""
    for number in range(3 * MAX_ENTRIES):
        value = token(read(value, route=f"default/r{number}"))
    assert value.count(b"-") == MAX_ENTRIES


def test_the_absolute_timeout_counts_from_the_first_answer() -> None:
    settings = replace(HEADER, absolute_timeout_seconds=60.0)
    first = token(read(b"", settings=settings, now=1000))
    kept = token(read(first, settings=settings, now=1059))
    assert kept == first
    assert read(kept, settings=settings, now=1061).arm_key is None


def test_a_cookie_is_set_only_when_it_says_something_new() -> None:
    ((name, cookie),) = read(b"", settings=COOKIE).answer_headers(CANARY)
    assert name == b"set-cookie"
    value = cookie.split(b"; ")[0].removeprefix(b"arm=")
    assert read(value, settings=COOKIE).answer_headers(CANARY) == []
    assert read(value, settings=COOKIE).answer_headers(STABLE) == []  # its arm failed, and another answered this once
    gone = read(value, settings=COOKIE)
    assert gone.preferred((STABLE,)) == (STABLE,)
    assert gone.answer_headers(STABLE) != []  # its arm has no weight any more
    assert read(b"user-7", settings=COOKIE).answer_headers(CANARY) == []  # the application's own cookie


@given(value=st.binary(min_size=1, max_size=200))
def test_no_value_of_a_client_breaks_anything(value: bytes) -> None:
    session = read(value)
    assert session.preferred((STABLE, CANARY))
    draw = session.draw()
    assert draw is None or 0 <= draw < 1
    for _, answered in session.answer_headers(CANARY):
        assert answered.startswith(b"p1-")
        assert answered.isascii()


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        pytest.param(b"arm=1", b"1", id="alone"),
        pytest.param(b"a=b; arm=1; c=d", b"1", id="among-others"),
        pytest.param(b'arm="1"', b"1", id="quoted"),
        pytest.param(b"a=b,arm=1", b"1", id="of-two-fields"),
        pytest.param(b"alarm=1; xarm=2", None, id="longer-names"),
        pytest.param(b"arm", None, id="no-value"),
        pytest.param(b"", None, id="nothing"),
    ],
)
def test_a_cookie_is_read_by_its_name(header: bytes, expected: bytes | None) -> None:
    assert read_cookie(header, b"arm") == expected


def test_backend_refs_of_one_backend_are_arms_of_their_own() -> None:
    backend = Backend(id="Service/default/llm:80", kind="Service", namespace="default", name="llm")
    first, second = (BackendRef(name="default/llm", weight=1, backend=backend, twin=twin) for twin in (0, 1))
    other = BackendRef(name="default/llm", weight=1, backend=replace(backend, id="InferencePool/default/llm"))
    assert len({arm_key_of(arm) for arm in (first, second, other)}) == 3


def test_a_named_rule_knows_its_clients_wherever_it_stands() -> None:
    headers = [(b"x-arm", token(read(b"", name="chat")))]
    for number in (0, 3):
        rule_id = f"HTTPRoute/default/llm/{number}"
        rule = replace(make_rule(STABLE, CANARY, session=HEADER), id=rule_id, name="chat")
        session = read_session(rule, make_exchange(headers=headers), headers, clock=lambda: 1000.0)
        assert session is not None
        assert session.preferred((STABLE, CANARY))[0] is CANARY
