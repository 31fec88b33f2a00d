"""`--model NAME=URL[,URL...]`: a route and a Backend, or a clear word about what is wrong."""

from __future__ import annotations

import pytest

from discovery.load import load
from tests.discovery.loading import ask


def served_by(*models: str, asked: str) -> list[tuple[int, list[str]]]:
    loaded = load([], models=models)
    assert loaded.problems == ()
    compiled = loaded.compile()
    rule = ask(compiled.routing, model=asked)
    assert rule is not None
    return [
        (ref.weight, [e.id for e in compiled.membership[ref.backend.id]]) for ref in rule.backend_refs if ref.backend
    ]


@pytest.mark.parametrize(
    ("option", "model", "expected"),
    [
        pytest.param("qwen=http://127.0.0.1:8000", "qwen", [(1, ["127.0.0.1:8000"])], id="one"),
        pytest.param("qwen=http://127.0.0.1:8000/", "qwen", [(1, ["127.0.0.1:8000"])], id="a-slash-is-no-path"),
        pytest.param(
            "qwen=http://10.0.0.1:8000,http://10.0.0.2", "qwen", [(2, ["10.0.0.1:8000", "10.0.0.2:80"])], id="two"
        ),
        pytest.param("a=http://Host.example:81", "a", [(1, ["host.example:81"])], id="name"),
        pytest.param("a=http://[::1]:81", "a", [(1, ["[::1]:81"])], id="ipv6"),
        pytest.param(
            "a=http://localhost:1,http://10.0.0.1:2,http://b:3",
            "a",
            [(1, ["10.0.0.1:2"]), (2, ["localhost:1", "b:3"])],
            id="names-and-addresses-keep-their-shares",
        ),
        pytest.param("Qwen/Qwen2.5-7B_x=http://a", "Qwen/Qwen2.5-7B_x", [(1, ["a:80"])], id="any-name"),
    ],
)
def test_a_model_is_served_by_its_urls(option: str, model: str, expected: list[tuple[int, list[str]]]) -> None:
    assert served_by(option, asked=model) == expected


def test_models_whose_names_look_alike_stay_apart() -> None:
    options = ("a/b=http://one", "a-b=http://two", "a.b=http://three", "//=http://four", "..=http://five")
    for model, host in (("a/b", "one"), ("a-b", "two"), ("a.b", "three"), ("//", "four"), ("..", "five")):
        assert served_by(*options, asked=model) == [(1, [f"{host}:80"])]


@pytest.mark.parametrize(
    ("option", "message"),
    [
        pytest.param("qwen", "--model qwen: must have the form NAME=URL", id="no-url"),
        pytest.param("=http://a", "--model : must have the form NAME=URL", id="no-name"),
        pytest.param("a=", "--model a: must have the form NAME=URL", id="empty"),
        pytest.param("a=https://b", "--model a: URL 1: https is not supported yet, use http", id="https"),
        pytest.param("a=http://b,ftp://c", "--model a: URL 2 must be like http://127.0.0.1:8000", id="scheme"),
        pytest.param("a=127.0.0.1:8000", "--model a: URL 1 must be like http://127.0.0.1:8000", id="no-scheme"),
        pytest.param("a=http://", "--model a: URL 1 must be like http://127.0.0.1:8000", id="no-host"),
        pytest.param("a=http://b/v1", "--model a: URL 1 must not have a path", id="path"),
        pytest.param("a=http://b?x", "--model a: URL 1 must not have a path", id="query"),
        pytest.param("a=http://u:secret@b", "--model a: URL 1 must not have a user or a password", id="credentials"),
        pytest.param("a=http://b:0", "--model a: URL 1: port 0 cannot be connected to", id="port-0"),
        pytest.param("a=http://b:99999", "--model a: URL 1 is not a URL", id="port"),
        pytest.param("a=http://[b", "--model a: URL 1 is not a URL", id="bracket"),
        pytest.param("a=http://b_c", "--model a:1: Backend/model-a: spec.endpoints[0].fqdn.hostname:", id="hostname"),
    ],
)
def test_what_is_wrong_is_said_without_repeating_the_url(option: str, message: str) -> None:
    loaded = load([], models=[option, "good=http://b"])
    (problem,) = loaded.problems
    assert loaded.is_refused
    assert str(problem).startswith(message)
    assert "secret" not in str(problem)
    assert ask(loaded.compile().routing, model="good") is not None


def test_a_model_given_twice_is_an_error_not_a_silent_loser() -> None:
    (problem,) = load([], models=["a=http://b", "a=http://c"]).problems
    assert "is given twice" in str(problem)
