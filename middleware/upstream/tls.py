"""Which TLS context is an endpoint spoken to with? One per distinct settings, made once: reading the system's
certificates takes tens of milliseconds."""

from __future__ import annotations

import ssl
from functools import lru_cache

from discovery.backend import UpstreamTLS

_VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


def context_for(tls: UpstreamTLS) -> ssl.SSLContext:
    """The context of these settings; endpoints that differ only in their names share it."""
    return _context(tls.authorities, tls.verifies, tls.min_version, tls.max_version)


@lru_cache(maxsize=256)
def _context(authorities: str | None, verifies: bool, min_version: str, max_version: str) -> ssl.SSLContext:
    # Not create_default_context: it looks for SSLKEYLOGFILE, and from 3.13 on it refuses what private authorities sign.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = _VERSIONS[min_version]
    context.maximum_version = _VERSIONS[max_version]
    context.set_alpn_protocols(["http/1.1"])
    if not verifies:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif authorities is None:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    else:
        context.load_verify_locations(cadata=authorities)
    return context


def why_failed(error: BaseException) -> str | None:
    """What a TLS handshake failed of, for the operator; None for what is no failure of TLS."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the certificate is not accepted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"the handshake failed: {(error.reason or 'no reason given').replace('_', ' ').lower()}"
    return None
