"""Where is the API server, and how do we show who we are? The pod's service account, else KUBECONFIG.

In a pod the token and the CA are files that rotate: they are read anew every minute, and at once when the server does
not take the token any more. kubernetes-asyncio is only imported for a kubeconfig, whose plugins, client certificates
and token files it understands; in a pod that would be 40 MB for reading two files.
"""

from __future__ import annotations

import asyncio
import os
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
TOKEN_SECONDS = 60.0


class AccessError(Exception):
    """There is no way to a cluster: no service account, and no kubeconfig that can be used."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """Where the API server is, and how its connections are made. ``fingerprint`` changes with the CA."""

    url: str
    tls: ssl.SSLContext | None = None
    tls_server_name: str | None = None
    proxy: str | None = None
    fingerprint: object = None


class Access(Protocol):
    """A way to a cluster."""

    namespace: str
    """Our own namespace: the pod's, or that of the kubeconfig's context."""

    async def server(self) -> Server:
        """Where it is, as the files say now. Raises AccessError and OSError."""
        ...

    async def authorization(self, *, is_refused: bool = False) -> str | None:
        """The Authorization header; read anew when the last one was refused. Raises AccessError and OSError."""
        ...


class PodAccess:
    """The service account of the pod that we run in."""

    def __init__(
        self,
        *,
        url: str,
        folder: Path = SERVICE_ACCOUNT,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._url = url
        self._folder = folder
        self._clock = clock
        self._token = ""
        self._read_at = 0.0
        self.namespace = _read_namespace(folder)

    async def server(self) -> Server:
        if not self._url.startswith("https:"):
            return Server(url=self._url)
        path = self._folder / "ca.crt"
        content = await asyncio.to_thread(path.read_text)
        return Server(url=self._url, tls=await asyncio.to_thread(_context, content), fingerprint=content)

    async def authorization(self, *, is_refused: bool = False) -> str | None:
        now = self._clock()
        if not self._token or is_refused or now - self._read_at >= TOKEN_SECONDS:
            token = (await asyncio.to_thread((self._folder / "token").read_text)).strip()
            if not token:
                raise AccessError(f"{self._folder / 'token'} is empty")
            self._token, self._read_at = token, now
        return f"Bearer {self._token}"


class KubeconfigAccess:
    """What KUBECONFIG, or ~/.kube/config, says of its current context."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._configuration: Any = None
        self.namespace = "default"

    async def server(self) -> Server:
        found = await self._load()
        tls = None
        if str(found.host).startswith("https:"):
            tls = await asyncio.to_thread(_context_of, found)
        names = (found.ssl_ca_cert, found.cert_file, found.key_file)
        return Server(
            url=found.host,
            tls=tls,
            tls_server_name=getattr(found, "tls_server_name", None),
            proxy=found.proxy,
            fingerprint=await asyncio.to_thread(_contents, names),
        )

    async def authorization(self, *, is_refused: bool = False) -> str | None:
        if self._configuration is None or is_refused:
            await self._load()
        token: str | None = self._configuration.api_key.get("BearerToken")
        return token.strip() if token else None

    async def _load(self) -> Any:
        from kubernetes_asyncio.client import Configuration
        from kubernetes_asyncio.config import ConfigException, load_kube_config

        make: Any = Configuration
        configuration = make()
        try:
            loader: Any = await load_kube_config(
                config_file=self._path, client_configuration=configuration, persist_config=False
            )
            self.namespace = (loader.current_context["context"].get("namespace")) or "default"
        except ConfigException as error:
            raise AccessError(f"{self._path}: {error}") from None
        except Exception as error:
            # The loader raises whatever its YAML, its plugins and their JSON make it raise; a plugin's output may hold
            # a credential, so only the kind of the error is told.
            raise AccessError(f"{self._path} cannot be used: {type(error).__name__}") from None
        self._configuration = configuration
        return configuration


def find_access(environ: Mapping[str, str] = os.environ, *, folder: Path = SERVICE_ACCOUNT) -> Access:
    """The way to the cluster that this process belongs to. Raises AccessError."""
    host, port = environ.get("KUBERNETES_SERVICE_HOST"), environ.get("KUBERNETES_SERVICE_PORT")
    if host and port and (folder / "token").is_file():
        return PodAccess(url=f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}", folder=folder)
    path = environ.get("KUBECONFIG") or str(Path(environ.get("HOME", "/")) / ".kube" / "config")
    if not any(Path(part).is_file() for part in path.split(os.pathsep)):
        raise AccessError(f"no service account of a pod, and no kubeconfig: {path} does not exist")
    return KubeconfigAccess(path)


def _context(ca: str) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=ca)
    # From 3.13 on Python asks for key identifiers in the CA, which those of many clusters lack.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context


def _context_of(found: Any) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=found.ssl_ca_cert)
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if found.cert_file:
        context.load_cert_chain(found.cert_file, keyfile=found.key_file)
    if not found.verify_ssl:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _contents(names: tuple[str | None, ...]) -> tuple[bytes, ...]:
    return tuple(Path(name).read_bytes() for name in names if name)


def _read_namespace(folder: Path) -> str:
    try:
        return (folder / "namespace").read_text().strip() or "default"
    except OSError:
        return "default"
