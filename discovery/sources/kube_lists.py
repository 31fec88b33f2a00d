"""How does a list come whole? Page by page, all of one moment, or at once where that takes the server too long."""

from __future__ import annotations

import msgspec

from discovery.sources.kube_client import KubeClient, KubeError

PAGE = 500  # objects


class _Metadata(msgspec.Struct):
    resourceVersion: str = ""  # as the API has it
    continue_: str = msgspec.field(default="", name="continue")


class _Page(msgspec.Struct):
    metadata: _Metadata = msgspec.field(default_factory=_Metadata)
    items: list[msgspec.Raw] | None = None


class Listed(msgspec.Struct):
    """A whole list, and the resourceVersion that a watch goes on from."""

    version: str
    items: list[msgspec.Raw]


_decode = msgspec.json.Decoder(_Page).decode


async def list_all(client: KubeClient, path: str, *, selector: str = "") -> Listed:
    """Everything at a path; without a resourceVersion the answer is consistent. Raises KubeError."""
    base = {"labelSelector": selector} if selector else {}
    items: list[msgspec.Raw] = []
    token = ""
    while True:
        query = {**base, "limit": str(PAGE), **({"continue": token} if token else {})}
        try:
            page = _read(await client.request("GET", path, query=query))
        except KubeError as error:
            if error.status != 410 or not token:
                raise
            items.clear()  # it took longer than the server keeps its past
            page = _read(await client.request("GET", path, query=base))
        items += page.items or ()
        before, token = token, page.metadata.continue_
        if token and token == before:
            raise KubeError("the list has no end: each page goes on with itself")
        if not token:
            return Listed(version=page.metadata.resourceVersion, items=items)


async def current_version(client: KubeClient, path: str) -> str:
    """The resourceVersion of this moment, for as little as it can be had. Raises KubeError."""
    return _read(await client.request("GET", path, query={"limit": "1"})).metadata.resourceVersion


def read_version(data: bytes | msgspec.Raw) -> str:
    """The resourceVersion of a bookmark; "" where it has none. The rest of a bookmark means nothing."""
    try:
        return msgspec.json.decode(data, type=_Page).metadata.resourceVersion
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return ""


def _read(body: bytes) -> _Page:
    try:
        page = _decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise KubeError("the answer to a list is no list") from None
    if not page.metadata.resourceVersion:
        raise KubeError("the answer to a list has no resourceVersion")
    return page
