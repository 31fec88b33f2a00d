"""What is shown of values that may be credentials."""

from __future__ import annotations

from discovery.shown import is_credential, is_secret_member


def test_credentials_are_known_by_their_names() -> None:
    assert all(is_credential(n) for n in (b"authorization", b"api-key", b"x-api-key", b"cookie", b"x-my-token"))
    assert not is_credential(b"content-type")


def test_a_member_that_counts_tokens_is_no_secret() -> None:
    assert is_secret_member("api_key")
    assert is_secret_member("session_token")
    assert not is_secret_member("max_tokens")
