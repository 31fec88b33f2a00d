"""Which model is a backend asked for in place of the client's? What InferenceModelRewrites and InferenceModels say.

What a pool's objects say holds for whatever reaches the pool, over whichever rule. For one name the first of these that
has a word on it decides, alone; a name that it leads to is not looked up again:

1. InferenceModelRewrite rules that match the name, the oldest object first, then by name, then in their order;
2. the InferenceModel of that name, where it has targetModels;
3. InferenceModelRewrite rules without matches, in the same order.

So an exact word always beats a generic one, and of two exact ones the newer API's. A modelNameOverride belongs to a
backendRef to an AIServiceBackend, where none of these reach.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from types import MappingProxyType

from discovery.compile.index import Index
from discovery.filters import ModelRewrites, ModelTarget, ModelTargets
from discovery.resources.inference import InferenceModel, InferenceModelRewrite, InferencePool, RewriteRule
from discovery.resources.meta import ObjectKey, age_of
from discovery.status import Cause, Condition, ObjectStatus

MAX_MODEL_NAME = 256  # characters, as of the names that clients may ask for
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


class ModelRewriting:
    """What the InferenceModels and InferenceModelRewrites of a set of resources say, by pool, and their conditions."""

    def __init__(self, index: Index) -> None:
        self._index = index
        self._exact: dict[ObjectKey, dict[str, ModelTargets]] = defaultdict(dict)
        self._generic: dict[ObjectKey, ModelTargets] = {}
        self._statuses: list[ObjectStatus] = []
        self.names: set[str] = set()  # that these objects speak of, on either side
        # Of what has one rank the first counts, so everything is entered in the order of precedence.
        for rewrite in sorted(index.resources.inference_model_rewrites, key=lambda r: (age_of(r), r.group)):
            self._add_rewrite(rewrite)
        self._add_models(sorted(index.resources.inference_models, key=age_of))
        self._rewrites = {
            key: ModelRewrites(by_model=MappingProxyType(self._exact.get(key, {})), generic=self._generic.get(key))
            for key in self._exact.keys() | self._generic.keys()
        }

    def of_pool(self, pool: InferencePool) -> ModelRewrites | None:
        """What requests to this pool are asked as; None where nothing is said."""
        return self._rewrites.get(pool.key)

    def statuses(self) -> Iterator[ObjectStatus]:
        """The conditions of every InferenceModel and InferenceModelRewrite."""
        yield from self._statuses

    def _add_rewrite(self, rewrite: InferenceModelRewrite) -> None:
        pool = self._pool_of(rewrite)
        if pool is None:
            return
        rules = rewrite.spec.rules
        causes = [
            Cause(field=f"spec.rules[{number}].targets[{position}].modelRewrite", message=_UNUSABLE)
            for number, rule in enumerate(rules)
            for position, target in enumerate(rule.targets)
            if not is_usable_name(target.model_rewrite)
        ]
        self._tell(rewrite, causes)
        if causes:
            return
        for rule in rules:
            targets = _targets_of_rule(rule, f"InferenceModelRewrite {rewrite.path}")
            self.names.update(target.name for target in targets.targets)
            for match in rule.matches:
                self._exact[pool.key].setdefault(match.model.value, targets)
                self.names.add(match.model.value)
            if not rule.matches:
                self._generic.setdefault(pool.key, targets)

    def _add_models(self, models: Iterable[InferenceModel]) -> None:
        """A pool has a model once: of two InferenceModels with one name the older counts, then the first by name."""
        owners: dict[tuple[ObjectKey, str], InferenceModel] = {}
        for model in models:
            name = model.spec.model_name
            self.names.add(name)
            pool = self._pool_of(model)
            if pool is None:
                continue
            owner = owners.setdefault((pool.key, name), model)
            if owner is not model:
                message = f"{owner.path} has the name {name} in {pool.path} already"
                self._statuses.append(_status(model, _false(model, "Accepted", "ModelNameInUse", message)))
                continue
            given = model.spec.target_models
            causes = [
                Cause(field=f"spec.targetModels[{number}].name", message=_UNUSABLE)
                for number, target in enumerate(given)
                if not is_usable_name(target.name)
            ]
            self._tell(model, causes)
            if given and not causes:
                targets = _targets(((t.name, t.weight) for t in given), f"InferenceModel {model.path}")
                self.names.update(target.name for target in targets.targets)
                self._exact[pool.key].setdefault(name, targets)

    def _pool_of(self, resource: InferenceModel | InferenceModelRewrite) -> InferencePool | None:
        """The pool that it is for. Without one that is its only condition."""
        ref = resource.spec.pool_ref
        pool = None
        if ref.kind == "InferencePool":
            pool = self._index.find_pool(ref.group, resource.namespace, ref.name)
            reason, message = "BackendNotFound", f"there is no InferencePool {resource.namespace}/{ref.name}"
        else:
            reason, message = "InvalidKind", f"{ref.kind} has no models to rewrite"
        if pool is None:
            self._statuses.append(_status(resource, _false(resource, "ResolvedRefs", reason, message)))
        return pool

    def _tell(self, resource: InferenceModel | InferenceModelRewrite, causes: list[Cause]) -> None:
        condition = Condition(
            type="Accepted", status="True", reason="Accepted", observed_generation=resource.metadata.generation
        )
        if causes:
            message = "; ".join(f"{cause.field}: {cause.message}" for cause in causes)
            condition = _false(resource, "Accepted", "Invalid", message, tuple(causes))
        self._statuses.append(_status(resource, condition))


def override(name: str) -> ModelRewrites:
    """One name in place of every other: a modelNameOverride."""
    return ModelRewrites(generic=_targets([(name, None)], "modelNameOverride"))


def is_usable_name(name: str) -> bool:
    """Whether a model server can be asked for it, and a header can say it."""
    return 0 < len(name) <= MAX_MODEL_NAME and not _CONTROL.search(name)


_UNUSABLE = f"a model's name has 1 to {MAX_MODEL_NAME} characters and no control characters; the object has no effect"


def _targets_of_rule(rule: RewriteRule, source: str) -> ModelTargets:
    return _targets(((target.model_rewrite, target.weight) for target in rule.targets), source)


def _targets(given: Iterable[tuple[str, int | None]], source: str) -> ModelTargets:
    """All without a weight share alike; beside one with a weight those without are never drawn (llm-d)."""
    pairs = list(given)
    is_uniform = all(weight is None for _, weight in pairs)
    targets = tuple(ModelTarget(name=name, weight=1 if is_uniform else weight or 0) for name, weight in pairs)
    return ModelTargets(targets=targets, total_weight=sum(target.weight for target in targets), source=source)


def _status(resource: InferenceModel | InferenceModelRewrite, condition: Condition) -> ObjectStatus:
    return ObjectStatus(
        group=resource.group,
        kind=resource.kind,
        namespace=resource.namespace,
        name=resource.name,
        conditions=(condition,),
    )


def _false(
    resource: InferenceModel | InferenceModelRewrite,
    type_: str,
    reason: str,
    message: str,
    causes: tuple[Cause, ...] = (),
) -> Condition:
    generation = resource.metadata.generation
    return Condition(
        type=type_, status="False", reason=reason, message=message, observed_generation=generation, causes=causes
    )
