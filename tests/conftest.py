"""What do all tests share?"""

import pytest


@pytest.fixture(scope="session")
def anyio_backend() -> tuple[str, dict[str, bool]]:
    """Coroutine tests are marked `pytest.mark.anyio` and run on uvloop, the loop that the gateway runs on."""
    return "asyncio", {"use_uvloop": True}
