"""How busy is an endpoint whose metrics are late, or lie?"""

from __future__ import annotations

from discovery.model_servers.server_load import KvCache, ServerLoad
from middleware.scheduling.load import SILENCE_SECONDS, Knowledge, Load
from tests.middleware.scheduling.loads import load


def test_what_was_sent_since_the_reading_is_added() -> None:
    one = load(queue=2, running=3)
    for _ in range(4):
        one.begin()
    assert (one.queue, one.working, one.in_flight) == (6, 7, 4)
    one.end()
    assert (one.queue, one.working) == (5, 6)


def test_what_was_sent_before_the_metrics_were_asked_for_is_in_them() -> None:
    one = Load()
    one.begin()
    mark = one.mark()
    one.begin()
    one.read(ServerLoad(running=1), mark=mark, at=1.0, interval_seconds=0.05)
    assert (one.queue, one.working) == (1, 2)


def test_requests_that_the_engine_does_not_show_yet_count() -> None:
    one = Load()
    for _ in range(3):
        one.begin()
    one.read(ServerLoad(running=1), mark=one.mark(), at=1.0, interval_seconds=0.05)  # up to 200 ms late
    assert (one.queue, one.working) == (2, 3)


def test_what_others_send_hides_nothing_of_ours() -> None:
    one = load(running=10)
    one.begin()
    assert one.queue == 1


def test_a_frozen_engine_is_not_idle() -> None:
    one = Load()
    for _ in range(8):
        one.begin()
    reading = ServerLoad(running=8, kv_usage=0.1)
    one.read(reading, mark=one.mark(), at=0.0, interval_seconds=0.05)
    assert one.queue == 0
    one.look_at_silence(SILENCE_SECONDS - 0.1)
    assert one.queue == 0
    one.look_at_silence(SILENCE_SECONDS)
    assert (one.is_silent, one.queue) == (True, 8)
    one.read(reading, mark=one.mark(), at=6.0, interval_seconds=0.05)  # the old values once more
    assert one.queue == 8
    one.look_at_silence(0.0)
    assert (one.is_silent, one.queue) == (False, 0)


def test_an_endpoint_without_requests_cannot_be_silent() -> None:
    one = load()
    one.look_at_silence(100.0)
    assert not one.is_silent


def test_a_reading_grows_stale() -> None:
    one = load(at=10.0, interval=0.05)
    one.look_at_age(11.9, limit_seconds=2.0)
    assert one.knowledge == "fresh"
    one.look_at_age(12.1, limit_seconds=2.0)
    assert one.knowledge == "stale"
    assert not one.may_be_compared


def test_a_reading_that_is_not_due_yet_is_not_stale() -> None:
    one = load(at=10.0, interval=1.0)
    assert not one.is_older(12.9, 0.2)
    assert one.is_older(13.1, 0.2)


def test_a_failure_leaves_the_last_reading_until_it_is_stale() -> None:
    one = load(queue=3, at=1.0)
    one.failed("timeout", interval_seconds=1.0)
    assert (one.knowledge, one.queue, one.last_failure) == (Knowledge.FRESH, 3, "timeout")
    new = Load()
    assert new.knowledge == "unread"
    new.failed("refused", interval_seconds=1.0)
    assert new.knowledge == "stale"
    new.read(ServerLoad(), mark=0, at=1.0, interval_seconds=1.0)
    assert (new.knowledge, new.last_failure) == (Knowledge.FRESH, "")


def test_what_was_read_at_rest_ages_by_the_pace_at_which_it_fails_now() -> None:
    one = load(at=0.0, interval=50.0)
    one.look_at_age(60.0, limit_seconds=2.0)
    assert one.knowledge == "fresh"  # the next reading may just be on its way
    one.failed("timeout", interval_seconds=0.05)
    one.look_at_age(60.0, limit_seconds=2.0)
    assert one.knowledge == "stale"


def test_an_endpoint_without_metrics_is_known_by_our_own_count() -> None:
    one = Load()
    one.begin()
    one.read_nothing(mark=one.mark(), at=1.0, interval_seconds=1.0)
    assert (one.knowledge, one.may_be_compared, one.queue) == (Knowledge.NONE, True, 1)


def test_a_reading_without_cache_info_keeps_what_was_told_before() -> None:
    one = Load()
    one.read(ServerLoad(kv_cache=KvCache(16, 100)), mark=0, at=1.0, interval_seconds=1.0)
    one.read(ServerLoad(), mark=0, at=2.0, interval_seconds=1.0)
    assert one.kv_cache == KvCache(16, 100)
