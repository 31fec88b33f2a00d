"""Which pods have these labels? Without asking every pod for every pool: pods change ten times a second."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

from discovery.resources.core import Pod
from discovery.resources.meta import has_labels


class PodIndex:
    """Pods by namespace and by the values of one label of each selector that will be asked for."""

    def __init__(self, pods: Iterable[Pod], selectors: Iterable[tuple[str, Mapping[str, str]]]) -> None:
        """``selectors`` are those that will be asked for, with their namespaces."""
        keys: defaultdict[str, set[str]] = defaultdict(set)
        for namespace, selector in selectors:
            if selector:
                keys[namespace].add(min(selector))
        self._keys = keys
        self._all: dict[str, list[Pod]] = defaultdict(list)
        self._by_label: dict[tuple[str, str, str], list[Pod]] = defaultdict(list)
        for pod in pods:
            self.add(pod)

    def add(self, pod: Pod) -> None:
        """One more."""
        namespace, labels = pod.metadata.namespace, pod.metadata.labels
        self._all[namespace].append(pod)
        for key in self._keys[namespace]:
            value = labels.get(key)
            if value is not None:
                self._by_label[namespace, key, value].append(pod)

    def find(self, namespace: str, selector: Mapping[str, str]) -> list[Pod]:
        """The pods that a selector takes, in their order; an empty one takes all."""
        if not selector:
            return self._all.get(namespace, [])
        key = min(selector)
        candidates = self._by_label.get((namespace, key, selector[key]), [])
        if len(selector) == 1:
            return candidates
        return [pod for pod in candidates if has_labels(pod.metadata.labels, selector)]
