"""How does a test get a Kubernetes API server? A small one of our own on a real socket, with every fault of real ones.

`KubeApi` (server.py) speaks what reflectors need: list, watch, get, create, update and patch, over objects that one
counter of resourceVersions orders (store.py). What it answers is held to recordings of real servers by
tests/support/test_kube_api.py. Ready-made doubles answer every watch as a list and know no resourceVersions.
"""

from tests.support.kube_api.server import KubeApi
from tests.support.kube_api.store import ApiObject, ObjectStore

__all__ = ["ApiObject", "KubeApi", "ObjectStore"]
