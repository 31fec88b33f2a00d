"""Who can answer? Backends, as backendRefs name them, and the endpoints that they consist of."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

import httpx

from discovery.filters import ReplacePrefix


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamTLS:
    """How an endpoint is spoken to in TLS."""

    server_name: str  # who its certificate must be of; a host name is also sent as SNI, an IP address is not
    authorities: str | None = None  # certificates in PEM; None: the system's
    verifies: bool = True
    min_version: Literal["1.2", "1.3"] = "1.2"
    max_version: Literal["1.2", "1.3"] = "1.3"

    @property
    def fingerprint(self) -> str:
        """Tells settings apart without showing them."""
        text = f"{self.server_name}\n{self.verifies}\n{self.min_version}\n{self.max_version}\n{self.authorities or ''}"
        return hashlib.blake2b(text.encode("utf-8"), digest_size=4).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One address of a backend, as we were told about it.

    ``id`` is its identity over snapshots: pod uid (or namespace/name) and ip:port, or the Backend's address. Two
    backends that name the same address share the id, and with it connections and breaker. Its TLS settings are a part
    of it: where they change, nothing that was made with the old ones is used for a new request.
    """

    id: str
    address: str  # an IP literal without brackets, or a host name that is resolved at connect
    port: int  # 1..65535
    url: httpx.URL = field(compare=False)  # "http://address:port/", built once: building one costs 35 µs
    pod: str | None = None  # "namespace/name"
    engine: str | None = None  # whose metrics it has, by the pod's label: a name of discovery/model_servers/engines.py
    host: bytes | None = None  # Host sent instead of the client's (a Backend given by fqdn)
    # An AIServiceBackend's schema puts the API below another prefix: the first one that matches is replaced.
    path_rewrites: tuple[ReplacePrefix, ...] = ()
    tls: UpstreamTLS | None = None
    check_host: bytes | None = None  # what active health checks ask it for
    is_confined: bool = False  # named by an object of a cluster: must not lead into the gateway's own pod or node


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolSettings:
    """How an InferencePool's endpoints are picked, and which requests it sheds first."""

    fails_open: bool = True  # when nothing is known of its endpoints, any of them is picked
    by_load_alone: bool = False  # prompts are not looked at
    priorities: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))  # by InferenceObjective's name
    model_priorities: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))  # by InferenceModel


@dataclass(frozen=True, slots=True, kw_only=True)
class Backend:
    """What a backendRef resolves to. ``id`` is the key into the membership, such as "InferencePool/default/qwen"."""

    id: str
    kind: str
    namespace: str
    name: str
    pool: PoolSettings | None = field(default=None, hash=False)  # of an InferencePool


Membership = Mapping[str, tuple[Endpoint, ...]]  # backend id -> endpoints that take new requests
