"""What all objects share: addresses, times, labels."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from discovery.resources.meta import is_ip_address

ADDRESSES = """\
1.2.3.4 255.255.255.255 0.0.0.0 256.1.1.1 1.2.3 1.2.3.4. 01.2.3.4 1.2.3.4.5 1..2.3 1.2.3.4/8
::1 fe80::1 fe80::1%eth0 ::: a.b.c.d
"""


@pytest.mark.parametrize("text", ["", "1.2.3.4\n", *ADDRESSES.split()])
def test_an_ip_address_is_what_the_standard_library_takes_without_a_zone(text: str) -> None:
    assert is_ip_address(text) is is_known(text)


@given(text=st.text(alphabet="0123456789.", max_size=16))
def test_the_short_cut_for_ipv4_takes_nothing_else(text: str) -> None:
    assert is_ip_address(text) is is_known(text)


def is_known(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return "%" not in text
