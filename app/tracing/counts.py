"""How many spans arrived? Counts that metrics read, without OpenTelemetry being imported for them."""

from __future__ import annotations


class DeliveryCounts:
    """What became of the spans. Bumped in one thread and read in another: plain integers are safe for that."""

    def __init__(self) -> None:
        self.ended = 0  # by the tracer; what is neither delivered nor lost waits, or found the queue full
        self.delivered = 0
        self.lost = 0  # the collector did not take them
