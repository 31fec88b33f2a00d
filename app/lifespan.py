"""When does the gateway start, take requests, drain and end? Builds everything once and takes it down in order.

Start: read the configuration, publish it, open the admin port and then the data port. SIGTERM or SIGINT: readiness is
red at once; for the grace time requests are still taken and answered with `connection: close`; then the data port
closes, running answers finish up to the drain timeout, what is left is cut as broken; the admin port closes last.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from app.access_log import AccessLog
from app.admin.application import build_admin
from app.configuration import Configuration
from app.gauges import Gauges
from app.logs import LineWriter
from app.main import build_chain, make_transport
from app.metrics import Metrics
from app.picker_configuration import PickerConfigurationFile
from app.server import HttpServer
from app.settings import Settings
from app.status_writer import StatusTimes, StatusWriter, lease_name
from discovery.snapshot import SnapshotStore
from discovery.sources.backoff import Times
from discovery.sources.kube_access import Access, PodAccess, find_access
from discovery.sources.kube_client import KubeClient
from discovery.sources.kubernetes import KubernetesSource
from discovery.sources.leader import LeaderElection
from middleware.model_extraction import BodyMemory
from middleware.rate_limits import RateLimiter
from middleware.scheduling.configuration import PickerConfiguration
from middleware.scheduling.scheduler import Scheduler
from middleware.shedding import Shedder
from middleware.telemetry import ExchangeObserver, report_refusal
from middleware.traffic_mirroring import MirrorCopies
from middleware.upstream.health_check import HealthChecks
from middleware.upstream.registry import UpstreamRegistry
from middleware.upstream.rule_traffic import RuleTrafficRegistry
from middleware.upstream.scraper import MetricsScraper

if TYPE_CHECKING:
    from app.tracing.spans import Tracing

logger = logging.getLogger(__name__)


class Gateway:
    """The gateway as one object: `start`, then `drain` or `close`. One event loop, no global state."""

    def __init__(
        self,
        settings: Settings,
        *,
        writer: LineWriter,
        is_readable_log: bool = False,
        tracing: Tracing | None = None,
        observers: Sequence[ExchangeObserver] = (),
        access: Access | None = None,
        cluster_times: Times | None = None,
        status_times: StatusTimes | None = None,
    ) -> None:
        """Raises AccessError when a cluster is to be followed and there is no way to one. ``access``,
        ``cluster_times`` and ``status_times`` are given by tests."""
        self.settings = settings
        self.store = SnapshotStore()
        self.registry = UpstreamRegistry(make_transport=make_transport)
        self.scraper = MetricsScraper(registry=self.registry, make_transport=make_transport)
        self.scheduler = Scheduler()
        self.picker = PickerConfigurationFile(settings.picker_config, use=self._use_picker)
        self.rules = RuleTrafficRegistry()
        self.shedder = Shedder(
            scheduler=self.scheduler, registry=self.registry, trusts_objectives=settings.trusts_objective_header
        )
        self.memory = BodyMemory(limit_bytes=settings.max_body_memory_bytes)
        self.limiter = RateLimiter()
        self.health = HealthChecks(registry=self.registry, make_transport=make_transport)
        gauges = Gauges(
            store=self.store,
            registry=self.registry,
            rules=self.rules,
            limiter=self.limiter,
            health=self.health,
            memory=self.memory,
            spans=None if tracing is None else tracing.counts,
        )
        self.metrics = Metrics(gauges=gauges, writer=writer)
        self.copies = MirrorCopies(observers=[self.metrics] if tracing is None else [self.metrics, tracing])
        self.store.subscribe(self.registry.follow)
        self.store.subscribe(self.scraper.follow)  # behind the registry: it knows which upstreams stay
        self.store.subscribe(lambda _: self.scheduler.forget_gone())
        self.store.subscribe(self.rules.follow)
        self.store.subscribe(self.limiter.follow)
        self.store.subscribe(self.health.follow)  # behind the registry, whose upstreams it checks
        self.store.subscribe(self.metrics.follow)
        access_log = AccessLog(writer, is_readable=is_readable_log)
        all_observers: list[ExchangeObserver] = [self.metrics, access_log, *observers]
        if tracing is not None:
            all_observers.insert(0, tracing)  # the others tell the trace's id
        self._is_draining = False
        self._data = HttpServer(
            build_chain(
                store=self.store,
                registry=self.registry,
                rules=self.rules,
                memory=self.memory,
                limiter=self.limiter,
                copies=self.copies,
                scheduler=self.scheduler,
                shedder=self.shedder,
                scraper=self.scraper,
                tells_picks=settings.tells_picks,
                by_port=settings.listens_on_gateway_ports,
                observers=all_observers,
            ),
            report_refusal=partial(report_refusal, all_observers),
        )
        self._admin = HttpServer(
            build_admin(
                store=self.store,
                registry=self.registry,
                limiter=self.limiter,
                rules=self.rules,
                shedder=self.shedder,
                scheduler=self.scheduler,
                metrics=self.metrics,
                is_draining=lambda: self._is_draining,
                waiting_for=self._waiting_for,
            )
        )
        self._client: KubeClient | None = None
        self.cluster: KubernetesSource | None = None
        if settings.watches_cluster:
            self._client = KubeClient(access if access is not None else find_access())
            self.cluster = KubernetesSource(self._client, namespaces=settings.namespaces, times=cluster_times)
            self.metrics.cluster = self.cluster.report
            self.registry.absent.is_uninformed = lambda: self.cluster is not None and self.cluster.is_uninformed
        self.configuration = Configuration(
            settings,
            store=self.store,
            metrics=self.metrics,
            cluster=self.cluster,
            on_deleted_pods=self.registry.end_streams_of,
        )
        self._statuses = self._make_status_writer(status_times)
        self._opening: asyncio.Task[None] | None = None
        self.ports: list[int] = []
        self.admin_port = settings.admin_port

    def _make_status_writer(self, times: StatusTimes | None) -> StatusWriter | None:
        if self._client is None or self.cluster is None:
            return None
        settings, access = self.settings, self._client.access
        pod = os.environ.get("HOSTNAME") if isinstance(access, PodAccess) else None
        election = LeaderElection(
            self._client,
            namespace=lambda: access.namespace,
            name=lease_name(settings.controller_name, settings.gateway),
            identity=f"{pod or 'pointsman'}_{secrets.token_hex(4)}",
            on_change=self.cluster.status_changed.set,
        )
        return StatusWriter(
            client=self._client,
            cluster=self.cluster,
            store=self.store,
            election=election,
            controller_name=settings.controller_name,
            gateway=settings.gateway,
            pod=pod,
            times=times,
        )

    @property
    def port(self) -> int:
        """The data port, the first where there are several."""
        return self.ports[0]

    @property
    def requests_running(self) -> int:
        """How many requests the data port is answering."""
        return self._data.running

    async def start(self) -> None:
        """Configure and listen. Raises ConfigurationRefusedError and OSError; nothing is left open then.

        With a cluster only the admin port listens at first; the data port follows once the cluster is known.
        """
        self.picker.load()
        self.configuration.load()
        try:
            self.admin_port = await self._admin.listen(self.settings.admin_host, self.settings.admin_port)
            self.metrics.loop_lag.start()
            if self.cluster is not None:
                logger.info("asking the cluster, admin on %s:%d", self.settings.admin_host, self.admin_port)
                self.configuration.follow()
                self.picker.follow()
                self._opening = asyncio.create_task(self._open_when_known())
                return
            await self._open()
            self.configuration.follow()
            self.picker.follow()
        except BaseException:
            await self.close()
            raise

    async def wait_serving(self) -> None:
        """Until the data port listens. Raises OSError when it cannot."""
        if self._opening is not None:
            await asyncio.shield(self._opening)

    async def _open_when_known(self) -> None:
        await self.store.wait_ready()
        await self._open()
        if self._statuses is not None:
            self._statuses.start()

    async def _open(self) -> None:
        routing = self.store.current.routing
        ports = [self.settings.port]
        if self.settings.listens_on_gateway_ports:
            ports = sorted({listener.port for listener in routing.listeners if listener.port is not None}) or ports
        self.ports = [await self._data.listen(self.settings.host, port) for port in ports]
        if self.settings.listens_on_gateway_ports:
            self.configuration.bound_ports = frozenset(self.ports)
        logger.info(
            "serving %d rules on %s:%s, admin on %s:%d",
            len(routing.rules),
            self.settings.host,
            ",".join(map(str, self.ports)),
            self.settings.admin_host,
            self.admin_port,
        )

    def _waiting_for(self) -> Sequence[str]:
        return self.cluster.waiting_for() if self.cluster is not None else ()

    def reread(self) -> None:
        """Read every file again, changed or not."""
        self.configuration.reread()
        self.picker.reread()

    def _use_picker(self, configuration: PickerConfiguration) -> None:
        self.scheduler.configuration = configuration
        self.scraper.path = configuration.metrics_path.encode("ascii")

    async def drain(self) -> None:
        """Stop taking requests and let the running ones end, as the module's docstring says."""
        settings = self.settings
        self._is_draining = True
        if self._opening is not None and not self._opening.done():
            self._opening.cancel()
        self._data.start_draining()
        logger.info("draining: %d requests running", self.requests_running)
        await asyncio.sleep(settings.drain_grace_seconds)
        self._data.stop_listening()
        try:
            async with asyncio.timeout(settings.drain_timeout_seconds):
                await self._data.wait_drained()
        except TimeoutError:
            logger.warning("the drain timeout is over: cutting %d requests", self.requests_running)
            await self._data.cut()

    async def close(self) -> None:
        """Cut what runs and free every socket, the admin port last. Safe after ``drain`` and instead of it."""
        self._is_draining = True
        self.metrics.loop_lag.close()
        if self._opening is not None:
            self._opening.cancel()
            await asyncio.wait({self._opening})
        await self.configuration.close()
        await self.picker.close()
        if self._statuses is not None:
            await self._statuses.close()
        if self._client is not None:
            await self._client.close()
        await self._data.close()
        await self.copies.close()
        await self.scraper.close()
        await self.health.close()
        self.registry.close()
        await self._admin.close()
