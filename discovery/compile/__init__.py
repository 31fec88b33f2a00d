"""Resources -> the two halves of a snapshot: `compile_routing` and `compile_membership`, pure functions."""

from discovery.compile.membership import compile_membership
from discovery.compile.routing import compile_routing

__all__ = ["compile_membership", "compile_routing"]
