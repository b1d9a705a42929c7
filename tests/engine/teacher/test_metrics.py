from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.teacher.metrics import ServerGauges, parse_gauges
from engine.testing.token_rate import format_gauges

COUNTS = st.integers(min_value=0, max_value=2**50)
GAUGES = st.builds(
    ServerGauges,
    running=COUNTS,
    waiting=COUNTS,
    kv_cache_use=st.floats(min_value=0, max_value=1),
    preemptions=COUNTS,
    generation_tokens=COUNTS,
    prompt_tokens=COUNTS,
    prefix_cache_queries=COUNTS,
    prefix_cache_hits=COUNTS,
)

TWO_ENGINES = """\
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="a model {with} braces"} 12.0
vllm:num_requests_running{engine="1",model_name="a model {with} braces"} 3.0
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0",model_name="m"} 1.0
vllm:num_requests_waiting_by_reason{engine="0",model_name="m",reason="capacity"} 100.0
vllm:kv_cache_usage_perc{engine="0",model_name="m"} 0.5
vllm:kv_cache_usage_perc{engine="1",model_name="m"} 0.25
vllm:num_preemptions_total{engine="0",model_name="m"} 7.0
vllm:num_preemptions_created{engine="0",model_name="m"} 1.7e+09
vllm:prompt_tokens_total{engine="0",model_name="m"} 1.5e+06
vllm:prompt_tokens_by_source_total{engine="0",model_name="m",source="local"} 9.0
vllm:generation_tokens_total{engine="0",model_name="m"} 2.25e+06
vllm:generation_tokens_total{engine="1",model_name="m"} 50.0
vllm:prefix_cache_queries_total{engine="0",model_name="m"} 100.0
vllm:prefix_cache_hits_total{engine="0",model_name="m"} 40.0
vllm:external_prefix_cache_hits_total{engine="0",model_name="m"} 5.0
"""


@given(GAUGES)
def test_what_is_written_is_read_back(gauges: ServerGauges) -> None:
    assert parse_gauges(format_gauges(gauges)) == gauges


def test_engines_are_added_up_and_names_that_only_begin_alike_are_not() -> None:
    assert parse_gauges(TWO_ENGINES) == ServerGauges(15, 1, 0.375, 7, 2_250_050, 1_500_000, 100, 40)


def test_an_older_name_of_the_memory_counts_only_where_the_present_one_is_missing() -> None:
    older = TWO_ENGINES.replace("kv_cache_usage", "gpu_cache_usage")
    both = TWO_ENGINES + 'vllm:gpu_cache_usage_perc{engine="0"} 0.9\n'
    assert [gauges and gauges.kv_cache_use for gauges in map(parse_gauges, (older, both))] == [0.375, 0.375]


def test_another_server_is_read_by_its_own_names() -> None:
    text = "sglang:num_running_reqs 4\nsglang:num_queue_reqs 2\nsglang:token_usage 0.1\nsglang:generation_tokens_total 30\n"
    assert parse_gauges(text) == ServerGauges(4, 2, 0.1, 0, 30, 0)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "<html>not found</html>",
        "python_gc_objects_collected_total 3.0\n",
        TWO_ENGINES.replace("vllm:generation_tokens_total", "vllm:other_total"),
        TWO_ENGINES.replace("12.0", "twelve"),
    ],
)
def test_other_text_is_nothing(text: str) -> None:
    assert parse_gauges(text) is None


def test_gauges_that_were_never_set_are_nothing_yet() -> None:
    gauges = parse_gauges(TWO_ENGINES.replace("0.25\n", "NaN\n").replace("} 1.0", "} +Inf"))
    assert gauges is not None
    assert (gauges.kv_cache_use, gauges.waiting) == (0.25, 0)
