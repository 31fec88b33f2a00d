"""What may a collector's answer cost? So many bytes and so long, and then its connection; a redirect is a refusal.

The exporter alone would keep an answer of any size in memory, would wait for one that comes in drops for ever, and
would take a redirect, which it does not follow, for a delivery.
"""

from __future__ import annotations

import io
import time

import requests
from requests.adapters import HTTPAdapter

MAX_ANSWER_BYTES = 64 * 1024  # a collector answers with a few; it may name spans that it refuses


class LastStatus:
    """What the collector answered last, which the exporter does not tell; None: nothing, since somebody forgot it."""

    def __init__(self) -> None:
        self.code: int | None = None


class CollectorSession(requests.Session):
    """The exporter's connections."""

    def __init__(self, status: LastStatus) -> None:
        super().__init__()
        for scheme in ("http://", "https://"):
            self.mount(scheme, _BoundedAnswers(status))


class _BoundedAnswers(HTTPAdapter):
    def __init__(self, status: LastStatus) -> None:
        super().__init__()
        self._status = status

    def send(
        self,
        request: requests.PreparedRequest,
        stream: bool = False,
        timeout: float | tuple[float | None, float | None] | None = None,
        verify: bool | str = True,
        cert: str | tuple[str, str] | None = None,
        proxies: dict[str, str] | None = None,
    ) -> requests.Response:
        end = time.monotonic() + (timeout if isinstance(timeout, int | float) else 10.0)
        answer = super().send(request, stream=True, timeout=timeout, verify=verify, cert=cert, proxies=proxies)
        self._status.code = answer.status_code
        left = MAX_ANSWER_BYTES
        while chunk := answer.raw.read1(left, decode_content=False):
            left -= len(chunk)
            if left <= 0 or time.monotonic() > end:
                answer.raw.close()
                break
        answer.raw.release_conn()
        if 300 <= answer.status_code < 400:
            raise requests.RequestException("a redirect")
        answer.raw = io.BytesIO()  # nobody reads what it says beside its status
        return answer
