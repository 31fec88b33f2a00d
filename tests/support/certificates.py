"""How does a test get certificates? Made in memory, by an authority of its own."""

from __future__ import annotations

import ssl

import trustme


class Authority:
    """A certificate authority that signs what a test asks for."""

    def __init__(self) -> None:
        self._authority = trustme.CA()

    @property
    def pem(self) -> str:
        """Its certificate, as `ca.crt` has it."""
        pem: bytes = self._authority.cert_pem.bytes()
        return pem.decode("ascii")

    def server(self, *names: str, newest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> ssl.SSLContext:
        """The context of a server with these names and addresses."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.maximum_version = newest
        self._authority.issue_cert(*names).configure_cert(context)
        return context
