"""Which replica speaks for all? The one that holds a Lease, as client-go's leader election has it.

A holder that does not renew in time has lost it, by its own clock; others take it once they have seen no renewal for as
long, by theirs, so clocks need not agree. Every write names the resourceVersion that it is based on: of two that take
an expired Lease at once, one is refused.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, NoReturn

import msgspec

from discovery.sources.kube_client import KubeClient, KubeError

logger = logging.getLogger(__name__)

DURATION_SECONDS = 15.0
RENEW_DEADLINE_SECONDS = 10.0
RETRY_SECONDS = 2.0
FORBIDDEN_SECONDS = 60.0


class LeaderElection:
    """One replica's part in the election. ``run`` until cancelled, then ``release``."""

    def __init__(
        self,
        client: KubeClient,
        *,
        namespace: Callable[[], str],
        name: str,
        identity: str,
        duration_seconds: float = DURATION_SECONDS,
        renew_deadline_seconds: float = RENEW_DEADLINE_SECONDS,
        retry_seconds: float = RETRY_SECONDS,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        self.identity = identity
        self._client = client
        self._namespace = namespace  # asked for late: a kubeconfig is only read with the first request
        self._name = name
        self._duration = duration_seconds
        self._renew_deadline = renew_deadline_seconds
        self._retry = retry_seconds
        self._clock = clock
        self._sleep = sleep
        self._on_change = on_change
        self._renewed_at: float | None = None  # by us
        self._seen: object = None  # what the Lease said last, and when that was
        self._seen_at = 0.0
        self._told = ""

    @property
    def is_leader(self) -> bool:
        """Whether we hold it, and renewed it lately enough."""
        return self._renewed_at is not None and self._clock() - self._renewed_at < self._renew_deadline

    @property
    def _path(self) -> str:
        return f"/apis/coordination.k8s.io/v1/namespaces/{self._namespace()}/leases"

    async def run(self) -> NoReturn:
        """Take the Lease when it is free, and renew it."""
        while True:
            was_leader = self.is_leader
            pause = self._retry
            started = self._clock()  # others count from when the server took it, which may be long before its answer
            try:
                is_held = await self._try_once()
                self._told = ""
            except KubeError as error:
                is_held = False
                if error.status == 403:
                    pause = FORBIDDEN_SECONDS
                self._tell(f"{error.message} (the service account needs get, create and update of leases)", error)
                if error.status == 409:
                    self._told = ""
            if is_held:
                self._renewed_at = started
            elif self._renewed_at is not None and not self.is_leader:
                self._renewed_at = None
            if self.is_leader != was_leader:
                logger.info("conditions are %s", "ours to write" if self.is_leader else "another replica's to write")
                self._on_change()
            await self._sleep(pause * (1.0 + random.random() * 0.2))

    async def release(self) -> None:
        """Give the Lease up, so that another replica need not wait for its end. Raises nothing."""
        if not self.is_leader:
            return
        self._renewed_at = None
        try:
            found = await self._read()
            if found is not None and found["spec"].get("holderIdentity") == self.identity:
                found["spec"] |= {"holderIdentity": "", "leaseDurationSeconds": 1, "renewTime": _now()}
                await self._client.request("PUT", f"{self._path}/{self._name}", body=found)
        except KubeError as error:
            logger.info("the lease was not released: %s", error.message)

    async def _try_once(self) -> bool:
        """One round; True when the Lease is ours now. Raises KubeError."""
        found = await self._read()
        now = _now()
        if found is None:
            spec = {
                "holderIdentity": self.identity,
                "leaseDurationSeconds": round(self._duration) or 1,
                "acquireTime": now,
                "renewTime": now,
                "leaseTransitions": 0,
            }
            body = {
                "apiVersion": "coordination.k8s.io/v1",
                "kind": "Lease",
                "metadata": {"name": self._name, "namespace": self._namespace()},
                "spec": spec,
            }
            await self._client.request("POST", self._path, body=body)
            return True
        spec = found["spec"]
        holder = spec.get("holderIdentity") or ""
        record = (holder, spec.get("renewTime"), spec.get("leaseTransitions"))
        if record != self._seen:
            self._seen, self._seen_at = record, self._clock()
        if holder not in ("", self.identity) and self._clock() - self._seen_at < self._term_of(spec):
            self._renewed_at = None
            return False
        if holder != self.identity:
            spec["leaseTransitions"] = int(spec.get("leaseTransitions") or 0) + 1
            spec["acquireTime"] = now
        spec |= {
            "holderIdentity": self.identity,
            "leaseDurationSeconds": round(self._duration) or 1,
            "renewTime": now,
        }
        await self._client.request("PUT", f"{self._path}/{self._name}", body=found)
        return True

    def _term_of(self, spec: dict[str, Any]) -> float:
        """How long whoever holds it may keep it without renewing it: what the Lease says, not what ours would."""
        seconds = spec.get("leaseDurationSeconds")
        return float(seconds) if isinstance(seconds, int) and seconds > 0 else self._duration

    async def _read(self) -> dict[str, Any] | None:
        try:
            body = await self._client.request("GET", f"{self._path}/{self._name}")
        except KubeError as error:
            if error.status == 404 and error.is_api:
                return None
            raise
        try:
            found = msgspec.json.decode(body)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            found = None
        if not isinstance(found, dict):
            raise KubeError("the answer is no Lease")
        if not isinstance(found.get("spec"), dict):
            found["spec"] = {}
        return found

    def _tell(self, message: str, error: KubeError) -> None:
        if message != self._told and error.status != 409:
            self._told = message
            logger.warning("electing who writes conditions: %s", message)


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
