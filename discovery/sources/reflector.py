"""What does the cluster hold of one kind, in one place? A list, and a watch from where the list ended, for ever.

What client-go's reflector does, for a server that fails in every way: the state of the last complete list and of the
events since then serves until something newer is known. A watch that ends goes on from its last resourceVersion; one
that the server cannot go on with (410) starts over with a list. Watches end after some minutes, on both sides, because
a connection can be dead, and a server restored from a backup silent, without a sign; after some of them the kind is
listed anew, which heals whatever was lost.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import NoReturn

import msgspec

from discovery.slices import run_in_slices
from discovery.sources.backoff import Backoff, Times
from discovery.sources.held_objects import HeldObjects, ObjectId
from discovery.sources.kube_client import KubeClient, KubeError, read_error_event
from discovery.sources.kube_kinds import PLANNED, WatchedKind
from discovery.sources.kube_lists import current_version, list_all, read_version
from discovery.sources.kube_objects import StoredObject, UnreadableError
from discovery.sources.watch_lines import LineBuffer, LineTooLongError

logger = logging.getLogger(__name__)


class _Event(msgspec.Struct):
    type: str
    object: msgspec.Raw = msgspec.Raw(b"null")


_decode_event = msgspec.json.Decoder(_Event).decode


class Reflector:
    """One kind, in one namespace or in all, with a label selector. ``objects`` is its last known state.

    ``on_change`` is called after each change of a resource or of what is wrong with one, ``on_status`` after a change
    of nothing but a status. ``on_deleted`` is told what was deleted, ``on_left`` what may only have left the selector.
    ``on_refused`` is called, instead of a warning, where the kind may not be read and never was.
    """

    def __init__(
        self,
        client: KubeClient,
        kind: WatchedKind,
        *,
        namespace: str | None = None,
        selector: str = "",
        wants: Callable[[StoredObject], bool] = lambda stored: True,
        on_change: Callable[[], None],
        on_status: Callable[[], None] = lambda: None,
        on_deleted: Callable[[StoredObject], None] = lambda stored: None,
        on_left: Callable[[StoredObject], None] = lambda stored: None,
        on_refused: Callable[[], None] | None = None,
        times: Times | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self.kind = kind
        self.namespace = namespace
        self.selector = selector
        self.is_listed = False  # whether there was ever a whole list, or the word that the kind is not there
        self.is_missing = False  # no such kind in this cluster
        self.is_forbidden = False
        self.problem = ""  # why it is not up to date; "" while it is
        self.synced_at: float | None = None  # when the server last said anything
        self.started_at = clock()
        self.failures = 0
        self.events = 0
        self.api_version = kind.versions[0]
        self._client = client
        self._on_change = on_change
        self._on_refused = on_refused
        self._times = times or Times()
        self._clock = clock
        self._sleep = sleep
        self._draw = draw
        self._backoff = self._make_backoff(self._times.backoff_first, self._times.backoff_most)
        self._missing_backoff = self._make_backoff(self._times.missing_least, self._times.missing_most)
        self._version: str | None = None  # where to watch from; None: list first
        self._last_version = ""  # the same, and kept when it is of no use any more
        self._has_bookmarks = False  # whether this server sends any
        self._watched_since: float | None = None  # when the last watch was open
        self._was_away = False  # the server, when a watch was to be opened
        self._objects_told = 0  # events about objects
        self._listed_at = 0.0
        self._missing_since: float | None = None
        self._expired_at = -math.inf
        self._told_problem = ""
        self._held = HeldObjects(
            kind,
            where=self.where,
            has_selector=bool(selector),
            wants=wants,
            on_change=on_change,
            on_status=on_status,
            on_deleted=on_deleted,
            on_left=on_left,
            quiet_seconds=self._times.silence,
            clock=clock,
        )

    @property
    def objects(self) -> dict[ObjectId, StoredObject]:
        """What is known, by namespace and name."""
        return self._held.by_id

    @property
    def dropped(self) -> int:
        """How many events and objects could not be read."""
        return self._held.dropped

    @property
    def where(self) -> str:
        """Such as "pods in default with app=qwen", for logs."""
        place = f" in {self.namespace}" if self.namespace else ""
        return f"{self.kind.name}{place}" + (f" with {self.selector}" if self.selector else "")

    def is_up_to_date(self) -> bool:
        """Whether a watch is open, or the kind known to be missing."""
        return self.is_listed and not self.problem

    async def run(self) -> NoReturn:
        """Follow the kind until cancelled. Raises nothing else."""
        while True:
            delay = 0.0
            try:
                if self._version is not None and self._was_away:
                    await self._look_back()
                if self._version is None:
                    await self._list()
                await self._watch()
                delay = self._times.pause * self._draw()
            except KubeError as error:
                delay = self._after(error)
            except Exception:  # a defect must not end the following of a kind for good
                logger.exception("following %s failed; listing again", self.where)
                self._version = None
                self._note_problem("a defect, see the log")
                delay = self._backoff.next()
            if delay:
                await self._sleep(delay)

    # -- listing ------------------------------------------------------------------------------------------------------

    async def _list(self) -> None:
        """Replace the whole state by what the server holds. Without a resourceVersion the answer is consistent."""
        listed = await list_all(self._client, self._path(), selector=self.selector)
        version = listed.version
        is_older = _is_older(version, self._last_version)
        has_changed = await run_in_slices(self._held.replace(listed.items, self.api_version, is_older=is_older))
        self._version = self._last_version = version
        self._was_away = False
        self._listed_at = self.synced_at = self._clock()
        self._missing_since = None
        was_listed, self.is_listed = self.is_listed, True
        was_missing, self.is_missing = self.is_missing, False
        self.is_forbidden = False
        self._missing_backoff.reset()
        self._solve_problem()
        if has_changed or not was_listed or was_missing:
            self._on_change()

    async def _look_back(self) -> None:
        """A server that was away may be back from a backup: it never tells a watch that its version is to come."""
        assert self._version is not None
        if _is_older(await current_version(self._client, self._path()), self._version):
            logger.warning("%s: the API server went back in time, listing anew", self.where)
            self._version = None
        self._was_away = False

    # -- watching -----------------------------------------------------------------------------------------------------

    async def _watch(self) -> None:
        """Take over events until the watch ends. Raises KubeError, with the version kept or forgotten."""
        assert self._version is not None
        times = self._times
        seconds = times.watch_least + (times.watch_most - times.watch_least) * self._draw()
        query = {
            "watch": "1",
            "allowWatchBookmarks": "true",
            "resourceVersion": self._version,
            "timeoutSeconds": str(max(1, round(seconds))),
            **({"labelSelector": self.selector} if self.selector else {}),
        }
        started, told, self._watched_since = self._clock(), self._objects_told, None
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds + times.watch_grace
        try:
            async with asyncio.timeout_at(deadline) as limit:
                async with self._client.stream(self._path(), query) as chunks:
                    self._solve_problem()
                    self.synced_at = self._watched_since = self._clock()
                    async with aclosing(chunks) as body:
                        lines = LineBuffer()
                        while True:
                            if self._has_bookmarks:
                                limit.reschedule(min(deadline, loop.time() + times.silence))
                            chunk = await anext(body, None)
                            if chunk is None:
                                break
                            for line in lines.feed(chunk):
                                self._take(line)
        except LineTooLongError as error:
            self._version = None
            raise KubeError(str(error)) from None
        except TimeoutError:
            # The server should have ended it, or sent a bookmark: it is not there, or it waits for a version that it
            # has lost (one of before its backup). Only a list tells.
            if loop.time() < deadline:
                self._version = None
        except KubeError as error:
            self._forget_version(error)
            raise
        now = self._clock()
        if now - self._listed_at >= times.relist:
            self._version = None
        if now - started < times.short_watch and self._objects_told == told:
            raise KubeError("a watch ended at once, without an event")

    def _forget_version(self, error: KubeError) -> None:
        """Which failures of a watch mean that it cannot go on from where it was."""
        can_go_on = error.status in (0, 401, 403, 429, 503)
        if not can_go_on:
            self._version = None

    def _take(self, line: bytes) -> None:
        """One event. Raises KubeError for an ERROR event."""
        try:
            event = _decode_event(line)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            self._held.drop(UnreadableError("a line that is no event"))
            return
        self.events += 1
        match event.type:
            case "ADDED" | "MODIFIED":
                self._objects_told += 1
                self._move_on(self._held.put(event.object, self.api_version))
            case "DELETED":
                self._objects_told += 1
                self._move_on(self._held.remove(event.object))
            case "BOOKMARK":
                self._bookmark(event.object)
            case "ERROR":
                raise read_error_event(event.object)
            case _:
                self._held.drop(UnreadableError(f"an event of the unknown type {event.type[:40]}"))
        self.synced_at = self._clock()

    def _bookmark(self, data: msgspec.Raw) -> None:
        version = read_version(data)
        self._move_on(version)
        self._has_bookmarks = self._has_bookmarks or bool(version)

    def _move_on(self, version: str) -> None:
        if version:
            self._version = self._last_version = version

    # -- failing ------------------------------------------------------------------------------------------------------

    def _after(self, error: KubeError) -> float:
        """Take a failure in; the result is how long to wait."""
        self.failures += 1
        if error.status == 404 and self._may_be_missing():
            return self._after_missing()
        self._missing_since = None
        if error.status == 410:
            # At once, since it happens to every watch after a restart of the server; but not again and again.
            self._version = None
            now = self._clock()
            is_first, self._expired_at = now - self._expired_at > self._times.backoff_most, now
            return 0.0 if is_first else self._backoff.next(error.retry_after)
        message = error.message
        if error.status == 403:
            if not self.is_forbidden:
                self.is_forbidden = True
                self._on_change()  # whoever waits may have to do without
            verb = "watch" if self._version is not None else "list"
            self._version = None  # who may list and not watch is told changes by lists
            hint = "" if self.namespace or not self.kind.is_namespaced else "; --namespace asks for less"
            message = f"the service account must be allowed to {verb} {self.where} ({error.message}){hint}"
        self._note_problem(message)
        if error.status == 403:
            # Soon at first: at an installation the Role may come some seconds after us.
            pause = self._backoff.next()
            return pause if pause < self._times.backoff_most else self._times.forbidden * (1.0 + self._draw())
        since, self._watched_since = self._watched_since, None
        if error.status == 0 and since is not None and self._clock() - since >= self._times.short_watch:
            return self._times.pause * self._draw()  # it was cut; whether the server is there shows at the next try
        if error.status == 0 and since is None:
            self._was_away = True
        return self._backoff.next(error.retry_after)

    def _may_be_missing(self) -> bool:
        """Whether 404 can mean that there is no such kind. What every API server has is not gone because of it: what
        answers so is something in between, or another server."""
        return self.kind.has_crd or (self.kind.kind not in PLANNED and (not self.is_listed or self.is_missing))

    def _after_missing(self) -> float:
        """No such kind: the CRD is not installed, or in another version, or was deleted, or its API is being moved."""
        self._version = None
        now = self._clock()
        self._missing_since = now if self._missing_since is None else self._missing_since
        versions = self.kind.versions
        number = versions.index(self.api_version) + 1
        self.api_version = versions[number % len(versions)]
        if number < len(versions):
            return 0.001  # the next version at once
        is_old = now - self._missing_since >= self._times.missing_grace
        if self.is_missing or (self.objects and not is_old):
            return self._missing_backoff.next()
        if not self.is_listed and now - self._missing_since < self._times.missing_least:
            return self._times.missing_least  # asked twice: a server that starts may not know all its kinds yet
        self._held.clear()
        self.is_listed = self.is_missing = True
        self.synced_at = now
        self._solve_problem()
        self._on_change()
        return self._missing_backoff.next()

    def _note_problem(self, problem: str) -> None:
        self.problem = problem
        if problem != self._told_problem:
            self._told_problem = problem
            if self.is_forbidden and not self.is_listed and self._on_refused is not None:
                logger.debug("%s: %s", self.where, problem)
                self._on_refused()
            else:
                logger.warning("%s: %s%s", self.where, problem, "; the last state is used" if self.is_listed else "")

    def _solve_problem(self) -> None:
        if self.problem:
            logger.info("%s: up to date again", self.where)
        self.problem = self._told_problem = ""

    def _path(self) -> str:
        return self.kind.path(self.api_version, self.namespace)

    def _make_backoff(self, first: float, most: float) -> Backoff:
        return Backoff(first=first, most=most, clock=self._clock, draw=self._draw)


def _is_older(version: str, than: str) -> bool:
    """Whether a list comes from a time before an earlier list. Versions are opaque, but for this question."""
    return version.isdigit() and than.isdigit() and int(version) < int(than)
