"""Backend, ClientTrafficPolicy, BackendTrafficPolicy of gateway.envoyproxy.io: what of them is implemented."""

from __future__ import annotations

from discovery.resources.meta import Model, PolicySpec, Resource


class FQDN(Model):
    hostname: str
    port: int


class IP(Model):
    address: str
    port: int


class Unix(Model):
    path: str


class BackendEndpoint(Model):
    """Exactly one of the three is set (checked when decoded)."""

    fqdn: FQDN | None = None
    ip: IP | None = None
    unix: Unix | None = None


class BackendSpec(Model):
    type: str = "Endpoints"
    endpoints: tuple[BackendEndpoint, ...] = ()
    app_protocols: tuple[str, ...] = ()
    tls: dict[str, object] | None = None


class Backend(Resource):
    spec: BackendSpec = BackendSpec()


class ClientConnection(Model):
    buffer_limit: int | str | None = None


class ClientTrafficPolicySpec(PolicySpec):
    connection: ClientConnection = ClientConnection()


class ClientTrafficPolicy(Resource):
    spec: ClientTrafficPolicySpec
    # Fields that we do not implement and without which we would accept more than the policy says.
    restrictions: tuple[str, ...] = ()


class HTTPTimeout(Model):
    request_timeout: str | None = None


class Timeout(Model):
    http: HTTPTimeout = HTTPTimeout()


class BackendTrafficPolicySpec(PolicySpec):
    timeout: Timeout = Timeout()


class BackendTrafficPolicy(Resource):
    spec: BackendTrafficPolicySpec
    # Fields that we do not implement and without which we would forward more than the policy says.
    restrictions: tuple[str, ...] = ()
