"""How does an edit take effect? Reads the manifests at start, follows them and the cluster, publishes what is good.

A change that an API server would not store is refused as a whole: the last good state keeps serving, the log says
what is wrong, and the metrics say so once per new content.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import aclosing

from app.metrics import Metrics
from app.settings import Settings
from discovery.changes import describe_change_in_slices
from discovery.load import Compiled, Loaded, Loader
from discovery.resources.problem import Problem, Severity, told_once
from discovery.scope import Scope
from discovery.snapshot import SnapshotStore
from discovery.sources.kubernetes import KubernetesSource
from discovery.tasks import end

logger = logging.getLogger(__name__)

RESTART_DELAY_SECONDS = 5.0
REMEMBERED_REFUSALS = 100


class ConfigurationRefusedError(Exception):
    """The manifests hold what an API server would not store; nothing is served."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__(f"{len(problems)} problems")
        self.problems = tuple(problems)


class Configuration:
    """The manifests as they are served. ``load`` once, then ``follow`` until ``close``."""

    def __init__(
        self,
        settings: Settings,
        *,
        store: SnapshotStore,
        metrics: Metrics,
        cluster: KubernetesSource | None = None,
        on_deleted_pods: Callable[[frozenset[str]], None] = lambda pods: None,
    ) -> None:
        self._loader = Loader(
            settings.paths,
            models=settings.models,
            ignored_policies=settings.ignored_policies,
            by_port=settings.listens_on_gateway_ports,
            cluster=cluster,
            scope=Scope(gateway=settings.gateway, controller_name=settings.controller_name),
        )
        self._has_cluster = cluster is not None
        self._on_deleted_pods = on_deleted_pods
        self._store = store
        self._metrics = metrics
        self._refused: dict[str, None] = {}  # the last fingerprints that were refused, each counted once
        self.bound_ports: frozenset[int] = frozenset()  # set where each listener has its own
        self._told: frozenset[str] = frozenset()
        self._told_problems: tuple[Problem, ...] = ()
        self._compiled: Compiled | None = None
        self._task: asyncio.Task[None] | None = None

    def load(self) -> None:
        """Read the files and publish. Raises ConfigurationRefusedError; nothing is published then.

        With a cluster nothing is published before that is known, too: files may need its pods.
        """
        loaded = self._loader.load()
        if loaded.is_refused:
            raise ConfigurationRefusedError(loaded.problems)
        if not self._has_cluster:
            self._publish(loaded.compile())

    def follow(self) -> None:
        """From here on changes take effect, in a task that ``close`` ends."""
        self._task = asyncio.create_task(self._follow())

    def reread(self) -> None:
        """Read everything again, changed or not (SIGHUP)."""
        self._loader.reread()

    async def close(self) -> None:
        """Stop following. Safe to call twice."""
        task, self._task = self._task, None
        await end(task)

    async def _follow(self) -> None:
        while True:
            try:
                async with aclosing(self._loader.watch()) as changes:
                    async for loaded in changes:
                        await self._take(loaded)
            except Exception:
                # A defect in reading must not end the following for good: the next edit may be readable.
                self._metrics.is_config_current = False
                logger.exception("following the configuration failed; trying again")
            await asyncio.sleep(RESTART_DELAY_SECONDS)

    async def _take(self, loaded: Loaded) -> None:
        if loaded.is_refused:
            self._metrics.is_config_current = False
            if loaded.fingerprint not in self._refused:
                self._refused[loaded.fingerprint] = None
                if len(self._refused) > REMEMBERED_REFUSALS:
                    del self._refused[next(iter(self._refused))]
                self._metrics.config_rejected += 1
                for problem in loaded.problems:
                    if problem.severity is Severity.REFUSED:
                        logger.error("%s", problem)
                logger.error("the new configuration is refused; the last good one keeps serving")
            return
        before = self._store.current
        compiled = await loaded.compile_in_slices(previous=self._compiled)
        change = await describe_change_in_slices(before, compiled)
        self._publish(compiled)
        self._on_deleted_pods(loaded.deleted_pods)
        if self._store.current is before and self._has_cluster:
            return  # most of what happens in a cluster changes nothing here
        unbound = {i.port for i in compiled.routing.listeners if i.port is not None} - self.bound_ports
        if unbound and self.bound_ports:
            logger.warning("ports are bound at start: restart to listen on %s", ", ".join(map(str, sorted(unbound))))
        logger.info("configuration %d: %s", self._store.current.version, change)

    def _publish(self, compiled: Compiled) -> None:
        current = self._store.current
        self._compiled = compiled
        is_first = not self._store.is_ready
        if is_first or compiled.routing is not current.routing or compiled.membership is not current.membership:
            self._store.publish(compiled.routing, compiled.membership)
        self._metrics.is_config_current = True
        if compiled.problems == self._told_problems:
            return
        self._told_problems = compiled.problems
        told = frozenset(map(str, compiled.problems))
        for problem in told_once(problem for problem in compiled.problems if str(problem) not in self._told):
            level = logging.INFO if problem.is_expected else logging.WARNING
            logger.log(level, "%s", str(problem).removeprefix("warning: "))
        self._told = told
