"""Files while they change: each new state is told whole, soon, and never half."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import pytest

from discovery.resources.problem import Severity
from discovery.sources.file_contents import read_contents, read_signature
from discovery.sources.files import FileSource
from discovery.sources.source import SourceState

pytestmark = pytest.mark.anyio

NAMESPACE = "apiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}}}\n"


def namespace(name: str) -> str:
    return NAMESPACE.format(name=name)


def names(state: SourceState) -> list[str]:
    return [n.name for n in state.resources.namespaces]


def is_refused(state: SourceState) -> bool:
    return any(problem.severity is Severity.REFUSED for problem in state.problems)


@asynccontextmanager
async def watching(
    *paths: Path, settle_seconds: float = 0.01
) -> AsyncIterator[tuple[FileSource, AsyncGenerator[SourceState, None]]]:
    source = FileSource(paths, poll_seconds=0.01, settle_seconds=settle_seconds)
    async with aclosing(source.watch()) as states:
        yield source, states


async def following(states: AsyncGenerator[SourceState, None]) -> SourceState:
    async with asyncio.timeout(10):
        return await anext(states)


async def test_the_state_is_told_at_once_and_an_edit_within_two_seconds(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(namespace("one"), "utf-8")
    async with aclosing(FileSource([tmp_path]).watch()) as states:
        first = await following(states)
        assert names(first) == ["one"]
        file.write_text(namespace("two"), "utf-8")
        async with asyncio.timeout(2):
            second = await following(states)
        assert names(second) == ["two"]
        assert first.fingerprint != second.fingerprint


async def test_after_a_read_only_changes_are_told(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(namespace("one"), "utf-8")
    source = FileSource([tmp_path], poll_seconds=0.01, settle_seconds=0.01)
    fingerprint = source.read().fingerprint
    async with aclosing(source.watch()) as states:
        coming = asyncio.create_task(following(states))
        file.write_text(namespace("two"), "utf-8")
        state = await coming
    assert names(state) == ["two"]
    assert state.fingerprint != fingerprint


async def test_a_config_map_volume_s_swap_of_symbolic_links_is_a_change(tmp_path: Path) -> None:
    for version, name in (("..2026_01", "one"), ("..2026_02", "two")):
        (tmp_path / version).mkdir()
        (tmp_path / version / "routes.yaml").write_text(namespace(name), "utf-8")
    (tmp_path / "..data").symlink_to("..2026_01")
    (tmp_path / "routes.yaml").symlink_to("..data/routes.yaml")
    async with watching(tmp_path) as (_, states):
        assert names(await following(states)) == ["one"]
        (tmp_path / "..data_tmp").symlink_to("..2026_02")
        (tmp_path / "..data_tmp").rename(tmp_path / "..data")
        assert names(await following(states)) == ["two"]


async def test_files_that_come_and_go_are_changes(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(namespace("one"), "utf-8")
    async with watching(tmp_path) as (_, states):
        assert names(await following(states)) == ["one"]
        (tmp_path / "b.yaml").write_text(namespace("two"), "utf-8")
        assert names(await following(states)) == ["one", "two"]
        (tmp_path / "a.yaml").unlink()
        assert names(await following(states)) == ["two"]


async def test_a_file_that_is_being_written_is_not_taken_for_a_whole_one(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(namespace("before"), "utf-8")
    async with watching(tmp_path, settle_seconds=0.4) as (_, states):
        await following(states)

        async def write_slowly() -> None:
            with file.open("w", encoding="utf-8") as out:
                for number in range(10):
                    out.write(f"---\n{namespace(f'n{number}')}")
                    out.flush()
                    await asyncio.sleep(0.02)

        writing = asyncio.create_task(write_slowly())
        assert names(await following(states)) == [f"n{number}" for number in range(10)]
        await writing


async def test_a_file_that_is_empty_for_a_moment_takes_nothing_away(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(namespace("a"), "utf-8")
    other = tmp_path / "b.yaml"
    other.write_text(namespace("b"), "utf-8")
    source = FileSource([tmp_path], poll_seconds=0.01, settle_seconds=0.01, blank_seconds=0.5)
    source.read()
    async with aclosing(source.watch()) as states:
        told = asyncio.create_task(following(states))
        other.write_text("", "utf-8")  # as a shell's > does, before its command has said anything
        await asyncio.sleep(0.2)
        assert not told.done()
        other.write_text(namespace("c"), "utf-8")
        assert names(await told) == ["a", "c"]
        other.write_text("", "utf-8")
        assert names(await following(states)) == ["a"]  # one that stays empty is meant to


async def test_a_set_that_had_objects_and_has_none_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(namespace("one"), "utf-8")
    async with watching(file) as (_, states):
        await following(states)
        file.write_text("", "utf-8")
        empty = await following(states)
        assert [str(p) for p in empty.problems] == [f"{file}: no objects any more, 1 before: they are kept"]
        assert is_refused(empty)
        file.write_text(namespace("one") + "# back\n", "utf-8")
        assert not is_refused(await following(states))


async def test_an_empty_set_from_the_start_is_no_mistake(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("# nothing yet\n", "utf-8")
    assert not is_refused(FileSource([file]).read())


async def test_a_refused_state_is_told_once_and_what_was_there_before_is_news_again(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(namespace("one"), "utf-8")
    async with watching(tmp_path) as (_, states):
        good = await following(states)
        file.write_text(namespace("_"), "utf-8")
        bad = await following(states)
        assert is_refused(bad)
        file.write_text(namespace("_"), "utf-8")  # touched, not changed
        os.utime(file)
        file.write_text(namespace("one"), "utf-8")
        again = await following(states)
        assert again.fingerprint == good.fingerprint
        assert not is_refused(again)


async def test_reread_tells_even_what_has_not_changed(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(namespace("one"), "utf-8")
    async with watching(tmp_path) as (source, states):
        first = await following(states)
        source.reread()
        again = await following(states)
        assert again.fingerprint == first.fingerprint
        assert again.resources == first.resources


async def test_what_has_not_changed_is_the_same_object_in_the_next_state(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("---\n".join(namespace(name) for name in ("one", "two", "three")), "utf-8")
    async with watching(tmp_path) as (_, states):
        first = await following(states)
        file.write_text("---\n".join(["# moved\n" + namespace("one"), namespace("new"), namespace("three")]), "utf-8")
        second = await following(states)
        assert names(second) == ["one", "new", "three"]
        kept = [a is b for a, b in zip(first.resources.namespaces, second.resources.namespaces, strict=True)]
        assert kept == [False, False, True]  # the comment is part of the first document
        lines = [origin.line for origin in second.resources.origins.values()]
        assert lines == [2, 6, 10]


def test_an_old_file_s_signature_changes_with_all_that_can_change(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(namespace("one"), "utf-8")
    later = time.time_ns() + 10**12

    def signature() -> object:
        return read_signature([tmp_path], now_ns=lambda: later)

    seen = [signature()]
    stat = file.stat()
    file.write_text(namespace("two"), "utf-8")
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # same size, same modification time
    seen.append(signature())
    (tmp_path / "b.yaml").write_text("", "utf-8")
    seen.append(signature())
    (tmp_path / "c.yaml").symlink_to("nowhere")
    seen.append(signature())
    assert signature() == seen[-1]
    assert len({str(one) for one in seen}) == len(seen)


def test_a_young_file_s_signature_says_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("", "utf-8")
    assert read_signature([tmp_path]) is None
    assert read_signature([tmp_path / "missing" / "b.yaml"]) is not None
    assert read_signature([tmp_path], now_ns=lambda: 0) is not None


def test_equal_contents_have_equal_fingerprints(tmp_path: Path) -> None:
    one, two = tmp_path / "a.yaml", tmp_path / "b.yaml"
    one.write_text("ab", "utf-8")
    two.write_text("", "utf-8")
    first = read_contents([tmp_path]).fingerprint
    assert read_contents([tmp_path]).fingerprint == first
    one.write_text("a", "utf-8")
    two.write_text("b", "utf-8")
    assert read_contents([tmp_path]).fingerprint != first
    assert read_contents([tmp_path / "missing"]).fingerprint != first
