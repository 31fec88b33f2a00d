"""Which hosts does the hostname of a listener or a route stand for? Exact names and wildcards, as Gateway API says."""

from __future__ import annotations

EXACT_RANK = 1_000  # of a hostname without a wildcard: above the length of any


def hostname_rank(pattern: str | None, host: str) -> int:
    """How specifically a listener's or route's hostname matches a host: -1 not at all, else more is more specific.

    An exact name beats every wildcard; among wildcards the longer wins; None matches everything, least specifically.
    "*.example.com" stands for one or more labels, never for the apex.
    """
    if pattern is None:
        return 0
    if pattern.startswith("*."):
        return len(pattern) if host.endswith(pattern[1:]) and len(host) > len(pattern) - 1 else -1
    return EXACT_RANK if host == pattern else -1


def overlap(one: str, other: str) -> bool:
    """Whether there are hosts that both stand for."""
    if one.startswith("*.") and other.startswith("*."):
        return one.endswith(other[1:]) or other.endswith(one[1:])
    if one.startswith("*."):
        return hostname_rank(one, other) >= 0
    return hostname_rank(other, one) >= 0


def narrower(one: str, other: str) -> str:
    """Of two hostnames that overlap the one that stands for less: an exact one, else the longer."""
    if one.startswith("*.") != other.startswith("*."):
        return other if one.startswith("*.") else one
    return max(one, other, key=len)
