"""What do recorded answers of real model servers tell?"""

from pathlib import Path

import pytest

from discovery.model_servers.engines import read_metrics, recognise
from discovery.model_servers.server_load import Adapters, KvCache, ServerLoad, UnusableMetricsError

RECORDINGS = Path(__file__).parent / "recordings"


def recorded(name: str) -> ServerLoad:
    load, engine = read_metrics((RECORDINGS / f"{name}.txt").read_bytes(), None)
    assert engine == "vllm"
    return load


def test_a_whole_answer_under_load() -> None:
    assert recorded("under-load") == ServerLoad(
        waiting=8, running=8, kv_usage=0.0009766817238432424, kv_cache=KvCache(128, 8192)
    )


def test_the_engines_of_a_data_parallel_server_are_added_up() -> None:
    load = recorded("dp2-1-under-load")
    assert (load.waiting, load.running) == (6, 4)
    assert load.kv_usage == pytest.approx(0.0628930, abs=1e-6)
    assert load.kv_cache == KvCache(32, 320)  # of both together, said by each


def test_an_engine_without_its_first_request_is_idle_not_unknown() -> None:
    assert recorded("dp2-fresh-no-request-yet") == ServerLoad(kv_cache=KvCache(32, 320))
    assert recorded("dp2-0-idle") == ServerLoad(kv_cache=KvCache(32, 320))


@pytest.mark.parametrize(
    ("name", "adapters"),
    [
        pytest.param("lora-0-before-load", None, id="no-series-before-the-first-request"),
        pytest.param("lora-1-under-load", Adapters(frozenset({"tenant-a"}), frozenset({"tenant-a"}), 2), id="one"),
        pytest.param("lora-2-after-load", Adapters(frozenset(), frozenset(), 2), id="the-empty-series-is-the-newest"),
        pytest.param(
            "lora-3-two-running-one-waiting",
            Adapters(frozenset({"tenant-a", "tenant-b"}), frozenset({"tenant-a", "tenant-b"}), 2),
            id="two",
        ),
    ],
)
def test_of_the_adapter_series_the_newest_counts(name: str, adapters: Adapters | None) -> None:
    assert recorded(name).adapters == adapters


@pytest.mark.parametrize("newest", [0, 2_500, 4_999])
def test_thousands_of_adapter_series_are_read_to_their_end(newest: int) -> None:
    """Each combination ever seen stays: twenty adapters of which four run have more than a hundred thousand."""
    lines = [
        f'vllm:lora_requests_info{{max_lora="4",running_lora_adapters="a{number}",waiting_lora_adapters=""}} '
        f"{1.7e9 + number + (9_999 if number == newest else 0)}\n"
        for number in range(5_000)
    ]
    text = f"# TYPE vllm:lora_requests_info gauge\n{''.join(lines)}vllm:num_requests_waiting 1\n".encode()
    assert read_metrics(text, "vllm")[0].adapters == Adapters(frozenset({f"a{newest}"}), frozenset(), 4)


@pytest.mark.parametrize("value", ["NaN", "-1", "soon"])
def test_an_adapter_series_that_lies_is_no_reading(value: str) -> None:
    line = 'vllm:lora_requests_info{max_lora="4",running_lora_adapters="",waiting_lora_adapters=""} '
    with pytest.raises(UnusableMetricsError, match="lora_requests_info"):
        read_metrics(f"{line}1\n{line}{value}\n{line}2\n".encode(), "vllm")


def test_old_vllm_names() -> None:
    text = b"""# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{model_name="m"} 3.0
vllm:num_requests_waiting{model_name="m"} 2.0
vllm:gpu_cache_usage_perc{model_name="m"} 0.5
"""
    assert read_metrics(text, "vllm") == (ServerLoad(waiting=2, running=3, kv_usage=0.5), "vllm")


SGLANG = b"""# HELP sglang:num_running_reqs The number of running requests.
# TYPE sglang:num_running_reqs gauge
sglang:num_running_reqs{engine_type="unified",model_name="m",tp_rank="0"} 4.0
sglang:num_queue_reqs{engine_type="unified",model_name="m",tp_rank="0"} 7.0
sglang:token_usage{engine_type="unified",model_name="m",tp_rank="0"} 0.28
"""
SGLANG_INFO = b'sglang:cache_config_info{page_size="64",num_pages="11147"} 1.0\n'
SGLANG_GAUGES = b"sglang:page_size 64.0\nsglang:num_pages 11147.0\n"
TRTLLM = b"""trtllm_num_requests_waiting{model_name="m"} 2
trtllm_num_requests_running{model_name="m"} 5
trtllm_kv_cache_utilization{model_name="m"} 0.62
trtllm_kv_cache_tokens_per_block{model_name="m"} 32
trtllm_kv_cache_max_blocks{model_name="m"} 900
"""
TRITON_TRTLLM = b"""nv_inference_pending_request_count{model="ensemble",version="1"} 9
nv_trt_llm_request_metrics{model="tensorrt_llm",request_type="waiting",version="1"} 1
nv_trt_llm_request_metrics{model="tensorrt_llm",request_type="context",version="1"} 8
nv_trt_llm_request_metrics{model="tensorrt_llm",request_type="scheduled",version="1"} 3
nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="fraction",model="tensorrt_llm",version="1"} 0.25
nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="tokens_per",model="tensorrt_llm",version="1"} 64
nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="used",model="tensorrt_llm",version="1"} 100
nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="max",model="tensorrt_llm",version="1"} 400
"""
TRITON = b"""nv_inference_exec_count{model="a",version="1"} 99
nv_inference_pending_request_count{model="a",version="1"} 2
nv_inference_pending_request_count{model="b",version="1"} 3
"""


@pytest.mark.parametrize(
    ("text", "engine", "load"),
    [
        pytest.param(SGLANG + SGLANG_INFO, "sglang", ServerLoad(7, 4, 0.28, None, KvCache(64, 11147)), id="sglang"),
        pytest.param(
            SGLANG + SGLANG_GAUGES, "sglang", ServerLoad(7, 4, 0.28, None, KvCache(64, 11147)), id="new-sglang"
        ),
        pytest.param(SGLANG, "sglang", ServerLoad(7, 4, 0.28), id="sglang-without-cache-info"),
        pytest.param(TRTLLM, "trtllm-serve", ServerLoad(2, 5, 0.62, None, KvCache(32, 900)), id="trtllm-serve"),
        pytest.param(
            TRITON_TRTLLM, "triton-tensorrt-llm", ServerLoad(1, 3, 0.25, None, KvCache(64, 400)), id="triton-trtllm"
        ),
        pytest.param(TRITON, "triton", ServerLoad(waiting=5), id="triton"),
    ],
)
def test_other_engines_by_label_and_found_out(text: bytes, engine: str, load: ServerLoad) -> None:
    assert read_metrics(text, engine) == (load, engine)
    assert read_metrics(b"# HELP up x\nup 1\n" + text, None) == (load, engine)
    assert recognise(text) == engine


def test_a_label_that_nobody_knows_is_found_out() -> None:
    assert read_metrics(TRTLLM, "my-own")[1] == "trtllm-serve"


def test_a_text_of_no_known_engine_tells_nothing() -> None:
    assert read_metrics(b'{"path":"/metrics"}', None) == (ServerLoad(), None)
    assert read_metrics(b"", "vllm") == (ServerLoad(), "vllm")
