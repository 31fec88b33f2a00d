"""What becomes of metrics that are odd, broken, or lies?"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from discovery.model_servers.engines import PARSERS, read_metrics
from discovery.model_servers.exposition import MAX_SAMPLES, count, gauge, read_labels, samples, share, whole_number
from discovery.model_servers.server_load import UnusableMetricsError
from discovery.model_servers.vllm import read_vllm


@pytest.mark.parametrize(
    ("text", "found"),
    [
        pytest.param(b"a 1\n", [(b"", b"1")], id="plain"),
        pytest.param(b"a 1", [(b"", b"1")], id="no-last-newline"),
        pytest.param(b'a{x="1"} 2 1700000000000\n', [(b'x="1"', b"2")], id="timestamp"),
        pytest.param(b"ab 1\nabc 2\na 3\n", [(b"", b"3")], id="longer-names-before"),
        pytest.param(b"# HELP a 1\n# TYPE a gauge\na\t3\n", [(b"", b"3")], id="comments"),
        pytest.param(b'a{x="}"} 1\na{x="\\"}{"} 2\nb 3\n', [(b'x="}"', b"1"), (b'x="\\"}{"', b"2")], id="braces"),
        pytest.param(b"b 1\nab 1\n", [], id="absent"),
        pytest.param(b"a", [], id="name-alone"),
        pytest.param(b"x\na ", [(b"", b"")], id="no-value"),
    ],
)
def test_samples(text: bytes, found: list[tuple[bytes, bytes]]) -> None:
    assert list(samples(text, b"a")) == found


def test_a_longer_name_is_another_metric() -> None:
    text = b"""vllm:num_requests_waiting_by_reason{reason="capacity"} 9
vllm:num_requests_waiting{engine="0"} 1
vllm:num_requests_waiting{engine="1"} 2
vllm:num_requests_waiting_by_reason{reason="deferred"} 9
"""
    assert read_vllm(text).waiting == 3


@pytest.mark.parametrize("value", [b"NaN", b"-1", b"+Inf", b"-Inf", b"many", b"", b"1e400"])
def test_a_value_that_cannot_be_meant_is_no_reading(value: bytes) -> None:
    with pytest.raises(UnusableMetricsError, match="vllm:num_requests_waiting"):
        read_vllm(b"vllm:num_requests_waiting{} " + value + b"\n")
    with pytest.raises(UnusableMetricsError, match="vllm:kv_cache_usage_perc"):
        read_vllm(b"vllm:kv_cache_usage_perc " + value + b"\n")
    with pytest.raises(UnusableMetricsError, match="vllm:lora_requests_info"):
        read_vllm(b"vllm:lora_requests_info{} " + value + b"\n")


def test_values_are_bounded() -> None:
    assert share(b"a 17\n", b"a") == 1.0
    assert count(b"a 1e300\n", b"a") == 1_000_000_000
    assert len(gauge(b"a 1\n" * (MAX_SAMPLES + 5), b"a")) == MAX_SAMPLES


def test_labels_are_unescaped() -> None:
    assert read_labels(rb'a="1", b_2="x\"y\\z\nw" ,c="",') == {"a": "1", "b_2": 'x"y\\z\nw', "c": ""}
    assert read_labels(b'a="\xff"') == {"a": "\ufffd"}


def test_numbers_in_labels() -> None:
    assert [whole_number(text) for text in ("32", "None", "", None, "-1", "1.5", "9" * 30, "٣")] == [32, *[0] * 7]


def test_ten_megabytes_without_a_line_are_passed_over() -> None:
    assert read_vllm(b"x" * 10_000_000).waiting == 0
    assert read_vllm(b"vllm:num_requests_waiting{" + b"x" * 10_000_000 + b"} 4\n").waiting == 4
    assert read_vllm(b"vllm:num_requests_waiting 4\n" + b"\nvllm:num_requests_waitin" * 400_000).waiting == 4


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


@given(_TEXTS, st.sampled_from([None, *PARSERS]))
def test_whatever_a_pod_says_is_a_reading_or_none(pieces: list[bytes], engine: str | None) -> None:
    try:
        load, _ = read_metrics(b"".join(pieces), engine)
    except UnusableMetricsError:
        return
    assert load.waiting >= 0
    assert load.running >= 0
    assert 0 <= load.kv_usage <= 1
