"""InferencePool (v1 and v1alpha2 in one form), InferenceModel, InferenceModelRewrite and adapter maps of the Inference
Extension."""

from __future__ import annotations

from typing import Literal

from discovery.resources.meta import Model, Resource

# The label of the ConfigMaps that name the LoRA adapters of a base model, with the value "true".
ADAPTER_MAP_LABEL = "inference.networking.k8s.io/bbr-managed"


class InferencePoolSpec(Model, frozen=True, kw_only=True):
    """The v1 shape; decode.py brings v1alpha2's `selector` map and `targetPortNumber` into it."""

    match_labels: dict[str, str]
    target_ports: tuple[int, ...] = ()  # none: a pool of AIServiceBackends
    app_protocol: str = "http"
    fails_open: bool = True  # unless its endpointPickerRef says FailClose


class InferencePool(Resource, frozen=True, kw_only=True):
    spec: InferencePoolSpec


class PoolReference(Model, frozen=True, kw_only=True):
    group: str = ""
    kind: str = "InferencePool"
    name: str


class TargetModel(Model, frozen=True, kw_only=True):
    name: str
    weight: int | None = None


class InferenceModelSpec(Model, frozen=True, kw_only=True):
    model_name: str
    pool_ref: PoolReference
    target_models: tuple[TargetModel, ...] = ()
    criticality: Literal["Critical", "Standard", "Sheddable"] = "Standard"


class InferenceModel(Resource, frozen=True, kw_only=True):
    spec: InferenceModelSpec


class ModelMatchValue(Model, frozen=True, kw_only=True):
    type: str = "Exact"
    value: str


class ModelMatch(Model, frozen=True, kw_only=True):
    model: ModelMatchValue


class RewriteTarget(Model, frozen=True, kw_only=True):
    model_rewrite: str
    weight: int | None = None


class RewriteRule(Model, frozen=True, kw_only=True):
    matches: tuple[ModelMatch, ...] = ()  # none: every model
    targets: tuple[RewriteTarget, ...]


class InferenceModelRewriteSpec(Model, frozen=True, kw_only=True):
    pool_ref: PoolReference
    rules: tuple[RewriteRule, ...] = ()


class InferenceModelRewrite(Resource, frozen=True, kw_only=True):
    """Of both groups, the Inference Extension's and llm-d's."""

    spec: InferenceModelRewriteSpec


class InferenceObjectiveSpec(Model, frozen=True, kw_only=True):
    priority: int = 0  # negative: sheddable
    pool_ref: PoolReference


class InferenceObjective(Resource, frozen=True, kw_only=True):
    """Of either group, inference.networking.x-k8s.io and llm-d.ai."""

    spec: InferenceObjectiveSpec


class AdapterFault(Model, frozen=True, kw_only=True):
    """Something that is wrong with the text in an adapter map; an API server cannot see it."""

    field: str
    message: str


class AdapterMap(Resource, frozen=True, kw_only=True):
    """A ConfigMap with the label: which adapters a base model has. Names are trimmed, empty ones left out."""

    base_model: str = ""
    adapters: tuple[str, ...] = ()
    faults: tuple[AdapterFault, ...] = ()
