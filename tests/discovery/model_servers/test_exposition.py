"""What becomes of metrics that are odd, broken, or lies?"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from discovery.model_servers.engines import PARSERS, read_metrics
from discovery.model_servers.exposition import MAX_SAMPLES, Page, Places, read_labels, whole_number
from discovery.model_servers.server_load import KvCache, UnusableMetricsError
from discovery.model_servers.vllm import read_vllm


@pytest.mark.parametrize(
    ("text", "found"),
    [
        pytest.param(b"a 1\n", [(b"", b"1")], id="plain"),
        pytest.param(b"a 1", [(b"", b"1")], id="no-last-newline"),
        pytest.param(b'a{x="1"} 2 17000\n', [(b'x="1"', b"2 17000")], id="timestamp"),
        pytest.param(b"ab 1\nabc 2\na 3\n", [(b"", b"3")], id="longer-names-before"),
        pytest.param(b"# HELP a 1\n# TYPE a gauge\na\t3\n", [(b"", b"3")], id="comments"),
        pytest.param(b'a{x="}"} 1\na{x="\\"}{"} 2\nb 3\n', [(b'x="}"', b"1"), (b'x="\\"}{"', b"2")], id="braces"),
        pytest.param(b"b 1\nab 1\n", [], id="absent"),
        pytest.param(b"a", [], id="name-alone"),
        pytest.param(b"x\na ", [(b"", b"")], id="no-value"),
    ],
)
def test_samples(text: bytes, found: list[tuple[bytes, bytes]]) -> None:
    assert [(labels, value.strip()) for labels, value in Page(text).samples(b"a")] == found


def test_a_time_behind_the_number_is_passed_over() -> None:
    assert Page(b'a{x="1"} 2 1700000000000\na{x="2"} 3\r\n').gauge(b"a") == [2.0, 3.0]


def test_a_longer_name_is_another_metric() -> None:
    text = b"""vllm:num_requests_waiting_by_reason{reason="capacity"} 9
