"""Backend, ClientTrafficPolicy, BackendTrafficPolicy of gateway.envoyproxy.io: what of them is implemented."""

from __future__ import annotations

from discovery.resources.meta import Model, PolicySpec, Resource


class FQDN(Model, frozen=True, kw_only=True):
    hostname: str
    port: int


class IP(Model, frozen=True, kw_only=True):
    address: str
    port: int


class Unix(Model, frozen=True, kw_only=True):
    path: str


class BackendEndpoint(Model, frozen=True, kw_only=True):
    """Exactly one of the three is set (checked when decoded)."""

    fqdn: FQDN | None = None
    ip: IP | None = None
    unix: Unix | None = None


class BackendSpec(Model, frozen=True, kw_only=True):
    type: str = "Endpoints"
    endpoints: tuple[BackendEndpoint, ...] = ()
    app_protocols: tuple[str, ...] = ()
    tls: dict[str, object] | None = None


class Backend(Resource, frozen=True, kw_only=True):
    spec: BackendSpec = BackendSpec()


class ClientConnection(Model, frozen=True, kw_only=True):
    buffer_limit: int | str | None = None


class ClientTrafficPolicySpec(PolicySpec, frozen=True, kw_only=True):
    connection: ClientConnection = ClientConnection()


class ClientTrafficPolicy(Resource, frozen=True, kw_only=True):
    spec: ClientTrafficPolicySpec
    # Fields that we do not implement and without which we would accept more than the policy says.
    restrictions: tuple[str, ...] = ()


class HTTPTimeout(Model, frozen=True, kw_only=True):
    request_timeout: str | None = None


class Timeout(Model, frozen=True, kw_only=True):
    http: HTTPTimeout = HTTPTimeout()


class BackendTrafficPolicySpec(PolicySpec, frozen=True, kw_only=True):
    timeout: Timeout = Timeout()


class BackendTrafficPolicy(Resource, frozen=True, kw_only=True):
    spec: BackendTrafficPolicySpec
    # Fields that we do not implement and without which we would forward more than the policy says.
    restrictions: tuple[str, ...] = ()
