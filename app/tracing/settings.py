"""Who gets the traces? OpenTelemetry's standard OTEL_* variables, as far as they are ours to read.

The SDK itself reads the rest: OTEL_TRACES_SAMPLER and _ARG, OTEL_RESOURCE_ATTRIBUTES, OTEL_SERVICE_NAME, OTEL_BSP_*,
OTEL_SPAN_*_LIMIT, and of OTEL_EXPORTER_OTLP_* the headers, the compression and the certificates.
"""

from __future__ import annotations

import logging
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

logger = logging.getLogger(__name__)

DEFAULT_TIMEOUT_SECONDS = 10.0
DEFAULT_PROPAGATORS = ("tracecontext", "baggage")


class TracingConfigurationError(Exception):
    """OTEL_* variables ask for what cannot be done. The message is a line for the operator."""


class GenAiVersion(Enum):
    """Which names the GenAI attributes have (OTEL_SEMCONV_STABILITY_OPT_IN)."""

    NEWEST = "newest"
    V1_41 = "1.41"
    BOTH = "both"


@dataclass(frozen=True, slots=True, kw_only=True)
class TracingSettings:
    """Traces are on."""

    endpoint: str  # as given: for HTTP the URL that is posted to
    is_grpc: bool = False
    timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS  # of one delivery, its retries included
    propagators: tuple[str, ...] = DEFAULT_PROPAGATORS
    genai: GenAiVersion = GenAiVersion.NEWEST

    @property
    def collector(self) -> str:
        """Who gets the traces, for people: without what a URL may hold beside host and port."""
        parts = urllib.parse.urlsplit(self.endpoint if "//" in self.endpoint else f"//{self.endpoint}")
        return parts.netloc.rpartition("@")[2]


def read_tracing_settings(environ: Mapping[str, str]) -> TracingSettings | None:
    """The settings, or None: no endpoint, or traces are switched off. Raises TracingConfigurationError."""
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return None
    exporters = _listed(environ, "OTEL_TRACES_EXPORTER") or ("otlp",)
    unknown = [name for name in exporters if name not in ("otlp", "none")]
    if unknown:
        raise TracingConfigurationError(f"OTEL_TRACES_EXPORTER={unknown[0]}: only otlp and none are there")
    if "otlp" not in exporters:
        return None
    own = environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "").strip()
    common = environ.get("OTEL_EXPORTER_OTLP_ENDPOINT", "").strip()
    if not own and not common:
        if "OTEL_TRACES_EXPORTER" in environ:
            logger.warning("tracing is off: OTEL_TRACES_EXPORTER is set, but no OTEL_EXPORTER_OTLP_ENDPOINT")
        return None
    protocol = _of_traces(environ, "PROTOCOL") or "http/protobuf"
    if protocol not in ("http/protobuf", "grpc"):
        raise TracingConfigurationError(
            f"OTEL_EXPORTER_OTLP_PROTOCOL={protocol}: only http/protobuf and, with the extra pointsman[grpc], grpc"
        )
    is_grpc = protocol == "grpc"
    endpoint = own or common
    scheme = urllib.parse.urlsplit(endpoint).scheme
    if not is_grpc and scheme not in ("http", "https"):
        name = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT" if own else "OTEL_EXPORTER_OTLP_ENDPOINT"
        shown = endpoint.partition("?")[0].rpartition("@")[2]  # without what may be a credential
        raise TracingConfigurationError(f"{name}: not a URL with http or https: {shown}")
    _check_limits(environ)
    if not is_grpc and not own:
        endpoint = f"{common.rstrip('/')}/v1/traces"
    return TracingSettings(
        endpoint=endpoint,
        is_grpc=is_grpc,
        timeout_seconds=_timeout(environ),
        propagators=_listed(environ, "OTEL_PROPAGATORS") or DEFAULT_PROPAGATORS,
        genai=_genai_version(environ),
    )


def _listed(environ: Mapping[str, str], name: str) -> tuple[str, ...]:
    return tuple(part.strip().lower() for part in environ.get(name, "").split(",") if part.strip())


def _of_traces(environ: Mapping[str, str], name: str) -> str:
    """The variable of this signal, else the one of all signals. Empty is as good as not set, says the standard."""
    own = environ.get(f"OTEL_EXPORTER_OTLP_TRACES_{name}", "").strip()
    return own or environ.get(f"OTEL_EXPORTER_OTLP_{name}", "").strip()


def _timeout(environ: Mapping[str, str]) -> float:
    # Milliseconds, as the standard has it; the SDK alone would take them for seconds.
    text = _of_traces(environ, "TIMEOUT")
    if not text:
        return DEFAULT_TIMEOUT_SECONDS
    try:
        milliseconds = float(text)
    except ValueError:
        milliseconds = 0.0
    if not 0 < milliseconds < float("inf"):
        raise TracingConfigurationError(f"OTEL_EXPORTER_OTLP_TIMEOUT={text}: not a number of milliseconds above 0")
    return milliseconds / 1000


def _check_limits(environ: Mapping[str, str]) -> None:
    # The SDK reads them while it is imported, and raises then.
    for name, text in environ.items():
        if name.startswith("OTEL_") and name.endswith(("_COUNT_LIMIT", "_LENGTH_LIMIT")):
            value = text.strip()
            if value and not (value.isascii() and value.isdigit()):
                raise TracingConfigurationError(f"{name}={text}: not a number from 0 up")


def _genai_version(environ: Mapping[str, str]) -> GenAiVersion:
    chosen = _listed(environ, "OTEL_SEMCONV_STABILITY_OPT_IN")
    if "gen_ai_1_41/dup" in chosen:
        return GenAiVersion.BOTH
    return GenAiVersion.V1_41 if "gen_ai_1_41" in chosen else GenAiVersion.NEWEST
