"""What do all tests share?"""

import os

import pytest
from hypothesis import settings

# HYPOTHESIS_PROFILE=fuzz, which `make fuzz` sets, looks for much longer.
settings.register_profile("default", deadline=None)
settings.register_profile("fuzz", deadline=None, max_examples=int(os.environ.get("FUZZ_EXAMPLES", "5000")))
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


@pytest.fixture(scope="session")
def anyio_backend() -> tuple[str, dict[str, bool]]:
    """Coroutine tests are marked `pytest.mark.anyio` and run on uvloop, the loop that the gateway runs on."""
    return "asyncio", {"use_uvloop": True}
