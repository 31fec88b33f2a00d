"""What is a gateway that nobody watches? `python -m bench.unobserved serve …`: no metrics, no access log, no traces.

Its chain has no observers; all else is as in `pointsman serve`. For bench.observing alone.
"""

from __future__ import annotations

from typing import Any

from starlette.types import ASGIApp

import app.cli
import app.lifespan
import app.main


def build_unobserved_chain(**collaborators: Any) -> ASGIApp:
    """The chain that tells nobody."""
    return app.main.build_chain(**{**collaborators, "observers": ()})


if __name__ == "__main__":
    setattr(app.lifespan, "build_chain", build_unobserved_chain)  # noqa: B010  # a name that lifespan imports
    app.cli.main()
