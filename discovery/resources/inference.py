"""InferencePool (v1 and v1alpha2 in one form) and InferenceModel of the Inference Extension."""

from __future__ import annotations

from discovery.resources.meta import Model, Resource


class InferencePoolSpec(Model, frozen=True, kw_only=True):
    """The v1 shape; decode.py brings v1alpha2's `selector` map and `targetPortNumber` into it."""

    match_labels: dict[str, str]
    target_ports: tuple[int, ...] = ()  # none: a pool of AIServiceBackends
    app_protocol: str = "http"


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


class InferenceModel(Resource, frozen=True, kw_only=True):
    spec: InferenceModelSpec
