"""Where did a request's time go? Spans of each request, for whoever OTEL_* variables name; off where they name nobody.

settings.py reads the variables, setup.py makes the SDK's objects (imported then, and not earlier),
spans.py turns exchanges into spans by what facts.py says of them, genai.py knows the attributes' names, delivery.py
watches over the collector, collector_session.py bounds its answers, sdk_words.py the SDK's own log lines.
"""
