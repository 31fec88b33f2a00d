"""Do the standard's variables say whether, where and how traces go?"""

from __future__ import annotations

import pytest

from app.tracing.settings import GenAiVersion, TracingConfigurationError, read_tracing_settings

BASE = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}


@pytest.mark.parametrize(
    "environ",
    [
        pytest.param({}, id="no endpoint"),
        pytest.param({"OTEL_EXPORTER_OTLP_ENDPOINT": " "}, id="an empty endpoint is none"),
        pytest.param({"OTEL_TRACES_EXPORTER": "otlp"}, id="an exporter without an endpoint"),
        pytest.param({**BASE, "OTEL_SDK_DISABLED": "True"}, id="disabled"),
        pytest.param({**BASE, "OTEL_TRACES_EXPORTER": "none"}, id="no exporter"),
    ],
)
def test_off(environ: dict[str, str]) -> None:
    assert read_tracing_settings(environ) is None


@pytest.mark.parametrize(
    ("environ", "endpoint"),
    [
        pytest.param({}, "http://collector:4318/v1/traces", id="the signal's path is added"),
        pytest.param(
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "https://c:1/base/"}, "https://c:1/base/v1/traces", id="below a path"
        ),
        pytest.param(
            {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://t:9/x"}, "http://t:9/x", id="the signal's own wins"
        ),
        pytest.param({"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "http://collector:4318", id="grpc takes it as it is"),
    ],
)
def test_endpoint(environ: dict[str, str], endpoint: str) -> None:
    settings = read_tracing_settings(BASE | environ)
    assert settings is not None
    assert settings.endpoint == endpoint


def test_times_are_milliseconds_and_the_signals_own_wins() -> None:
    settings = read_tracing_settings(
        {**BASE, "OTEL_EXPORTER_OTLP_TIMEOUT": "9000", "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT": "250"}
    )
    assert settings is not None
    assert settings.timeout_seconds == 0.25


def test_names_of_attributes_are_chosen_by_the_standards_switch() -> None:
    def version(text: str) -> GenAiVersion:
        settings = read_tracing_settings({**BASE, "OTEL_SEMCONV_STABILITY_OPT_IN": text})
        assert settings is not None
        return settings.genai

    assert version("") is GenAiVersion.NEWEST
    assert version("http, gen_ai_latest_experimental") is GenAiVersion.NEWEST
    assert version("http,gen_ai_1_41") is GenAiVersion.V1_41
    assert version("gen_ai_1_41/dup") is GenAiVersion.BOTH


@pytest.mark.parametrize(
    ("environ", "word"),
    [
        pytest.param({"OTEL_TRACES_EXPORTER": "zipkin"}, "OTEL_TRACES_EXPORTER=zipkin", id="exporter"),
        pytest.param({"OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"}, "http/json", id="protocol"),
        pytest.param({"OTEL_EXPORTER_OTLP_ENDPOINT": "collector:4318"}, "not a URL", id="endpoint"),
        pytest.param({"OTEL_EXPORTER_OTLP_TIMEOUT": "10s"}, "OTEL_EXPORTER_OTLP_TIMEOUT=10s", id="timeout"),
        pytest.param({"OTEL_EXPORTER_OTLP_TIMEOUT": "0"}, "above 0", id="no time"),
        pytest.param({"OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT": "many"}, "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT=many", id="a limit"),
    ],
)
def test_what_cannot_be_done_is_said_by_the_variables_name(environ: dict[str, str], word: str) -> None:
    with pytest.raises(TracingConfigurationError, match=word):
        read_tracing_settings(BASE | environ)


@pytest.mark.parametrize("name", ["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"])
def test_what_is_said_of_an_endpoint_has_no_credentials(name: str) -> None:
    with pytest.raises(TracingConfigurationError) as caught:
        read_tracing_settings({name: "user:secret@collector:4318?key=secret"})
    assert name in str(caught.value)
    assert "collector:4318" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_the_collectors_name_for_people_has_no_credentials() -> None:
    settings = read_tracing_settings({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://user:secret@collector:4318?key=secret"})
    assert settings is not None
    assert settings.collector == "collector:4318"
