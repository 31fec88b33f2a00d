"""What does a large configuration cost? Checking 1,000 objects, and the event loop's gaps while 10,000 models change.

`make bench-configuration` prints both beside the bounds of issue 3. The check is shown in multiples of what PyYAML's C
parser alone takes for the same text, in the same run.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from contextlib import aclosing
from pathlib import Path

import uvloop
import yaml

from discovery.load import Loader, load

MODELS = 10_000
RULES_OF_A_ROUTE = 10
CHECKED_ROUTES = 500
ALLOWED_CHECK_SECONDS = 2.0
ALLOWED_GAP_SECONDS = 0.05
TICK_SECONDS = 0.002

_BACKEND = """---
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: Backend
metadata: {name: b%d}
spec: {endpoints: [{ip: {address: 10.0.0.1, port: 8000}}]}
"""
_ROUTE = "---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: r%d}\nspec:\n  rules:\n"
_RULE = """  - matches: [{headers: [{name: x-gateway-model-name, value: org/model-%d}]}]
    backendRefs: [{group: gateway.envoyproxy.io, kind: Backend, name: b0, weight: %d}]
"""


def manifests(models: int, *, rules: int, weight: int = 1, backends: int = 1) -> str:
    """HTTPRoutes with so many rules each, one per model, and so many Backends."""
    routes = (
        _ROUTE % first + "".join(_RULE % (number, weight) for number in range(first, first + rules))
        for first in range(0, models, rules)
    )
    return "".join(_BACKEND % number for number in range(backends)) + "".join(routes)


def check_seconds(folder: Path) -> tuple[float, float]:
    """CPU seconds of reading and compiling 1,000 objects, and of PyYAML's C parser alone for the same text."""
    file = folder / "check.yaml"
    file.write_text(manifests(3 * CHECKED_ROUTES, rules=3, backends=1_000 - CHECKED_ROUTES))
    load([file]).compile()  # schemas are read and prepared once
    started = time.process_time()
    load([file]).compile()
    ours = time.process_time() - started
    started = time.process_time()
    for _ in yaml.load_all(file.read_text(), Loader=yaml.CSafeLoader):
        pass
    return ours, time.process_time() - started


async def reload_gaps(folder: Path) -> list[float]:
    """How long a task that is due every 2 ms had to wait, sorted, while every model of 10,000 changes."""
    file = folder / "reload.yaml"
    file.write_text(manifests(MODELS, rules=RULES_OF_A_ROUTE))
    waits: list[float] = []

    async def tick() -> None:
        last = time.perf_counter()
        while True:
            await asyncio.sleep(TICK_SECONDS)
            now = time.perf_counter()
            waits.append(now - last - TICK_SECONDS)
            last = now

    async with aclosing(Loader([file]).watch()) as changes:
        first = await (await anext(changes)).compile_in_slices()
        ticking = asyncio.create_task(tick())
        file.write_text(manifests(MODELS, rules=RULES_OF_A_ROUTE, weight=2))
        loaded = await anext(changes)
        await loaded.compile_in_slices(previous=first)
        ticking.cancel()
        await asyncio.wait({ticking})
    return sorted(waits)


def main() -> int:
    """Print both figures. Returns 0; they are for reading, not for judging."""
    with tempfile.TemporaryDirectory(prefix="pointsman-bench-") as name:
        ours, parser = check_seconds(Path(name))
        print(f"check of 1,000 objects: {ours:.2f} s CPU, {ours / parser:.1f} times PyYAML's C loader ({parser:.2f} s)")
        print(f"  allowed: {ALLOWED_CHECK_SECONDS:.0f} s")
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            gaps = runner.run(reload_gaps(Path(name)))
        share = sum(gap > ALLOWED_GAP_SECONDS for gap in gaps) / len(gaps)
        p999 = gaps[int(len(gaps) * 0.999)]
        print(
            f"reload of {MODELS:,} models, gaps of the event loop: p99.9 {p999 * 1000:.0f} ms, "
            f"longest {gaps[-1] * 1000:.0f} ms, {share:.2%} above {ALLOWED_GAP_SECONDS * 1000:.0f} ms"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
