"""Which documents does a text hold, and on which line is each field? YAML 1.2 core and JSON, with the C parser.

PyYAML reads YAML 1.1, where `yes` is true and 2024-01-01 a date; Kubernetes and its users mean the core schema of YAML
1.2. So only PyYAML's C composer is used here, with a resolver and a constructor of our own: duplicate keys are refused,
nesting and what aliases may expand to are bounded.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml
from yaml._yaml import CParser
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from discovery.resources.problem import FieldPath

MAX_DEPTH = 100  # of nested mappings and lists; the C composer recurses
MAX_ALIASED_NODES = 100_000  # that aliases of one document may expand to ("billion laughs")

_STR, _INT, _FLOAT, _BOOL, _NULL, _MERGE = (
    f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool", "null", "merge")
)
_SEQ, _MAP = "tag:yaml.org,2002:seq", "tag:yaml.org,2002:map"
_PLAIN = re.compile(
    r"(?P<null>null|Null|NULL|~|)"
    r"|(?P<bool>true|True|TRUE|false|False|FALSE)"
    r"|(?P<int>[-+]?[0-9]{1,400}|0o[0-7]{1,400}|0x[0-9a-fA-F]{1,400})"
    r"|(?P<float>[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))"
    r"|(?P<merge><<)",
)
_TAGS = {"null": _NULL, "bool": _BOOL, "int": _INT, "float": _FLOAT, "merge": _MERGE}


class DocumentError(Exception):
    """A text that is not YAML 1.2 core or JSON, or not one we take. ``line`` is 1-based."""

    def __init__(self, message: str, line: int) -> None:
        super().__init__(message)
        self.message = message
        self.line = line


@dataclass(frozen=True, slots=True)
class Document:
    """One document: plain data, and the composed nodes that know the lines."""

    data: Any
    line: int
    node: Node | None = None  # None for JSON that the YAML parser does not take

    def line_of(self, path: FieldPath) -> int:
        """The line of a field, or of the nearest parent that is in the text."""
        node, line = self.node, self.line
        for step in path:
            if isinstance(node, MappingNode):
                found = _child(node, str(step))
                if found is None:
                    return line
                key, node = found
                line = key.start_mark.line + 1
            elif isinstance(node, SequenceNode) and isinstance(step, int) and step < len(node.value):
                node = node.value[step]
                line = node.start_mark.line + 1
            else:
                return line
        return line


def split_documents(text: str) -> Iterator[tuple[int, str]]:
    """The documents as texts of their own, each with the number of lines before it.

    `---` at the start of a line ends a document wherever it stands (YAML 1.2.2, 9.1.2), so what is wrong with one
    document says nothing about the next, and what has not changed need not be read again.
    """
    if text.startswith("%") or "\n%" in text:  # directives belong to the document behind them
        yield 0, text
        return
    line = start = 0
    for end in _document_starts(text):
        if text[start:end].strip():  # not the empty text before the first one
            yield line, text[start:end]
        line += text.count("\n", start, end)
        start = end
    yield line, text[start:]


def _document_starts(text: str) -> Iterator[int]:
    found = 0 if text.startswith("---") else text.find("\n---") + 1
    while found > 0 or text.startswith("---", found):
        if text[found + 3 : found + 4] in ("", " ", "\t", "\r", "\n"):
            yield found
        found = text.find("\n---", found) + 1
        if found == 0:
            return


def read_documents(text: str) -> Iterator[Document]:
    """Each document that is not empty. Raises DocumentError; the documents before it were yielded."""
    composer = _Composer(text)
    try:
        while composer.check_node():
            node = composer.get_node()
            composer.depth = 0
            if node is not None:
                data = _Constructor().construct(node)
                if data is not None:
                    yield Document(data, node.start_mark.line + 1, node)
    except yaml.YAMLError as error:
        if isinstance(error, yaml.MarkedYAMLError) and text.lstrip()[:1] in ("{", "["):
            yield from _read_json(text)
            return
        raise _explain(error, text) from None
    finally:
        composer.dispose()


def _explain(error: yaml.YAMLError, text: str) -> DocumentError:
    if isinstance(error, yaml.reader.ReaderError):  # a character that YAML does not allow
        return DocumentError(f"not YAML: {error.reason}", text.count("\n", 0, error.position) + 1)
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    words = (getattr(error, "context", None), getattr(error, "problem", None))
    what = " ".join(word for word in words if word) or str(error)
    return DocumentError(f"not YAML: {what}", mark.line + 1 if mark else 1)


def _read_json(text: str) -> Iterator[Document]:
    """JSON that YAML does not take: escapes of characters beyond the basic plane."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        data = dict(pairs)
        if len(data) != len(pairs):
            raise DocumentError("a key is there twice", 1)
        return data

    try:
        data = json.loads(text, object_pairs_hook=unique, parse_constant=_refuse_constant)
        json.dumps(data, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise DocumentError("not UTF-8: half of a surrogate pair", 1) from None
    except json.JSONDecodeError as error:
        raise DocumentError(f"not JSON: {error.msg}", error.lineno) from None
    except RecursionError:
        raise DocumentError(f"nested deeper than {MAX_DEPTH} levels", 1) from None
    yield Document(data, 1)


def _refuse_constant(name: str) -> Any:
    raise DocumentError(f"not JSON: {name}", 1)


class _Composer(CParser):
    """The C parser with the tags of the core schema."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.depth = 0

    def resolve(self, kind: type[Node], value: str | None, implicit: Any) -> str:
        if kind is ScalarNode:
            if implicit[0] and value is not None and (match := _PLAIN.fullmatch(value)):
                return _TAGS[match.lastgroup or "null"]
            return _STR
        return _SEQ if kind is SequenceNode else _MAP

    def descend_resolver(self, parent: Node | None, index: Any) -> None:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            line = parent.start_mark.line + 1 if parent is not None else 1
            raise DocumentError(f"nested deeper than {MAX_DEPTH} levels", line)

    def ascend_resolver(self) -> None:
        self.depth -= 1


class _Constructor:
    """Nodes to plain data."""

    def __init__(self) -> None:
        self._met: set[int] = set()
        self._open: set[int] = set()
        self._aliased = 0

    def construct(self, node: Node) -> Any:
        """Plain data: dict, list, str, int, float, bool, None. Keys are strings, as in JSON."""
        identity = id(node)
        if identity in self._met:
            self._aliased += 1
            if self._aliased > MAX_ALIASED_NODES:
                raise _error(f"aliases expand to more than {MAX_ALIASED_NODES:,} values", node)
        self._met.add(identity)
        if isinstance(node, ScalarNode):
            return _scalar(node)
        if identity in self._open:
            raise _error("an alias inside what it stands for", node)
        if node.tag not in (_SEQ, _MAP):
            raise _error(f"the tag {node.tag} is not supported", node)
        self._open.add(identity)
        data: Any = None
        if isinstance(node, SequenceNode):
            data = self._sequence(node)
        elif isinstance(node, MappingNode):
            data = self._mapping(node)
        self._open.discard(identity)
        return data

    def _sequence(self, node: SequenceNode) -> list[Any]:
        return [self.construct(item) for item in node.value]

    def _mapping(self, node: MappingNode) -> dict[str, Any]:
        data: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if key_node.tag == _MERGE:
                for key, value in self._merge(value_node):
                    merged.setdefault(key, value)
                continue
            if not isinstance(key_node, ScalarNode):
                raise _error("a key must be a string", key_node)
            key = key_node.value
            if key in data:
                raise _error(f'the key "{key}" is there twice', key_node)
            data[key] = self.construct(value_node)
        return {**merged, **data} if merged else data

    def _merge(self, node: Node) -> Iterator[tuple[str, Any]]:
        sources = node.value if isinstance(node, SequenceNode) else [node]
        for source in sources:
            data = self.construct(source)
            if not isinstance(data, dict):
                raise _error("only mappings can be merged with <<", source)
            yield from data.items()


def _scalar(node: ScalarNode) -> Any:
    text: str = node.value
    match node.tag:
        case tag if tag == _STR or tag == _MERGE:
            return text
        case tag if tag == _NULL:
            return None
        case tag if tag == _BOOL:
            return text in ("true", "True", "TRUE")
        case tag if tag == _INT or tag == _FLOAT:
            return _number(text, node)
    raise _error(f"the tag {node.tag} is not supported", node)


def _number(text: str, node: ScalarNode) -> int | float:
    try:
        if text.startswith(("0o", "0x")):
            return int(text, 0)
        if node.tag == _INT:
            return int(text)
        return float(text.replace(".inf", "inf").replace(".Inf", "inf").replace(".INF", "inf").replace(".nan", "nan"))
    except ValueError:
        raise _error(f'"{text[:40]}" is not a number', node) from None


def _child(node: MappingNode, name: str) -> tuple[Node, Node] | None:
    for key, value in node.value:
        if key.value == name:
            return key, value
    return None


def _error(message: str, node: Node) -> DocumentError:
    return DocumentError(message, node.start_mark.line + 1)
