"""Which base model does a name stand for? The adapter maps together, and what is wrong with each.

An adapter belongs to one base model: of two maps that name it the older counts, then the first by namespace and name. A
base model stands for itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from discovery.resources.inference import AdapterMap
from discovery.resources.meta import age_of
from discovery.status import Cause


class Adapters:
    """All adapter maps, by what they say."""

    def __init__(self, maps: Iterable[AdapterMap]) -> None:
        self.causes: list[tuple[AdapterMap, tuple[Cause, ...]]] = []
        owners: dict[str, AdapterMap] = {}
        bases: dict[str, str] = {}
        for found in sorted(maps, key=age_of):
            causes = [Cause(field=fault.field, message=fault.message) for fault in found.faults]
            if not causes:
                bases[found.base_model] = found.base_model
                for name in found.adapters:
                    owner = owners.setdefault(name, found)
                    if owner.base_model != found.base_model:
                        message = f"{name} is an adapter of {owner.base_model} already, in {owner.path}"
                        causes.append(Cause(field="data.adapters", message=message))
            self.causes.append((found, tuple(causes)))
        names = {name: owner.base_model for name, owner in owners.items()}
        self.base_models: Mapping[str, str] = MappingProxyType({**names, **bases})
