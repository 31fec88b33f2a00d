"""What does one rule of a route do? Its backendRefs, filters and models, before policies."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b

from discovery.backend import Backend
from discovery.compile.ai_backend_refs import compile_ai_reference
from discovery.compile.filters import CompiledFilters, compile_filters
from discovery.compile.index import Index, Route
from discovery.compile.matches import CompiledMatch, CompiledMatches, compile_matches, only_prefix
from discovery.compile.model_rewrites import ModelRewriting
from discovery.compile.policies import Policies
from discovery.compile.references import Resolved, resolve
from discovery.filters import ModelRewrites
from discovery.resources.envoy_ai_gateway import AIBackendReference, AIRouteRule
from discovery.resources.gateway_api import BackendReference, Fraction, RequestMirror, RouteRule
from discovery.resources.inference import InferencePool
from discovery.resources.meta import parse_time
from discovery.resources.quantities import parse_duration
from discovery.route_entry import MODEL_HEADER
from discovery.rule_policy import SessionPersistence
from discovery.snapshot import BackendRef, Mirror, ModelCard, Refusal, RefusalReason, Rule
from discovery.status import Cause

OWNER = "pointsman"
CREATED_UNKNOWN = 1_735_689_600  # 2025-01-01: models need a time, and every replica must say the same one


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledRule:
    """A rule before policies, which depend on the listener."""

    source: RouteRule | AIRouteRule
    number: int
    rule: Rule
    matches: CompiledMatches
    unresolved: tuple[tuple[str, Cause], ...]  # reason of ResolvedRefs=False, cause
    unsupported: tuple[Cause, ...]  # filters
    pools: tuple[InferencePool, ...]
    pool_cards: tuple[ModelCard, ...]  # InferenceModels of the pools
    created: int
    owner: str

    def backends(self) -> Iterator[Backend]:
        """Everything that requests or their copies go to."""
        yield from (ref.backend for ref in self.rule.backend_refs if ref.backend is not None)
        yield from (mirror.backend for mirror in self.rule.mirrors)

    def overrides(self) -> Iterator[str]:
        """The names that backendRefs ask for in place of every other."""
        for ref in self.rule.backend_refs:
            if ref.model_rewrites is not None and ref.model_rewrites.generic is not None:
                yield from (target.name for target in ref.model_rewrites.generic.targets)

    @property
    def is_supported(self) -> bool:
        """Whether the rule's own filters are all implemented."""
        return self.rule.refusal is None or self.rule.refusal.reason != "unsupported_filter"

    def cards_of(self, match: CompiledMatch) -> tuple[ModelCard, ...]:
        """What /v1/models lists for one match."""
        names = (p.value.decode("utf-8", "replace") for p in match.headers if p.name == MODEL_HEADER and p.value)
        own = tuple(ModelCard(id=name, created=self.created, owned_by=self.owner) for name in names)
        return own + self.pool_cards


def compile_rule(
    route: Route,
    rule: RouteRule | AIRouteRule,
    number: int,
    index: Index,
    policies: Policies,
    rewriting: ModelRewriting,
) -> CompiledRule:
    """A rule with everything that does not depend on the listener."""
    field = f"spec.rules[{number}]"
    filters = _rule_filters(rule)
    refs: list[BackendRef] = []
    unresolved: list[tuple[str, Cause]] = []
    unsupported: list[Cause] = []
    pools: list[InferencePool] = []
    if filters.unsupported is not None:
        unsupported.append(Cause(field=f"{field}.filters", message=_unsupported(filters.unsupported)))
    given_refs: tuple[BackendReference | AIBackendReference, ...] = rule.backend_refs
    for position, given in enumerate(given_refs):
        where = f"{field}.backendRefs[{position}]"
        resolved = resolve(route, given, index)
        own = _ref_filters(route, rule, given, index)
        rewrites = own.model_rewrites
        if resolved.pool is not None:
            pools.append(resolved.pool)
            rewrites = rewriting.of_pool(resolved.pool)
        refusal: Refusal | None = None
        if resolved.backend is None:
            unresolved.append((resolved.reason, Cause(field=where, message=resolved.message)))
            refusal = _refusal("invalid_backend_ref", resolved.message)
        elif own.fault is not None:
            unresolved.append(("UnsupportedValue", Cause(field=where, message=own.fault)))
            refusal = _refusal("invalid_backend_ref", own.fault)
        elif own.unsupported is not None:
            unsupported.append(Cause(field=f"{where}.filters", message=_unsupported(own.unsupported)))
            refusal = _refusal("unsupported_filter", _unsupported(own.unsupported))
        else:
            refusal = policies.refusal_for_backend(resolved.touches)
        refs.append(
            BackendRef(
                name=f"{given.namespace or route.namespace}/{given.name}",
                weight=given.weight,
                backend=resolved.backend if refusal is None else None,
                refusal=refusal,
                filters=own.filters,
                priority=_priority(given, resolved),
                model_rewrites=rewrites,
                twin=sum(resolved.backend is not None and ref.backend == resolved.backend for ref in refs),
            )
        )
    served_pools = len(pools)  # what only copies go to is not listed
    mirrors: list[Mirror] = []
    for where, item in _mirrors(rule, field):
        resolved = resolve(route, item.backend_ref, index)
        if resolved.backend is None:
            unresolved.append((resolved.reason, Cause(field=f"{where}.backendRef", message=resolved.message)))
        elif ".backendRefs[" not in where and policies.refusal_for_backend(resolved.touches) is None:
            own_rewrites = rewriting.of_pool(resolved.pool) if resolved.pool is not None else None
            mirrors.extend(_compile_mirror(item, resolved.backend, own_rewrites))
            pools.extend([resolved.pool] if resolved.pool is not None else [])
    total = sum(ref.weight for ref in refs)
    refusal = None
    if filters.unsupported is not None:
        refusal = _refusal("unsupported_filter", f"{field}.filters: {_unsupported(filters.unsupported)}")
    elif filters.redirect is None and total == 0:
        what = "all weights are 0" if refs else "there are no backendRefs"
        refusal = _refusal("invalid_backend_ref", f"{field}: {what}")
    owner = rule.models_owned_by if isinstance(rule, AIRouteRule) else OWNER
    return CompiledRule(
        source=rule,
        number=number,
        rule=Rule(
            id=f"{route.kind}/{route.path}/{number}",
            route=route.path,
            route_kind=route.kind,
            name=rule.name or str(number),
            backend_refs=tuple(refs),
            total_weight=total,
            levels=_levels(refs),
            session=_session(rule, f"{route.kind}/{route.path}/{rule.name or number}"),
            filters=filters.filters,
            redirect=filters.redirect,
            mirrors=tuple(mirrors),
            refusal=refusal,
        ),
        matches=compile_matches(rule, number),
        unresolved=tuple(unresolved),
        unsupported=tuple(unsupported),
        pools=tuple(pools),
        pool_cards=_pool_cards(pools[:served_pools], index),
        created=_created(route, rule),
        owner=owner,
    )


