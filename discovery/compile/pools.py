"""How are a pool's endpoints picked, and which requests does it shed first? Its own fields, its annotation, and the
InferenceObjectives and InferenceModels that name it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import MappingProxyType

from discovery.backend import PoolSettings
from discovery.resources.inference import InferenceModel, InferenceObjective, InferencePool
from discovery.resources.meta import LLM_D, age_of

# Of Alibaba Cloud's Gateway with Inference Extension.
ROUTING_STRATEGY = "inference.networking.x-k8s.io/routing-strategy"
BY_LOAD_ALONE = "DEFAULT"
ROUTING_STRATEGIES = (BY_LOAD_ALONE, "PREFIX_CACHE")

# Requests below 0 are shed when the pool is saturated (InferenceModel's criticality as the extension maps it).
_CRITICALITIES = {"Critical": 1, "Standard": 0, "Sheddable": -1}


def compile_pool(
    pool: InferencePool, objectives: Sequence[InferenceObjective], models: Sequence[InferenceModel]
) -> PoolSettings:
    """``objectives`` and ``models`` are those that refer to this pool."""
    return PoolSettings(
        fails_open=pool.spec.fails_open,
        by_load_alone=pool.metadata.annotations.get(ROUTING_STRATEGY) == BY_LOAD_ALONE,
        priorities=MappingProxyType(dict(_priorities(objectives))),
        model_priorities=MappingProxyType(dict(_model_priorities(models))),
    )


def _priorities(objectives: Sequence[InferenceObjective]) -> Iterator[tuple[str, int]]:
    # An objective of the newer group counts where both have the name.
    for objective in sorted(objectives, key=lambda found: found.group == LLM_D):
        yield objective.name, objective.spec.priority


def _model_priorities(models: Sequence[InferenceModel]) -> Iterator[tuple[str, int]]:
    # The oldest InferenceModel has the name: it comes last and stays.
    for model in sorted(models, key=age_of, reverse=True):
        yield model.spec.model_name, _CRITICALITIES[model.spec.criticality]
