"""How is a Backend spoken to in TLS, or why can it not be? Backend.spec.tls -> UpstreamTLS.

Whatever would narrow down which servers are spoken to, and is not implemented, makes the Backend unusable: leaving it
out would send prompts where the object does not say.
"""

from __future__ import annotations

import ssl
from functools import lru_cache
from typing import Literal

from discovery.backend import UpstreamTLS
from discovery.compile.index import Index
from discovery.resources.envoy_gateway import Backend, BackendEndpoint, BackendTLS

Fault = tuple[str, str]  # reason and message

_NOT_SUPPORTED = (
    ("ciphers", "only OpenSSL's default ciphers are offered"),
    ("ecdh_curves", "only OpenSSL's default curves are offered"),
    ("signature_algorithms", "only OpenSSL's default algorithms are offered"),
)


def tls_fault(backend: Backend, index: Index) -> Fault | None:
    """The reason and message why a Backend's tls cannot be followed, or None."""
    tls = backend.spec.tls
    if tls is None:
        return None
    if tls.client_certificate_ref is not None:
        return "UnsupportedValue", "tls.clientCertificateRef is not supported: Secrets are not read"
    for name, why in _NOT_SUPPORTED:
        if getattr(tls, name):
            return "UnsupportedValue", f"tls.{_camel(name)} is not supported: {why}"
    if tls.max_version in ("1.0", "1.1"):
        return "UnsupportedProtocol", f"tls.maxVersion {tls.max_version} is not supported: 1.2 is the lowest"
    if tls.well_known_ca_certificates not in (None, "", "System"):
        return "InvalidKind", f"tls.wellKnownCACertificates {tls.well_known_ca_certificates} is not known, only System"
    authorities = _authorities(backend, tls, index)
    if not isinstance(authorities, str):
        return authorities
    if not authorities and not tls.well_known_ca_certificates and not tls.insecure_skip_verify:
        message = "tls needs caCertificateRefs, wellKnownCACertificates or insecureSkipVerify"
        return "NoValidCACertificate", message
    return None


def compile_tls(backend: Backend, endpoint: BackendEndpoint, index: Index) -> UpstreamTLS | None:
    """What holds for one endpoint of a Backend without fault. Without `sni` the server is called by its host name; one
    that is given by its address must have that in its certificate."""
    tls = backend.spec.tls
    if tls is None:
        return None
    authorities = _authorities(backend, tls, index)
    assert isinstance(authorities, str)
    name = endpoint.fqdn.hostname if endpoint.fqdn is not None else endpoint.ip.address if endpoint.ip else ""
    return UpstreamTLS(
        server_name=tls.sni or name,
        authorities=authorities or None,
        verifies=not tls.insecure_skip_verify,
        min_version="1.3" if tls.min_version == "1.3" else "1.2",
        max_version="1.2" if tls.max_version == "1.2" else "1.3",
    )


def _authorities(backend: Backend, tls: BackendTLS, index: Index) -> str | Fault:
    """The certificates of all caCertificateRefs, in PEM; "" where there are none."""
    texts: list[str] = []
    for number, ref in enumerate(tls.ca_certificate_refs):
        field = f"tls.caCertificateRefs[{number}]"
        if (ref.group, ref.kind) != ("", "ConfigMap"):
            return "InvalidKind", f"{field}: {ref.kind} is not supported, only ConfigMap"
        found = index.certificate_maps.get((backend.namespace, ref.name))
        if found is None:
            message = f"{field}: there is no ConfigMap {backend.namespace}/{ref.name} with ca.crt"
            return "InvalidCACertificateRef", message
        why = _why_unusable(found.ca_certificates)
        if why:
            return "InvalidCACertificateRef", f"{field}: ca.crt of ConfigMap {backend.namespace}/{ref.name}: {why}"
        texts.append(found.ca_certificates.strip())
    return "\n".join(texts)


@lru_cache(maxsize=256)
def _why_unusable(pem: str) -> Literal["", "it holds no certificate in PEM"]:
    """What a TLS context says of these authorities, once for each text."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(cadata=pem)
    except (ssl.SSLError, ValueError):
        return "it holds no certificate in PEM"
    return ""


def _camel(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(part.capitalize() for part in others)
