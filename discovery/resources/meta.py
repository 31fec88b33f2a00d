"""What do all objects have in common? Metadata, label selectors, references."""

from __future__ import annotations

import ipaddress
import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import NamedTuple

import msgspec

DEFAULT_NAMESPACE = "default"

_IPV4 = re.compile(r"(?:(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])(?:\.(?!$)|$)){4}", re.ASCII)

GATEWAY_API = "gateway.networking.k8s.io"
INFERENCE = "inference.networking.k8s.io"
INFERENCE_ALPHA = "inference.networking.x-k8s.io"
LLM_D = "llm-d.ai"
ENVOY_GATEWAY = "gateway.envoyproxy.io"
ENVOY_AI_GATEWAY = "aigateway.envoyproxy.io"


class Model(msgspec.Struct, frozen=True, kw_only=True, rename="camel", gc=False):
    """A part of an object: frozen, camelCase in YAML. Decoding validates by the CRD's schema before it builds these.

    They cannot refer to themselves, so the garbage collector need not look at them, however many there are.
    msgspec and not pydantic: that would cost 10 MB of the gateway's 60 for models that validate nothing themselves.
    """


class ObjectKey(NamedTuple):
    """What makes an object one object. Versions of a group are the same object, groups are not."""

    group: str
    kind: str
    namespace: str
    name: str


class Metadata(Model, frozen=True, kw_only=True):
    """The parts of metav1.ObjectMeta that we use."""

    name: str
    namespace: str = DEFAULT_NAMESPACE
    uid: str | None = None
    generation: int | None = None
    creation_timestamp: str | None = None
    deletion_timestamp: str | None = None
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}

    @property
    def created(self) -> int | None:
        """Unix seconds of the creation; None where a file does not say."""
        return parse_time(self.creation_timestamp) if self.creation_timestamp else None


class Resource(Model, frozen=True, kw_only=True):
    """An object as read."""

    group: str
    kind: str
    metadata: Metadata

    @property
    def namespace(self) -> str:
        return self.metadata.namespace

    @property
    def name(self) -> str:
        return self.metadata.name

    @property
    def path(self) -> str:
        """ "namespace/name", as labels, messages and tie-breaks use it."""
        return f"{self.metadata.namespace}/{self.metadata.name}"

    @property
    def key(self) -> ObjectKey:
        return ObjectKey(self.group, self.kind, self.metadata.namespace, self.metadata.name)


class LabelSelectorRequirement(Model, frozen=True, kw_only=True):
    """One expression of a label selector."""

    key: str
    operator: str
    values: tuple[str, ...] = ()


class LabelSelector(Model, frozen=True, kw_only=True):
    """metav1.LabelSelector; an empty one selects everything."""

    match_labels: dict[str, str] = {}
    match_expressions: tuple[LabelSelectorRequirement, ...] = ()

    def selects(self, labels: Mapping[str, str]) -> bool:
        """Whether all labels and all expressions hold. An operator that Kubernetes does not have selects nothing."""
        return has_labels(labels, self.match_labels) and all(_holds(e, labels) for e in self.match_expressions)


class PolicyTarget(Model, frozen=True, kw_only=True):
    """Which object, and which listener or rule of it, a policy is for. It is in the policy's own namespace."""

    group: str = ""
    kind: str
    name: str
    section_name: str | None = None


class PolicyTargetSelector(LabelSelector, frozen=True, kw_only=True):
    """Objects of a kind by their labels, in the policy's own namespace unless it names others."""

    group: str = GATEWAY_API
    kind: str
    namespaces: dict[str, object] | None = None


class PolicySpec(Model, frozen=True, kw_only=True):
    """How a policy of Envoy Gateway says what it is for."""

    target_ref: PolicyTarget | None = None
    target_refs: tuple[PolicyTarget, ...] = ()
    target_selectors: tuple[PolicyTargetSelector, ...] = ()

    @property
    def targets(self) -> tuple[PolicyTarget, ...]:
        """The named targets, the old single one first."""
        return ((self.target_ref,) if self.target_ref else ()) + self.target_refs


class UnimplementedPolicy(Resource, frozen=True, kw_only=True):
    """A policy of a kind that we do not implement: what it is for is all we know of it."""

    spec: PolicySpec = PolicySpec()


def age_of(resource: Resource) -> tuple[float, str]:
    """The key that sorts the older first, then by namespace/name; an object of unknown age comes last."""
    created = resource.metadata.created
    return (math.inf if created is None else created, resource.path)


def has_labels(labels: Mapping[str, str], wanted: Mapping[str, str]) -> bool:
    """Whether every wanted label is there with its value."""
    return all(labels.get(key) == value for key, value in wanted.items())


def is_ip_address(text: str) -> bool:
    """Whether it is an IPv4 or IPv6 address in its plain form, without a zone."""
    if _IPV4.fullmatch(text):  # ten times as fast, and there may be 10,000
        return True
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return "%" not in text


# What clouds answer their metadata and credentials at, beside the link-local 169.254.169.254.
_METADATA_ADDRESSES = frozenset(
    ipaddress.ip_address(address) for address in ("fd00:ec2::254", "fd20:ce::254", "100.100.100.200", "168.63.129.16")
)
_METADATA_NAMES = ("localhost", "metadata", "metadata.google.internal", "instance-data")


def is_internal_address(host: str) -> bool:
    """Whether an address or a name leads into our own pod or node, or to a cloud's metadata: loopback, link-local,
    unspecified, multicast. An IPv4 address inside of an IPv6 one counts as itself."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        name = host.lower().rstrip(".")
        return name in _METADATA_NAMES or name.endswith((".localhost", ".metadata.google.internal"))
    if isinstance(address, ipaddress.IPv6Address):
        inside = address.ipv4_mapped or address.sixtofour
        if inside is None and address in _NAT64:
            inside = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        address = inside or address
    is_special = address.is_loopback or address.is_link_local or address.is_unspecified or address.is_multicast
    return is_special or address in _METADATA_ADDRESSES


_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


def parse_time(text: str) -> int:
    """Unix seconds of an RFC 3339 time. Raises ValueError."""
    moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())


def _holds(expression: LabelSelectorRequirement, labels: Mapping[str, str]) -> bool:
    match expression.operator:
        case "In":
            return labels.get(expression.key) in expression.values
        case "NotIn":
            return labels.get(expression.key) not in expression.values
        case "Exists":
            return expression.key in labels
        case "DoesNotExist":
            return expression.key not in labels
    return False
