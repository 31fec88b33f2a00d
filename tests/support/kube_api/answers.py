"""In which words does the tests' API server answer? Heads, Status objects, lists and watch events, as recorded."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from typing import Any

from tests.support.kube_api.kinds import ApiKind
from tests.support.kube_api.store import ApiObject

REASONS = {
    200: "OK",
    201: "Created",
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    409: "Conflict",
    410: "Gone",
    415: "Unsupported Media Type",
    422: "Unprocessable Entity",
    429: "Too Many Requests",
    500: "Internal Server Error",
    503: "Service Unavailable",
    504: "Gateway Timeout",
}
JSON = "application/json"
TEXT = "text/plain; charset=utf-8"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A whole answer."""

    status: int = 200
    content_type: str = JSON
    body: bytes = b""
    retry_after: int | None = None

    def encode(self) -> bytes:
        """The bytes on the wire."""
        lines = [
            f"HTTP/1.1 {self.status} {REASONS.get(self.status, 'Unknown')}",
            "Cache-Control: no-cache, private",
            f"Content-Type: {self.content_type}",
            f"Content-Length: {len(self.body)}",
        ]
        if self.retry_after is not None:
            lines.append(f"Retry-After: {self.retry_after}")
        return ("\r\n".join(lines) + "\r\n\r\n").encode() + self.body


class ApiError(Exception):
    """What a request is answered with instead of what it asked for."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.status)
        self.answer = answer


def dumps(value: object) -> bytes:
    """One line of JSON, as the server writes it."""
    return json.dumps(value, separators=(",", ":")).encode() + b"\n"


def status(
    code: int,
    message: str,
    reason: str | None,
    *,
    details: dict[str, Any] | None = None,
    metadata: dict[str, Any] | None = None,
    retry_after: int | None = None,
) -> Answer:
    """A failure as a Status object; without a reason where the server gives none."""
    return Answer(
        status=code,
        body=dumps(status_object(code, message, reason, details=details, metadata=metadata)),
        retry_after=retry_after,
    )


def status_object(
    code: int,
    message: str,
    reason: str | None,
    *,
    details: dict[str, Any] | None = None,
    metadata: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """The Status alone, as an ERROR event carries it."""
    body: dict[str, Any] = {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": metadata or {},
        "status": "Failure",
        "message": message,
    }
    if reason is not None:
        body["reason"] = reason
    if details is not None:
        body["details"] = details
    body["code"] = code
    return body


def not_served() -> Answer:
    """A group, version or resource that there is not (a CRD that is not installed)."""
    return Answer(status=404, content_type=TEXT, body=b"404 page not found\n")


def not_found(kind: ApiKind, name: str) -> Answer:
    """An object that there is not."""
    details = {"name": name, **({"group": kind.group} if kind.group else {}), "kind": kind.plural}
    return status(404, f'{kind.qualified} "{name}" not found', "NotFound", details=details)


def conflict(kind: ApiKind, name: str) -> Answer:
    """The object was changed since it was read."""
    message = (
        f'Operation cannot be fulfilled on {kind.qualified} "{name}": the object has been modified; please apply your '
        "changes to the latest version and try again"
    )
    details = {"name": name, **({"group": kind.group} if kind.group else {}), "kind": kind.plural}
    return status(409, message, "Conflict", details=details)


def already_exists(kind: ApiKind, name: str) -> Answer:
    """Somebody else made it first."""
    details = {"name": name, **({"group": kind.group} if kind.group else {}), "kind": kind.plural}
    return status(409, f'{kind.qualified} "{name}" already exists', "AlreadyExists", details=details)


def unauthorized() -> Answer:
    """A token that the server does not take."""
    return status(401, "Unauthorized", "Unauthorized")


def forbidden(kind: ApiKind, verb: str, namespace: str | None, user: str, name: str = "") -> Answer:
    """RBAC does not allow it."""
    where = f'in the namespace "{namespace}"' if namespace else "at the cluster scope"
    subject = f'{kind.qualified} "{name}"' if name else kind.qualified
    what = f'resource "{kind.plural}" in API group "{kind.group}" {where}'
    message = f'{subject} is forbidden: User "{user}" cannot {verb} {what}'
    details = {**({"name": name} if name else {}), **({"group": kind.group} if kind.group else {}), "kind": kind.plural}
    return status(403, message, "Forbidden", details=details)


def too_many_requests() -> Answer:
    """Priority and fairness, or the limit of requests in flight."""
    body = b"Too many requests, please try again later.\n"
    return Answer(status=429, content_type=TEXT, body=body, retry_after=1)


def storage_initializing() -> Answer:
    """A server that has just started."""
    details = {"retryAfterSeconds": 1}
    return status(429, "storage is (re)initializing", "TooManyRequests", details=details, retry_after=1)


def expired(asked: int, oldest: int) -> dict[str, Any]:
    """The one event of a watch from a resourceVersion that the window does not reach."""
    return status_object(410, f"too old resource version: {asked} ({oldest})", "Expired")


def version_too_large(asked: int, current: int) -> Answer:
    """A list at a resourceVersion from the future."""
    details = {
        "causes": [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}],
        "retryAfterSeconds": 1,
    }
    message = f"Timeout: Too large resource version: {asked}, current: {current}"
    return status(504, message, "Timeout", details=details, retry_after=1)


def continue_expired(start: str) -> Answer:
    """A continue token of a list that is too old; its metadata continues an inconsistent rest."""
    message = "The provided continue parameter is too old to display a consistent list result."
    return status(410, message, "Expired", metadata={"continue": continue_token(-1, start)})


def continue_token(version: int, start: str) -> str:
    """Where the next page of a list begins."""
    text = json.dumps({"v": "meta.k8s.io/v1", "rv": version, "start": start}, separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def read_continue(token: str) -> tuple[int, str]:
    """What ``continue_token`` made."""
    data = json.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
    return data["rv"], data["start"]


def in_version(obj: ApiObject, kind: ApiKind, version: str) -> ApiObject:
    """The object in the version that was asked for."""
    return {**obj, "apiVersion": kind.api_version(version)}


def list_body(
    kind: ApiKind, version: str, items: list[ApiObject], *, resource_version: int, token: str, remaining: int | None
) -> bytes:
    """A list. Items of built-in kinds have no kind and no apiVersion, those of custom resources do."""
    metadata: dict[str, Any] = {"resourceVersion": str(resource_version)}
    if token:
        metadata["continue"] = token
        if remaining is not None:
            metadata["remainingItemCount"] = remaining
    listed = [
        in_version(obj, kind, version)
        if kind.is_custom
        else {key: value for key, value in obj.items() if key not in ("kind", "apiVersion")}
        for obj in items
    ]
    return dumps(
        {"kind": f"{kind.kind}List", "apiVersion": kind.api_version(version), "metadata": metadata, "items": listed}
    )


def bookmark(kind: ApiKind, version: str, resource_version: int) -> dict[str, Any]:
    """Only a resourceVersion, and of pods the junk that the server adds."""
    metadata: dict[str, Any] = {"resourceVersion": str(resource_version)}
    obj: dict[str, Any] = {"kind": kind.kind, "apiVersion": kind.api_version(version), "metadata": metadata}
    if kind.kind == "Pod":
        metadata["creationTimestamp"] = None
        obj |= {"spec": {"containers": None}, "status": {}}
    return {"type": "BOOKMARK", "object": obj}
