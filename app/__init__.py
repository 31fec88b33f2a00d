"""The composition root: command line, servers, observers, admin port, simulator. Nobody imports it."""

import sys

# httpx imports its own command line, and with it rich and pygments (8 MB), wherever they are installed. None here is
# what makes an import fail, and httpx does without.
sys.modules.setdefault("httpx._main", None)  # type: ignore[arg-type]
