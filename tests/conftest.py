"""What do all tests share?"""

import fcntl
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

# HYPOTHESIS_PROFILE=fuzz, which `make fuzz` sets, looks for much longer.
settings.register_profile("default", deadline=None)
settings.register_profile("fuzz", deadline=None, max_examples=int(os.environ.get("FUZZ_EXAMPLES", "5000")))
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


@pytest.fixture
def ports_8001_to_8003() -> Iterator[None]:
    """The ports that routes.yaml and users' files name are this test's alone, whatever other test processes run."""
    with (Path(tempfile.gettempdir()) / "pointsman-tests-8001-8003.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@pytest.fixture(scope="session")
def anyio_backend() -> tuple[str, dict[str, bool]]:
    """Coroutine tests are marked `pytest.mark.anyio` and run on uvloop, the loop that the gateway runs on."""
    return "asyncio", {"use_uvloop": True}
