"""Which endpoint of a pool answers a request first? Filters, scorers and a picker over what is known of the endpoints.

Pure: no ASGI, no input or output. The formulas and defaults are those of the Inference Extension's endpoint picker
(gateway-api-inference-extension v1.5, llm-d-router), which docs/scheduling.md lists.
"""
