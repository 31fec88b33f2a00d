"""Are pods found by their labels, as by asking each of them?"""

from __future__ import annotations

import random

from discovery.compile.pod_index import PodIndex
from discovery.resources.core import Pod
from discovery.resources.meta import Metadata, has_labels


def pod(number: int, labels: dict[str, str], namespace: str = "llm") -> Pod:
    return Pod(group="", kind="Pod", metadata=Metadata(name=f"p{number}", namespace=namespace, labels=labels))


def test_it_finds_what_asking_every_pod_finds() -> None:
    draw = random.Random(7)

    def some_labels() -> dict[str, str]:
        return {key: draw.choice("xyz") for key in ("app", "tier", "version") if draw.random() < 0.7}

    pods = [pod(number, some_labels(), draw.choice(["llm", "web"])) for number in range(300)]
    selectors = [(draw.choice(["llm", "web", "none"]), some_labels()) for _ in range(40)]
    index = PodIndex(pods, selectors)
    for namespace, selector in selectors:
        expected = [p for p in pods if p.namespace == namespace and has_labels(p.metadata.labels, selector)]
        assert index.find(namespace, selector) == expected
