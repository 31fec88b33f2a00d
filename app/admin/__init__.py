"""The admin port: how the gateway is, what it counts, what it believes, and why."""
