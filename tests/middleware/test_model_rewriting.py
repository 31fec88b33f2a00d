"""What goes to a backend in place of what the client asked for? Drawn once, always from the client's own bytes."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from discovery.filters import BodyMutation, Filters, HeaderMutation, ModelRewrites, ModelTarget, ModelTargets
from middleware.errors import InvalidBodyError, OverloadedError
from middleware.exchange import Exchange
from middleware.headers import upstream_headers
from middleware.inference_request import read_body, replace_multipart_model
from middleware.model_extraction import BodyLease, BodyMemory
from middleware.model_rewriting import Outgoing, draw_target, mirrored, outgoing, target_model
from tests.support.exchanges import make_exchange, make_pick, make_ref

JSON = [(b"content-type", b"application/json")]


def make_targets(**weights: int) -> ModelTargets:
    targets = tuple(ModelTarget(name=name, weight=weight) for name, weight in weights.items())
    return ModelTargets(targets=targets, total_weight=sum(weights.values()), source="test")


def asking(body: bytes = b'{"model":"food","n":1.0}', *, draw: float = 0.0, **fields: Any) -> Exchange:
    return make_exchange(
        headers=[(b"host", b"h"), *JSON],
        model="food",
        body=body,
        body_size=len(body),
        is_json_object=True,
        model_draw=draw,
        **fields,
    )


def ref_with(rewrites: ModelRewrites | None, *, body: BodyMutation | None = None, name: str = "default/p") -> Any:
    return replace(make_ref(name, filters=Filters(body=body)), model_rewrites=rewrites)


# -- the draw -------------------------------------------------------------------------------------------------------

weights = st.lists(st.integers(0, 1_000_000), min_size=1, max_size=10).filter(lambda found: sum(found) > 0)


@given(weights=weights, draw=st.floats(0, 1, exclude_max=True))
def test_a_weight_of_zero_is_never_drawn(weights: list[int], draw: float) -> None:
    targets = make_targets(**{f"m{index}": weight for index, weight in enumerate(weights)})
    assert weights[int(draw_target(targets, draw)[1:])] > 0


@given(weights=weights)
def test_each_target_gets_exactly_its_share_of_the_unit_interval(weights: list[int]) -> None:
    targets = make_targets(**{f"m{index}": weight for index, weight in enumerate(weights)})
    total, start = sum(weights), 0
    for index, weight in enumerate(weights):
        if weight:
            assert draw_target(targets, (start + weight / 2) / total) == f"m{index}"
        start += weight


def test_the_draw_belongs_to_the_request_and_not_to_the_attempt() -> None:
    rewrites = ModelRewrites(by_model={"food": make_targets(a=1, b=1)})
    exchange = asking(draw=0.7)
    assert {outgoing(exchange, ref_with(rewrites, name=f"default/{n}")).model for n in range(20)} == {"b"}
    assert target_model(exchange, rewrites) == "b"
    assert target_model(exchange, None) == "food"


def test_without_a_model_there_is_nothing_to_rewrite() -> None:
    exchange = make_exchange(headers=JSON, body=b'{"n":1}', is_json_object=True)
    sent = outgoing(exchange, ref_with(ModelRewrites(generic=make_targets(a=1))))
    assert sent == Outgoing(b'{"n":1}', None)


# -- what is sent ---------------------------------------------------------------------------------------------------


def headers_of(exchange: Exchange, ref: Any) -> dict[bytes, bytes]:
    return dict(upstream_headers(exchange, make_pick(ref=ref), outgoing(exchange, ref)))


def test_another_name_changes_the_body_and_what_the_headers_say_of_it() -> None:
    ref = ref_with(ModelRewrites(by_model={"food": make_targets(**{"food-review-v2": 1})}))
    exchange = asking()
    exchange.headers += [(b"accept-encoding", b"gzip"), (b"content-md5", b"x"), (b"digest", b"x")]
    body = b'{"model":"food-review-v2","n":1.0}'
    assert outgoing(exchange, ref) == Outgoing(body, "food-review-v2", True, True)
    headers = headers_of(exchange, ref)
    assert headers[b"content-length"] == b"%d" % len(body)
    assert headers[b"x-gateway-model-name"] == b"food-review-v2"
    assert headers[b"accept-encoding"] == b"identity"
    assert not {b"content-md5", b"digest"} & headers.keys()


def test_no_filter_can_ask_for_an_encoded_answer_whose_names_must_change() -> None:
    ref = ref_with(ModelRewrites(generic=make_targets(a=1)))
    ref = replace(ref, filters=Filters(request_headers=HeaderMutation(set=((b"accept-encoding", b"br"),))))
    assert headers_of(asking(), ref)[b"accept-encoding"] == b"identity"


def test_the_clients_own_name_changes_nothing() -> None:
    exchange = asking()
    exchange.headers.append((b"accept-encoding", b"gzip"))
    ref = ref_with(ModelRewrites(generic=make_targets(food=1)))
    assert outgoing(exchange, ref).body is exchange.body
    assert headers_of(exchange, ref)[b"accept-encoding"] == b"gzip"
    assert outgoing(exchange, ref) == Outgoing(exchange.body or b"", "food", True, False)


def test_every_backend_gets_its_own_change_of_the_clients_bytes() -> None:
    exchange = asking()
    one = ref_with(ModelRewrites(generic=make_targets(a=1)), body=BodyMutation(set=(("x", b"1"),), remove=("n",)))
    other = ref_with(ModelRewrites(generic=make_targets(bb=1)))
    plain = ref_with(None)
    for _ in range(2):
        assert outgoing(exchange, one).body == b'{"model":"a","x":1}'
        assert outgoing(exchange, other).body == b'{"model":"bb","n":1.0}'
        assert outgoing(exchange, plain).body is exchange.body
        assert mirrored(exchange, other).body == b'{"model":"bb","n":1.0}'


def test_what_was_made_is_kept_for_the_next_attempt() -> None:
    exchange = asking()
    ref = ref_with(ModelRewrites(generic=make_targets(a=1)))
    assert outgoing(exchange, ref) is outgoing(exchange, ref)
    exchange.let_go_of_body()
    assert exchange.outgoing is None


def test_a_body_mutation_that_sets_the_model_counts_more_than_the_name() -> None:
    ref = ref_with(ModelRewrites(generic=make_targets(b=1)), body=BodyMutation(set=(("model", b'"b"'),)))
    assert outgoing(asking(), ref) == Outgoing(b'{"model":"b","n":1.0}', "b", True, True)


def test_the_copy_is_memory_too() -> None:
    memory = BodyMemory(limit_bytes=60)
    exchange = asking(body_lease=BodyLease(memory))
    assert exchange.body_lease is not None
    exchange.body_lease.grow(exchange.body_size)
    short = ref_with(ModelRewrites(generic=make_targets(a=1)))
    for _ in range(3):
        outgoing(exchange, short)
        exchange.outgoing = None
    assert memory.used_bytes == exchange.body_size + len(b'{"model":"a","n":1.0}')
    with pytest.raises(OverloadedError):
        outgoing(exchange, ref_with(ModelRewrites(generic=make_targets(**{"a" * 100: 1}))))
    exchange.let_go_of_body()
    assert memory.used_bytes == 0


def test_a_body_that_cannot_be_changed_is_refused() -> None:
    body = b'{"x":' + b"[" * 100 + b"]" * 100 + b',"model":"food","model":"food"}'
    with pytest.raises(InvalidBodyError):
        outgoing(asking(body), ref_with(ModelRewrites(generic=make_targets(a=1))))


# -- forms ----------------------------------------------------------------------------------------------------------

FORM = b"multipart/form-data; boundary=xyz"


def part(name: str, value: bytes, extra: str = "") -> bytes:
    return f'--xyz\r\nContent-Disposition: form-data; name="{name}"{extra}\r\n\r\n'.encode() + value + b"\r\n"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param([], [], id="alone"),
        pytest.param([part("file", b"RIFF\r\n\r\nmodel\r\n", '; filename="a"')], [part("n", b"1")], id="between"),
        pytest.param(
            [part("x", b'\r\n--xyzz\r\nContent-Disposition: form-data; name="model"\r\n\r\nno')], [], id="fake"
        ),
    ],
)
def test_of_a_form_the_model_part_alone_changes(before: list[bytes], after: list[bytes]) -> None:
    body = b"".join([*before, part("model", b"food"), *after, b"--xyz--\r\n"])
    expected = b"".join([*before, part("model", "new/näme".encode()), *after, b"--xyz--\r\n"])
    assert read_body(body, FORM) == ("food", False, None)
    assert replace_multipart_model(body, FORM, "new/näme") == expected


def test_of_a_form_every_model_part_changes() -> None:
    body = part("model", b"cheap") + part("x", b"1") + part("model", b"food") + b"--xyz--"
    assert replace_multipart_model(body, FORM, "a") == (
        part("model", b"a") + part("x", b"1") + part("model", b"a") + b"--xyz--"
    )


def test_a_body_mutation_leaves_forms_alone() -> None:
    body = part("model", b"food") + b"--xyz--"
    exchange = make_exchange(headers=[(b"content-type", FORM)], model="food", body=body)
    ref = ref_with(ModelRewrites(generic=make_targets(a=1)), body=BodyMutation(set=(("x", b"1"),)))
    assert outgoing(exchange, ref).body == part("model", b"a") + b"--xyz--"


@given(
    contents=st.lists(st.tuples(st.sampled_from(["model", "file", "n"]), st.binary(max_size=30)), max_size=5),
    position=st.integers(0, 5),
)
def test_any_form_is_read_as_before_but_for_the_model(contents: list[tuple[str, bytes]], position: int) -> None:
    contents = [(name, value) for name, value in contents if b"xyz" not in value and name != "model"]
    contents.insert(min(position, len(contents)), ("model", b"food"))
    body = b"".join(part(name, value) for name, value in contents) + b"--xyz--\r\n"
    expected = b"".join(part(n, b"a" if n == "model" else v) for n, v in contents) + b"--xyz--\r\n"
    assert replace_multipart_model(body, FORM, "a") == expected


def test_names_are_written_as_json() -> None:
    sent = outgoing(asking(), ref_with(ModelRewrites(generic=make_targets(**{'a"\\ö': 1}))))
    assert json.loads(sent.body)["model"] == 'a"\\ö'
