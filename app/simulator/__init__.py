"""What stands in for a GPU pod in the demo, the tests and the benchmarks? A server that behaves like vLLM 0.32.

The engine (`engine.py`) spends time and slots, the interfaces (`chat.py`, `responses.py`, …) know what their answers
look like, `answering.py` brings both together for one request, `application.py` is the table of routes, and
`server.py` puts it on a port. What it says of itself in `/metrics` is true.
"""
