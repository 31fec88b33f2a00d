"""What the world looks like: resources read from files or a cluster, compiled to an immutable snapshot."""
