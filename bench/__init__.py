"""What does the gateway cost? Measures CPU, latency and memory beside Envoy's; `python -m bench --help`."""
