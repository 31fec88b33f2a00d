"""Many documents are read in a child process: with the same result, and nothing left behind."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from contextlib import aclosing
from pathlib import Path

import pytest

from discovery.resources.decode import decode_document
from discovery.resources.decoded import Decoded
from discovery.sources.decode_child import ChildFailedError, decode_in_child
from discovery.sources.decode_worker import PIECE_OBJECTS, pack, unpack
from discovery.sources.document_decoder import CHILD_BYTES, DocumentDecoder
from discovery.sources.file_contents import FileText, read_contents
from tests.discovery.loading import MANIFESTS

NAMESPACE = "apiVersion: v1\nkind: Namespace\nmetadata: {{name: n{number}, labels: {{a: {label}}}}}\n"
BROKEN = "apiVersion: v1\nkind: Namespace\nmetadata: {nam: x}\n"


def texts(count: int, label: str = "b") -> list[str]:
    return [NAMESPACE.format(number=number, label=label) for number in range(count)]


def many() -> FileText:
    padding = "# " + "x" * 100 + "\n"
    documents = texts(CHILD_BYTES // 100)
    return FileText(name="many.yaml", text="---\n".join(padding + text for text in [*documents, BROKEN, "kind: [\n"]))


def children() -> list[str]:
    return Path(f"/proc/self/task/{os.getpid()}/children").read_text("utf-8").split()


def test_what_goes_through_the_pipe_is_what_was_decoded() -> None:
    files = read_contents([folder for folder in MANIFESTS.iterdir() if folder.is_dir()]).files
    decoded = DocumentDecoder().decode([*files, many()])
    assert sum(len(part.objects) for part in decoded) > 10
    for part in decoded:
        there = Decoded()
        pieces = list(pack(part))
        for piece in pieces:
            assert len(piece.objects) <= PIECE_OBJECTS
            unpack(piece, there)
        assert [piece.is_last for piece in pieces] == [False] * (len(pieces) - 1) + [True]
        assert [r for r, _ in there.objects] == [r for r, _ in part.objects]
        assert [type(r) for r, _ in there.objects] == [type(r) for r, _ in part.objects]
        assert (there.problems, there.skipped) == (part.problems, part.skipped)


@pytest.mark.anyio
async def test_a_child_decodes_what_this_process_would() -> None:
    aside = await DocumentDecoder().decode_aside([many()])
    assert aside == DocumentDecoder().decode([many()])
    assert children() == []


@pytest.mark.anyio
async def test_a_few_documents_start_no_child(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nonexistent")
    decoder = DocumentDecoder()
    first = await decoder.decode_aside([FileText(name="a", text="---\n".join(texts(20)))])
    again = await decoder.decode_aside([FileText(name="a", text="---\n".join(texts(21)))])
    assert [len(part.objects) for part in (*first, *again)] == [20, 21]


@pytest.mark.anyio
async def test_where_no_child_can_be_started_this_process_reads(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sys, "executable", "/nonexistent")
    with caplog.at_level(logging.WARNING):
        aside = await DocumentDecoder().decode_aside([many()])
    assert aside == DocumentDecoder().decode([many()])
    assert "manifests are read in this process: the child process did not start" in caplog.text


@pytest.mark.anyio
async def test_a_child_that_ends_early_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(ChildFailedError, match="ended early"):
        async for _ in decode_in_child(texts(3)):
            pass
    assert children() == []


@pytest.mark.anyio
async def test_nothing_is_left_behind_when_nobody_wants_the_rest() -> None:
    async with aclosing(decode_in_child(texts(20_000))) as results:
        first = await anext(results)
        assert len(children()) == 1
    assert first == decode_document(texts(1)[0])
    assert children() == []


@pytest.mark.anyio
async def test_nothing_is_left_behind_after_a_cancellation() -> None:
    text = "---\n".join(texts(20_000))
    decoding = asyncio.create_task(DocumentDecoder().decode_aside([FileText(name="a", text=text)]))
    async with asyncio.timeout(10):
        while not children():
            await asyncio.sleep(0.005)
    decoding.cancel()
    with pytest.raises(asyncio.CancelledError):
        await decoding
    assert children() == []


@pytest.mark.anyio
async def test_no_documents_no_child() -> None:
    assert await DocumentDecoder().decode_aside([]) == []
    assert await DocumentDecoder().decode_aside([FileText(name="a")]) == [Decoded()]


@pytest.mark.anyio
async def test_a_list_of_many_objects_comes_in_pieces() -> None:
    items = "\n".join("- " + text.replace("\n", "\n  ").strip() for text in texts(1_000))
    file = FileText(name="list.yaml", text=f"apiVersion: v1\nkind: List\nitems:\n{items}\n")
    aside = await DocumentDecoder().decode_aside([file])
    assert aside == DocumentDecoder().decode([file])
    assert len(aside[0].objects) == 1_000
