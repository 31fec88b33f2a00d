"""What became of each Gateway and of each of its listeners? Their conditions, attachedRoutes and supportedKinds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from discovery.compile.attachment import SUPPORTED_KINDS, ListenerPlan
from discovery.resources.gateway_api import Gateway
from discovery.status import Condition, ObjectStatus


def listener_statuses(plans: list[ListenerPlan], attached: Mapping[str, int]) -> Iterator[ObjectStatus]:
    """Conditions of each Gateway and of each of its listeners. ``attached``: accepted routes by the listener's name."""
    gateways: dict[int, list[ListenerPlan]] = {}
    for plan in plans:
        if plan.gateway is not None:
            gateways.setdefault(id(plan.gateway), []).append(plan)
    for own in gateways.values():
        gateway = own[0].gateway
        if gateway is not None:
            yield _gateway_status(gateway, own)
            for plan in own:
                yield _listener_status(gateway, plan, attached.get(plan.name, 0))


def _gateway_status(gateway: Gateway, plans: list[ListenerPlan]) -> ObjectStatus:
    served = sum(plan.rejection is None for plan in plans)
    generation = gateway.metadata.generation
    accepted = Condition(
        type="Accepted",
        status="True" if served else "False",
        reason="Accepted" if served == len(plans) else "ListenersNotValid",
        message="" if served == len(plans) else f"{len(plans) - served} of {len(plans)} listeners are not served",
        observed_generation=generation,
    )
    programmed = Condition(
        type="Programmed",
        status="True" if served else "False",
        reason="Programmed" if served else "Invalid",
        observed_generation=generation,
    )
    return ObjectStatus(
        group=gateway.group,
        kind=gateway.kind,
        namespace=gateway.namespace,
        name=gateway.name,
        conditions=(accepted, programmed),
    )


def _listener_status(gateway: Gateway, plan: ListenerPlan, attached: int) -> ObjectStatus:
    generation = gateway.metadata.generation
    rejection = plan.rejection
    is_accepted = rejection is None or rejection.type != "Accepted"
    conditions = [
        Condition(type="Accepted", status="True", reason="Accepted", observed_generation=generation)
        if is_accepted or rejection is None
        else rejection,
        Condition(
            type="Programmed",
            status="True" if rejection is None else "False",
            reason="Programmed" if rejection is None else "Invalid",
            observed_generation=generation,
        ),
        Condition(
            type="ResolvedRefs",
            status="False" if plan.bad_kinds else "True",
            reason="InvalidRouteKinds" if plan.bad_kinds else "ResolvedRefs",
            message="allowedRoutes names a kind that is not served" if plan.bad_kinds else "",
            observed_generation=generation,
        ),
        _conflicted(plan, generation),
    ]
    return ObjectStatus(
        group=gateway.group,
        kind=gateway.kind,
        namespace=gateway.namespace,
        name=gateway.name,
        parent=plan.name,
        conditions=tuple(conditions),
        attached_routes=attached,
        supported_kinds=_supported_kinds(plan),
    )


def _conflicted(plan: ListenerPlan, generation: int | None) -> Condition:
    if plan.rejection is not None and plan.rejection.type == "Conflicted":
        return plan.rejection
    has_conflict = plan.has_protocol_conflict
    return Condition(
        type="Conflicted",
        status="True" if has_conflict else "False",
        reason="ProtocolConflict" if has_conflict else "NoConflicts",
        message="an HTTP listener has the same port" if has_conflict else "",
        observed_generation=generation,
    )


def _supported_kinds(plan: ListenerPlan) -> tuple[tuple[str, str], ...]:
    """Of the kinds that the listener allows those that we serve; of a protocol that we do not serve, none."""
    if plan.listener is None or plan.listener.protocol != "HTTP":
        return ()
    kinds = tuple((kind.group, kind.kind) for kind in plan.listener.allowed_routes.kinds)
    return tuple(kind for kind in kinds or sorted(SUPPORTED_KINDS, reverse=True) if kind in SUPPORTED_KINDS)