def _rule_filters(rule: RouteRule | AIRouteRule) -> CompiledFilters:
    if isinstance(rule, AIRouteRule):
        return CompiledFilters()
    return compile_filters(rule.filters, prefix=only_prefix(rule), is_backend_ref=False)


def _ref_filters(
    route: Route, rule: RouteRule | AIRouteRule, ref: BackendReference | AIBackendReference, index: Index
) -> CompiledFilters:
    if isinstance(ref, AIBackendReference):
        return compile_ai_reference(ref, index.ai_service_backends.get((ref.namespace or route.namespace, ref.name)))
    return compile_filters(ref.filters, prefix=only_prefix(rule), is_backend_ref=True)


def _priority(ref: BackendReference | AIBackendReference, resolved: Resolved) -> int:
    """An AIGatewayRoute's own priority wins over the Backend's `fallback`, which is priority 1 (Envoy AI Gateway)."""
    if isinstance(ref, AIBackendReference) and ref.priority is not None:
        return ref.priority
    return int(resolved.is_fallback)


def _levels(refs: list[BackendRef]) -> tuple[tuple[BackendRef, ...], ...]:
    priorities = sorted({ref.priority for ref in refs})
    if len(priorities) < 2:
        return ()
    return tuple(tuple(ref for ref in refs if ref.priority == priority) for priority in priorities)


def _session(rule: RouteRule | AIRouteRule, rule_id: str) -> SessionPersistence | None:
    """A cookie without a name gets one of the rule's own, so that two rules do not share it."""
    given = rule.session_persistence if isinstance(rule, RouteRule) else None
    if given is None:
        return None
    name = f"pointsman-{blake2b(rule_id.encode(), digest_size=4).hexdigest()}"
    if given.header is not None:
        name = given.header.name.lower()
    elif given.cookie.name is not None:
        name = given.cookie.name
    return SessionPersistence(
        kind=given.type,
        name=name.encode("ascii"),
        path=given.cookie.path.encode("ascii", "ignore"),
        is_permanent=given.cookie.lifetime_type == "Permanent",
        absolute_timeout_seconds=(parse_duration(given.absolute_timeout) or None) if given.absolute_timeout else None,
    )


def _mirrors(rule: RouteRule | AIRouteRule, field: str) -> Iterator[tuple[str, RequestMirror]]:
    """Every RequestMirror filter with its field. Those of a backendRef are resolved, but not carried out."""
    if isinstance(rule, AIRouteRule):
        return
    lists = [(f"{field}.filters", rule.filters)]
    lists += [(f"{field}.backendRefs[{number}].filters", ref.filters) for number, ref in enumerate(rule.backend_refs)]
    for where, filters in lists:
        for number, item in enumerate(filters):
            if item.request_mirror is not None:
                yield f"{where}[{number}].requestMirror", item.request_mirror


def _compile_mirror(item: RequestMirror, backend: Backend, rewrites: ModelRewrites | None) -> Iterator[Mirror]:
    """One mirror, or none of no requests."""
    fraction = item.fraction or Fraction(numerator=100 if item.percent is None else item.percent)
    if fraction.numerator > 0:
        yield Mirror(
            name=f"{backend.namespace}/{backend.name}",
            backend=backend,
            numerator=fraction.numerator,
            denominator=fraction.denominator,
            model_rewrites=rewrites,
        )


def _pool_cards(pools: list[InferencePool], index: Index) -> tuple[ModelCard, ...]:
    return tuple(
        ModelCard(id=model.spec.model_name, created=model.metadata.created or CREATED_UNKNOWN, owned_by=OWNER)
        for pool in pools
        for model in index.models_of(pool)
    )


def _created(route: Route, rule: RouteRule | AIRouteRule) -> int:
    if isinstance(rule, AIRouteRule) and rule.models_created_at:
        return parse_time(rule.models_created_at)
    return route.metadata.created or CREATED_UNKNOWN


def _unsupported(filter_type: str) -> str:
    return f"a {filter_type} filter is not supported here, requests are answered with 500"


def _refusal(reason: RefusalReason, message: str) -> Refusal:
    return Refusal(reason=reason, message=message)
