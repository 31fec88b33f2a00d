"""Which hosts a hostname takes, wildcards included."""

from __future__ import annotations

import pytest

from discovery.hostnames import hostname_rank


@pytest.mark.parametrize(
    ("pattern", "host", "matches"),
    [
        pytest.param(None, "a.com", True, id="any"),
        pytest.param("a.com", "a.com", True, id="exact"),
        pytest.param("a.com", "b.a.com", False, id="not-below"),
        pytest.param("*.a.com", "b.a.com", True, id="one-label"),
        pytest.param("*.a.com", "c.b.a.com", True, id="more-labels"),
        pytest.param("*.a.com", "a.com", False, id="never-the-apex"),
        pytest.param("*.a.com", ".a.com", False, id="no-empty-label"),
        pytest.param("*.a.com", "ba.com", False, id="whole-labels"),
    ],
)
def test_which_hosts_a_hostname_takes(pattern: str | None, host: str, *, matches: bool) -> None:
    assert (hostname_rank(pattern, host) >= 0) is matches
