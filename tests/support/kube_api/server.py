"""How does the tests' API server answer a request, and how does it fail? Raw asyncio, so that every fault is possible.

What it holds is changed through `create`, `update`, `set_status`, `terminate` and `delete`, from the test, as kubectl
and the controllers of a cluster would; every open watch learns of it.
"""

from __future__ import annotations

import asyncio
import base64
import json
import random
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qsl, urlsplit

from tests.support.kube_api import answers
from tests.support.kube_api.answers import Answer, ApiError
from tests.support.kube_api.kinds import ApiKind
from tests.support.kube_api.selectors import BadSelectorError, Selector, parse_selector
from tests.support.kube_api.store import ApiObject, ConflictError, ObjectStore, StoredEvent
from tests.support.kube_api.watching import End, WatchStream, reset
from tests.support.ports import free_port

ANONYMOUS = "system:anonymous"
TOKEN = "test-token"


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiRequest:
    """A request as it was understood."""

    verb: str  # list, watch, get, create, update, patch, delete
    kind: ApiKind
    version: str
    namespace: str | None
    name: str = ""
    subresource: str = ""
    query: dict[str, str] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass(slots=True, kw_only=True)
class _Failure:
    answer: Answer
    count: int
    plural: str | None
    verb: str | None


class KubeApi:
    """`async with KubeApi() as api:` is an API server at api.url; `api.kubeconfig(folder)` is how to reach it."""

    def __init__(
        self,
        *,
        store: ObjectStore | None = None,
        host: str = "127.0.0.1",
        bookmark_seconds: float = 60.0,
        future_version_seconds: float = 0.05,
        watch_buffer: int = 10_000,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.store = store or ObjectStore()
        self.store.on_event = self._tell
        self.host = host
        self.port = 0
        self.users = {TOKEN: "system:serviceaccount:default:pointsman"}
        self.denied: set[tuple[str, str, str | None]] = set()  # (verb, plural, namespace); None: wherever
        self.requests: list[ApiRequest] = []
        self.streams: set[WatchStream] = set()
        self.bookmark_seconds = bookmark_seconds
        self.future_version_seconds = future_version_seconds
        self.watch_buffer = watch_buffer
        self._tls = tls
        self._failures: list[_Failure] = []
        self._thawed = asyncio.Event()
        self._thawed.set()
        self._changed = asyncio.Condition()
        self._server: asyncio.Server | None = None
        self._tasks: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self._tellings: set[asyncio.Task[None]] = set()

    # -- the process --------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        await self.listen()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.refuse()
        self._thawed.set()
        for task in [*self._tasks, *self._tellings]:
            task.cancel()
        await asyncio.gather(*self._tasks, *self._tellings, return_exceptions=True)

    async def listen(self) -> None:
        """Take connections, again at the same port after ``refuse``."""
        self.port = self.port or free_port(self.host)
        self._server = await asyncio.start_server(self._serve, self.host, self.port, ssl=self._tls)

    def refuse(self) -> None:
        """New connections are refused, as from SIGTERM on; open watches live."""
        if self._server is not None:
            self._server.close()
            self._server = None

    def restart(self) -> None:
        """Every connection is reset, and the window of past events starts anew."""
        self.store.forget()
        for task, writer in list(self._tasks.items()):
            reset(writer)
            task.cancel()

    def freeze(self) -> None:
        """Nothing is sent any more, on no connection, and nothing is closed."""
        self._thawed.clear()

    def thaw(self) -> None:
        """What was held back is sent."""
        self._thawed.set()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"{'https' if self._tls else 'http'}://{self.host}:{self.port}"

    def use_tls(self, context: ssl.SSLContext) -> None:
        """Another certificate, from the next ``listen`` on."""
        self._tls = context

    def kubeconfig(self, folder: Path, *, token: str = TOKEN, ca: str = "") -> Path:
        """A kubeconfig file for this server, with a certificate authority inside where one is given."""
        path = folder / "kubeconfig"
        cluster = {"server": self.url}
        if ca:
            cluster["certificate-authority-data"] = base64.b64encode(ca.encode()).decode()
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "test", "cluster": cluster}],
            "users": [{"name": "test", "user": {"token": token}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
            "current-context": "test",
        }
        path.write_text(json.dumps(config))
        return path

    # -- what it holds ------------------------------------------------------------------------------------------------

    def create(self, obj: ApiObject) -> ApiObject:
        """A new object."""
        return self.store.create(obj)

    def update(self, obj: ApiObject) -> ApiObject:
        """The object of this name as it is from now on; its status stays where the kind has a status of its own."""
        return self.store.update(
            {**obj, "metadata": {k: v for k, v in obj["metadata"].items() if k != "resourceVersion"}}
        )

    def get(self, plural: str, name: str, namespace: str = "default", *, group: str | None = None) -> ApiObject:
        """An object as it is now. Raises KeyError."""
        kind = self.store.find_kind(plural, group)
        found = self.store.get(kind, namespace if kind.is_namespaced else "", name)
        if found is None:
            raise KeyError(name)
        return found

    def set_status(self, plural: str, name: str, status: ApiObject, namespace: str = "default") -> None:
        """What its controller says of an object."""
        self.store.set_status(self.store.find_kind(plural), namespace, name, status)

    def terminate(self, plural: str, name: str, namespace: str = "default") -> None:
        """The first step of a graceful deletion."""
        self.store.terminate(self.store.find_kind(plural), namespace, name)

    def delete(self, plural: str, name: str, namespace: str = "default") -> None:
        """Take an object away."""
        kind = self.store.find_kind(plural)
        self.store.delete(kind, namespace if kind.is_namespaced else "", name)

    # -- faults -------------------------------------------------------------------------------------------------------

    def fail_next(self, answer: Answer, *, count: int = 1, plural: str | None = None, verb: str | None = None) -> None:
        """Answer so many requests (of a kind, of a verb) with this instead."""
        self._failures.append(_Failure(answer=answer, count=count, plural=plural, verb=verb))

    def stop_failing(self) -> None:
        """Forget every ``fail_next``."""
        self._failures.clear()

    def end_watches(self, how: End = "clean", *, plural: str | None = None) -> None:
        """End open watches behind what they were told."""
        for stream in self._streams(plural):
            stream.end(how)

    def send_raw(self, line: bytes, *, plural: str) -> None:
        """Send bytes on open watches as they are."""
        for stream in self._streams(plural):
            stream.raw(line)

    def send_error(self, code: int, *, plural: str, reason: str | None = None) -> None:
        """Send an ERROR event on open watches."""
        for stream in self._streams(plural):
            stream.error(answers.status_object(code, "as the test says", reason))

    def expire_tokens(self, new: str) -> None:
        """Requests with the old token are answered with 401; open watches outlive it."""
        self.users = {new: next(iter(self.users.values()))}

    def remove_crd(self, plural: str) -> ApiKind:
        """Delete a CRD: DELETED for each object, a clean end, then 404."""
        kind = self.store.find_kind(plural)
        self.store.remove_kind(kind)
        self.end_watches("clean", plural=plural)
        return kind

    def install_crd(self, kind: ApiKind) -> None:
        """Install a CRD."""
        self.store.add_kind(kind)

    def touch_crd(self, plural: str) -> None:
        """Change a CRD: watches end, without an event."""
        self.end_watches("clean", plural=plural)

    # -- waiting ------------------------------------------------------------------------------------------------------

    async def wait_request(self, verb: str, plural: str, *, count: int = 1, since: int = 0) -> ApiRequest:
        """The request that makes ``count`` such ones, of those behind the first ``since`` requests."""

        def found() -> list[ApiRequest]:
            return [r for r in self.requests[since:] if (r.verb, r.kind.plural) == (verb, plural)]

        async with asyncio.timeout(20), self._changed:
            await self._changed.wait_for(lambda: len(found()) >= count)
        return found()[count - 1]

    # -- requests -----------------------------------------------------------------------------------------------------

    def _streams(self, plural: str | None) -> list[WatchStream]:
        return [stream for stream in self.streams if plural in (None, stream.kind.plural)]

    def _tell(self, event: StoredEvent) -> None:
        for stream in self.streams:
            stream.feed(event)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks[task] = writer
        try:
            while await self._serve_one(reader, writer):
                pass
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass  # the client hung up, or the test is over
        finally:
            self._tasks.pop(task, None)
            writer.close()

    async def _serve_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        method, target, _ = head[0].split(" ")
        headers = {}
        for line in head[1:]:
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        await self._thawed.wait()
        try:
            request = self._understand(method, target, headers, body)
            self.requests.append(request)
            await self._notify()
            await self._admit(request)
            if request.verb == "watch":
                return await self._watch(request, writer)
            answer = await self._answer(request)
        except ApiError as error:
            answer = error.answer
        await self._thawed.wait()
        if writer.is_closing():  # the client has gone
            return False
        writer.write(answer.encode())
        await writer.drain()
        return True

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    def _understand(self, method: str, target: str, headers: dict[str, str], body: bytes) -> ApiRequest:
        parts = urlsplit(target)
        steps = parts.path.strip("/").split("/")
        query = dict(parse_qsl(parts.query, keep_blank_values=True))
        if steps[0] == "api":
            group, version, rest = "", steps[1], steps[2:]
        elif steps[0] == "apis" and len(steps) >= 4:
            group, version, rest = steps[1], steps[2], steps[3:]
        else:
            raise ApiError(answers.not_served())
        namespace = None
        if rest[0] == "namespaces" and len(rest) >= 3:
            namespace, rest = rest[1], rest[2:]
        kind = self.store.kinds.get((group, rest[0]))
        if kind is None:
            kind = ApiKind(group=group, versions=(), plural=rest[0], kind="")
        name = rest[1] if len(rest) > 1 else ""
        is_watch = query.get("watch", "").lower() in ("1", "true")
        verb = {"GET": "get" if name else "watch" if is_watch else "list", "POST": "create", "PUT": "update"}.get(
            method, method.lower()
        )
        return ApiRequest(
            verb=verb,
            kind=kind,
            version=version,
            namespace=namespace,
            name=name,
            subresource=rest[2] if len(rest) > 2 else "",
            query=query,
            headers=headers,
            body=body,
        )

    async def _admit(self, request: ApiRequest) -> None:
        for failure in self._failures:
            if failure.plural in (None, request.kind.plural) and failure.verb in (None, request.verb):
                failure.count -= 1
                if failure.count <= 0:
                    self._failures.remove(failure)
                raise ApiError(failure.answer)
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        user = ANONYMOUS
        if scheme:
            user = self.users.get(token, "")
            if not user:
                raise ApiError(answers.unauthorized())
        plural = request.kind.plural + (f"/{request.subresource}" if request.subresource else "")
        denied = {(request.verb, plural, request.namespace), (request.verb, plural, None)} & self.denied
        if user == ANONYMOUS or denied:
            raise ApiError(answers.forbidden(request.kind, request.verb, request.namespace, user, request.name))
        if request.version not in request.kind.versions:
            raise ApiError(answers.not_served())

    async def _answer(self, request: ApiRequest) -> Answer:
        kind, name = request.kind, request.name
        namespace = request.namespace or ("default" if kind.is_namespaced else "")
        if request.verb == "list":
            return await self._list(request)
        if request.verb == "create":
            obj = json.loads(request.body)
            obj["metadata"]["namespace"] = namespace
            try:
                created = self.store.create({**obj, "apiVersion": kind.api_version(), "kind": kind.kind})
            except ConflictError:
                return answers.already_exists(kind, obj["metadata"]["name"])
            return self._object(created, request, 201)
        current = self.store.get(kind, namespace, name)
        if current is None:
            return answers.not_found(kind, name)
        if request.verb == "get":
            return self._object(current, request)
        if request.verb == "delete":
            return self._object(self.store.delete(kind, namespace, name), request)
        given = json.loads(request.body)
        if request.verb == "patch":
            if request.headers.get("content-type") != "application/merge-patch+json":
                return answers.status(415, "only merge patches here", "UnsupportedMediaType")
            given = _merge(current, given)
        given = {**given, "apiVersion": kind.api_version(), "kind": kind.kind}
        try:
            updated = self.store.update(given, subresource=request.subresource)
        except ConflictError:
            return answers.conflict(kind, name)
        return self._object(updated, request)

    def _object(self, obj: ApiObject, request: ApiRequest, status: int = 200) -> Answer:
        return Answer(status=status, body=answers.dumps(answers.in_version(obj, request.kind, request.version)))

    async def _list(self, request: ApiRequest) -> Answer:
        query, kind = request.query, request.kind
        current = self.store.version
        asked = self._version_of(query)
        if "fieldSelector" in query:
            name = query["fieldSelector"].partition("=")[0]
            return answers.status(400, f"field label not supported: {name}", "BadRequest")
        if asked > current:
            await asyncio.sleep(self.future_version_seconds)
            return answers.version_too_large(asked, current)
        if query.get("resourceVersionMatch") == "Exact" and asked < self.store.oldest:
            return answers.status(410, "The resourceVersion for the provided list is too old.", "Expired")
        selects = self._selector_of(query)
        found = [o for o in self.store.list(kind, request.namespace) if selects(o["metadata"].get("labels") or {})]
        start, version = "", current
        if "continue" in query:
            version, start = answers.read_continue(query["continue"])
            if 0 <= version < self.store.oldest:
                return answers.continue_expired(start)
            version = current if version < 0 else version
            found = [obj for obj in found if _page_key(obj) >= start]
        limit = int(query.get("limit") or 0) or len(found)
        page, rest = found[:limit], found[limit:]
        token = answers.continue_token(version, _page_key(page[-1]) + "\0") if rest else ""
        remaining = None if "labelSelector" in query else len(rest)
        body = answers.list_body(
            kind, request.version, page, resource_version=version, token=token, remaining=remaining
        )
        return Answer(body=body)

    async def _watch(self, request: ApiRequest, writer: asyncio.StreamWriter) -> bool:
        query = request.query
        if "sendInitialEvents" in query:  # as 1.24: the sign to list and watch instead
            message = 'ListOptions.meta.k8s.io "" is invalid: [resourceVersionMatch: Forbidden]'
            raise ApiError(answers.status(422, message, "Invalid", details={"kind": "ListOptions"}))
        after = self._version_of(query)
        stream = WatchStream(
            writer,
            kind=request.kind,
            version=request.version,
            namespace=request.namespace,
            selector=self._selector_of(query),
            after=after,
            timeout_seconds=float(query.get("timeoutSeconds") or random.uniform(1800, 3600)),
            bookmark_seconds=self.bookmark_seconds if query.get("allowWatchBookmarks", "").lower() == "true" else None,
            buffer=self.watch_buffer,
            current_version=lambda: self.store.version,
            thawed=self._thawed.wait,
        )
        if after == 0:
            objects = self.store.list(request.kind, request.namespace)
            selects = self._selector_of(query)
            stream.initial([obj for obj in objects if selects(obj["metadata"].get("labels") or {})])
        elif after < self.store.oldest:
            stream.error(answers.expired(after, self.store.oldest))
            stream.end("clean")
        else:
            for event in self.store.events:
                stream.feed(event)
        self.streams.add(stream)
        await self._notify()
        try:
            return await stream.run()
        finally:
            self.streams.discard(stream)

    def _version_of(self, query: dict[str, str]) -> int:
        text = query.get("resourceVersion") or "0"
        if not text.isdigit():
            message = f'resourceVersion: Invalid value: "{text}": strconv.ParseUint: parsing "{text}": invalid syntax'
            raise ApiError(answers.status(500, message, None))
        return int(text)

    def _selector_of(self, query: dict[str, str]) -> Selector:
        try:
            return parse_selector(query.get("labelSelector", ""))
        except BadSelectorError as error:
            raise ApiError(answers.status(400, str(error), "BadRequest")) from None


def _page_key(obj: ApiObject) -> str:
    return f"{obj['metadata'].get('namespace', '')}/{obj['metadata']['name']}"


def _merge(current: Any, patch: Any) -> Any:
    """RFC 7396."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(current) if isinstance(current, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = _merge(merged.get(key), value)
    return merged