vllm:num_requests_waiting{engine="0"} 1
vllm:num_requests_waiting{engine="1"} 2
vllm:num_requests_waiting_by_reason{reason="deferred"} 9
"""
    assert read_vllm(Page(text)).waiting == 3


@pytest.mark.parametrize("value", [b"NaN", b"-1", b"+Inf", b"-Inf", b"many", b"", b"1e400"])
def test_a_value_that_cannot_be_meant_is_no_reading(value: bytes) -> None:
    with pytest.raises(UnusableMetricsError, match="vllm:num_requests_waiting"):
        read_vllm(Page(b"vllm:num_requests_waiting{} " + value + b"\n"))
    with pytest.raises(UnusableMetricsError, match="vllm:kv_cache_usage_perc"):
        read_vllm(Page(b"vllm:kv_cache_usage_perc " + value + b"\n"))
    with pytest.raises(UnusableMetricsError, match="vllm:lora_requests_info"):
        read_vllm(Page(b"vllm:lora_requests_info{} " + value + b"\n"))


def test_values_are_bounded() -> None:
    assert Page(b"a 17\n").share(b"a") == 1.0
    assert Page(b"a 1e300\n").count(b"a") == 1_000_000_000
    assert len(Page(b"a 1\n" * (MAX_SAMPLES + 5)).gauge(b"a")) == MAX_SAMPLES


def test_labels_are_unescaped() -> None:
    assert read_labels(rb'a="1", b_2="x\"y\\z\nw" ,c="",') == {"a": "1", "b_2": 'x"y\\z\nw', "c": ""}
    assert read_labels(b'a="\xff"') == {"a": "\ufffd"}


def test_numbers_in_labels() -> None:
    assert [whole_number(text) for text in ("32", "None", "", None, "-1", "1.5", "9" * 30, "٣")] == [32, *[0] * 7]


def test_ten_megabytes_without_a_line_are_passed_over() -> None:
    assert read_vllm(Page(b"x" * 10_000_000)).waiting == 0
    assert read_vllm(Page(b"vllm:num_requests_waiting{" + b"x" * 10_000_000 + b"} 4\n")).waiting == 4
    assert read_vllm(Page(b"vllm:num_requests_waiting 4\n" + b"\nvllm:num_requests_waitin" * 400_000)).waiting == 4


def _page(*, before: int = 0, waiting: int | None = 1, between: int = 0, after: int = 0) -> bytes:
    line = b"" if waiting is None else b'vllm:num_requests_waiting{engine="0"} %d\n' % waiting
    other = b"vllm:request_success_total 1.0\n"
    return other * before + line + other * between + b"vllm:num_requests_running 5\n" + other * after


@pytest.mark.parametrize(
    ("pages", "waiting"),
    [
        pytest.param([_page(before=9), _page(before=9, waiting=12345)], 12345, id="at-the-same-place"),
        pytest.param([_page(before=9), _page(before=11, waiting=2)], 2, id="a-little-later"),
        pytest.param([_page(before=9), _page(before=7, waiting=2)], 2, id="a-little-earlier"),
        pytest.param([_page(), _page(before=900, waiting=2)], 2, id="far-behind"),
        pytest.param([_page(before=900), _page(waiting=2)], 2, id="far-before"),
        pytest.param([_page(before=3), b"vllm:num_requests_waiting 2"], 2, id="a-shorter-page"),
        pytest.param([_page(before=3), _page(before=3, waiting=None)], 0, id="gone"),
        pytest.param([_page(waiting=None), _page(waiting=2)], 2, id="come"),
        pytest.param(
            [_page(waiting=None), _page(waiting=None, after=1), _page(waiting=2, after=1)], 2, id="come-later"
        ),
        pytest.param([b"", _page(waiting=2)], 2, id="come-where-nothing-was"),
        pytest.param(
            [_page(before=2), b"vllm:num_requests_waiting_by_reason 9\n" + _page(before=1, waiting=2)],
            2,
            id="a-longer-name-at-its-place",
        ),
        pytest.param(
            [_page(before=2), _page(before=2).replace(b"\nvllm:num_requests_w", b"\n# vllm:num_requests_w")],
            0,
            id="a-comment-at-its-place",
        ),
        pytest.param([_page(before=40), _page(before=40)[700:], _page(before=39, waiting=2)], 2, id="cut-and-whole"),
    ],
)
def test_a_layout_that_changes_is_followed(pages: list[bytes], waiting: int) -> None:
    places = Places()
    for text in pages:
        load = read_vllm(Page(text, places))
    assert load == read_vllm(Page(pages[-1]))
    assert load.waiting == waiting


def test_a_page_that_shrinks_hides_no_engine() -> None:
    """A container that starts again at its address: what was remembered points into the middle of the samples."""
    engines = b"".join(b'vllm:num_requests_waiting{engine="%d"} 10\n' % number for number in range(16))
    places = Places()
    for before in (2000, 1200, 600, 0):
        assert read_vllm(Page(b"x" * before + b"\n" + engines, places)).waiting == 160


def test_a_line_that_comes_to_a_long_page_is_read_at_once() -> None:
    page = b"".join(b'other{number="%04d"} 1\n' % number for number in range(3000))
    places = Places()
    assert read_vllm(Page(page, places)).waiting == 0
    assert read_vllm(Page(page + b"vllm:num_requests_waiting 4\n", places)).waiting == 4


def test_what_hides_behind_an_equal_length_is_found_in_the_end() -> None:
    """A line that comes while others shrink by as much: nothing but its absence is remembered, and not for long."""
    places = Places()
    with_line = _page(waiting=7)
    assert read_vllm(Page(b"#" * len(with_line), places)).waiting == 0
    assert 7 in [read_vllm(Page(with_line, places)).waiting for _ in range(40)]


def test_a_line_whose_place_another_took_is_found_in_the_end() -> None:
    """A server that says the same twice, which the format forbids: in the end it is the first that counts."""
    places = Places()
    twice = b"vllm:num_requests_waiting 1\n" + _page(before=100, waiting=2)
    assert read_vllm(Page(_page(before=100, waiting=2), places)).waiting == 2
    assert 1 in [read_vllm(Page(twice, places)).waiting for _ in range(40)]


_NAMES = (b"vllm:num_requests_waiting", b"vllm:num_requests_running", b"vllm:kv_cache_usage_perc")
_LINES = st.builds(
    lambda name, more, value: name + more + b" %d\n" % value,
    st.sampled_from([*_NAMES, b"vllm:lora_requests_info", b"other"]),
    st.sampled_from([b"", b"{}", b'{a="}"}', b"_by_reason"]),
    st.integers(0, 9),
)


@given(st.lists(st.lists(_LINES, max_size=30, unique_by=lambda line: line.split(b"{")[0].split(b" ")[0]), max_size=6))
def test_what_is_remembered_changes_no_gauge_that_is_there(pages: list[list[bytes]]) -> None:
    places = Places()
    for lines in pages:
        text = b"".join(lines)
        remembering, fresh = Page(text, places), Page(text)
        for name in _NAMES:
            if fresh.gauge(name):
                found = remembering.gauge(name)
                assert found in (fresh.gauge(name), [])
                assert bool(found) is (name in places.starts)


def test_a_configuration_is_read_once_whoever_says_it() -> None:
    line = b'vllm:cache_config_info{block_size="%d",num_gpu_blocks="%d"} 1.0\n'
    for block_size, blocks in ((16, 100), (32, 100), (16, 200)):
        for _ in range(2):
            cache = read_vllm(Page(line % (block_size, blocks))).kv_cache
            assert cache == KvCache(block_size, blocks)
    long = b'vllm:cache_config_info{block_size="16",x="' + b"x" * 5000 + b'",num_gpu_blocks="7"} 1.0\n'
    assert read_vllm(Page(long)).kv_cache == KvCache(16, 7)


_PIECES = [
    *(b"vllm:num_requests_waiting", b"vllm:lora_requests_info{", b"sglang:num_pages", b"trtllm_kv_cache_max_blocks"),
    *(
        b"nv_trt_llm_request_metrics{",
        b'max_lora="',
        b"}",
        b'"',
        b"\\",
        b"\n",
        b" ",
        b"1",
        b"NaN",
        b"-1",
        b"1e999",
        b"#",
    ),
]
_TEXTS = st.lists(st.one_of(st.sampled_from(_PIECES), st.binary(max_size=6)), max_size=40)


@given(st.lists(_TEXTS, max_size=5), st.sampled_from([None, *PARSERS]))
def test_whatever_a_pod_says_is_a_reading_or_none(texts: list[list[bytes]], engine: str | None) -> None:
    places = Places()
    for pieces in texts:
        try:
            load, _ = read_metrics(b"".join(pieces), engine, places)
        except UnusableMetricsError:
            continue
        assert load.waiting >= 0
        assert load.running >= 0
        assert 0 <= load.kv_usage <= 1
