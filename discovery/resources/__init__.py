"""The Kubernetes objects we understand, a module per API group."""
