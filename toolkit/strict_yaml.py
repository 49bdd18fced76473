"""YAML text to plain values that know where they stand. Stricter and safer than YAML usually is.

Numbers and booleans follow YAML 1.2 with Python's underscores: `1e-4`, `1e6`, `100_000` are numbers, `no` and `on` are
text. A name may stand once in a block. Tags are refused, so nothing but text, numbers, booleans, lists and blocks can
come out; size, depth and the growth by aliases are bounded.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from toolkit.types import ToolkitError

Keys = tuple[str | int, ...]

MAX_BYTES = 131_072
MAX_DEPTH = 32
MAX_VALUES = 20_000  # after aliases are written out

_DIGITS = r"[0-9]+(?:_[0-9]+)*"
_WHOLE = rf"[-+]?{_DIGITS}|0o[0-7]+|0x[0-9a-fA-F]+"
_REAL = rf"[-+]?(?:{_DIGITS}(?:\.(?:{_DIGITS})?)?|\.{_DIGITS})(?:[eE][-+]?[0-9]{{1,4}})?"
_NUMBER = rf"{_REAL}|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
_TAGS = {  # name -> (what it looks like, first characters)
    "null": (r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    "bool": (r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    "int": (_WHOLE, list("-+0123456789")),
    "float": (_NUMBER, list("-+.0123456789")),
}
_PREFIX = "tag:yaml.org,2002:"


class _Loader(yaml.SafeLoader):
    """Composes nodes; only `_Builder` turns them into values."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 (none of YAML 1.1's)
    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        if getattr(event, "tag", None):
            raise yaml.MarkedYAMLError(problem=f"tag {event.tag} is not allowed", problem_mark=event.start_mark)
        self._go_deeper(self.depth, event.start_mark)
        self.depth += 1
        node: yaml.Node | None = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def fetch_flow_collection_start(self, token: type[yaml.Token]) -> None:
        """Brackets are read far ahead of the nodes, at a cost that grows with the square of their number."""
        self._go_deeper(self.flow_level, self.get_mark())
        super().fetch_flow_collection_start(token)

    def _go_deeper(self, depth: int, place: yaml.Mark) -> None:
        if depth > MAX_DEPTH:
            raise yaml.MarkedYAMLError(problem=f"more than {MAX_DEPTH} levels", problem_mark=place)


class _Dumper(yaml.SafeDumper):
    """Quotes whatever `_Loader`, or a YAML 1.1 reader, would take for something else than text."""

    def text(self, value: str) -> yaml.Node:
        """Text as a node; the emitter alone would write NEL, a line break to readers, as it is."""
        return self.represent_scalar(_PREFIX + "str", value, style='"' if "\x85" in value else None)


for _name, (_pattern, _first) in _TAGS.items():
    for _class in (_Loader, _Dumper):
        _class.add_implicit_resolver(_PREFIX + _name, re.compile(rf"^(?:{_pattern})$"), _first)
_Dumper.add_representer(str, _Dumper.text)


@dataclass
class Document:
    """A file's values, the place of each, and what is wrong with the text itself.

    `places` maps the path of every key and list item to "file:line"; `problems` holds (place, sentence).
    """

    value: Any
    places: dict[Keys, str] = field(default_factory=dict)
    problems: list[tuple[str, str]] = field(default_factory=list)

    def place(self, keys: Keys) -> str:
        """Where the nearest named parent of `keys`, or `keys` itself, was written."""
        while keys not in self.places and keys:
            keys = keys[:-1]
        return self.places.get(keys, "")

    def put(self, keys: Keys, value: Any, place: str) -> None:
        """Set one value, making the blocks on the way. Raises ValueError where the way leads through no block."""
        block = self.value
        for depth, key in enumerate(keys[:-1], 1):
            if block.get(key) is None:
                block[key] = {}
                self.places[keys[:depth]] = place
            block = block[key]
            if not isinstance(block, dict):
                raise ValueError(f"{dotted(keys[:depth])} is {show(block)}, not a block with names of its own")
        block[keys[-1]] = value
        self.places = {known: at for known, at in self.places.items() if known[: len(keys)] != keys}
        self.places[keys] = place


def dotted(keys: Keys) -> str:
    """`("stages", "finetune", "seeds", 0)` as `stages.finetune.seeds[0]`."""
    text = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in keys)
    return text.removeprefix(".") or "(top)"


def show(value: Any) -> str:
    """A value in few characters, for an error message."""
    if value is None:
        return "nothing"
    if isinstance(value, dict):
        return "a block" if value else "an empty block"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    text = {True: "true", False: "false"}[value] if isinstance(value, bool) else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def read(path: Path) -> Document:
    """The document in a file. Raises ToolkitError where that is not UTF-8 text."""
    try:
        return parse(path.read_text(encoding="utf-8"), str(path))
    except UnicodeDecodeError as error:
        raise ToolkitError(f"{path}: expected UTF-8 text; {error.reason} at byte {error.start}") from None


def parse(text: str, name: str) -> Document:
    """Read one YAML document; never raises: what is wrong is in `problems`, then `value` may be None.

    `name` is what places begin with, usually the file.
    """
    document = Document(None, {(): f"{name}:1"})
    if len(text) > MAX_BYTES:
        document.problems.append((name, f"expected at most {MAX_BYTES} bytes, got {len(text)}"))
        return document
    try:
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{name}:{mark.line + 1}" if mark else name
        document.problems.append(
            (place, f"not readable as YAML: {'; '.join(filter(None, (error.context, error.problem)))}")
        )
    except yaml.YAMLError as error:  # characters that no YAML file may hold
        document.problems.append((name, f"not readable as YAML: {str(error).splitlines()[0]}"))
    else:
        builder = _Builder(name, document)
        try:
            document.value = builder.build(node, ()) if node else {}
        except _TooMuch as error:
            document.problems.append((name, str(error)))
    return document


def render(value: Any) -> str:
    """Plain values as YAML that `parse` reads back unchanged."""
    text: str = yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)
    return text


class _TooMuch(Exception):
    """Aliases that grow without bound."""


class _Builder:
    def __init__(self, name: str, document: Document) -> None:
        self.name = name
        self.document = document
        self.count = 0

    def build(self, node: yaml.Node, keys: Keys) -> Any:
        """The value of a node; an alias is built anew each time, so values share nothing."""
        self.count += 1
        if self.count > MAX_VALUES or len(keys) > MAX_DEPTH:
            raise _TooMuch(f"expected at most {MAX_VALUES} values and {MAX_DEPTH} levels; check the aliases (*name)")
        if isinstance(node, yaml.MappingNode):
            return self._block(node, keys)
        if isinstance(node, yaml.SequenceNode):
            for index, child in enumerate(node.value):
                self.document.places[(*keys, index)] = self._place(child)
            return [self.build(child, (*keys, index)) for index, child in enumerate(node.value)]
        return _scalar(node.tag.removeprefix(_PREFIX), node.value)

    def _block(self, node: yaml.MappingNode, keys: Keys) -> dict[str, Any]:
        block: dict[str, Any] = {}
        for key_node, child in node.value:
            key, place = key_node.value, self._place(key_node)
            if key_node.tag != _PREFIX + "str":
                text = f"expected a name, got {key if isinstance(key, str) else 'a list or block'}; put it in quotes"
                self.document.problems.append((place, f"{dotted(keys)}: {text}"))
            elif key in block:
                text = f"expected each name once, got it again (first in {self.document.places[(*keys, key)]})"
                self.document.problems.append((place, f"{dotted((*keys, key))}: {text}"))
            else:
                self.document.places[(*keys, key)] = place
                block[key] = self.build(child, (*keys, key))
        return block

    def _place(self, node: yaml.Node) -> str:
        return f"{self.name}:{node.start_mark.line + 1}"


def _scalar(tag: str, text: str) -> Any:
    match tag:
        case "null":
            return None
        case "bool":
            return text.lower() == "true"
        case "int" if text[:2] in ("0x", "0o"):
            return int(text[2:], 16 if text[1] == "x" else 8) if len(text) < 400 else math.inf
        case "int" if len(text) < 400:
            return int(text)
        case "int" | "float":
            if text.lstrip("+-")[:2].lower() in (".i", ".n"):
                return float(text.replace(".", ""))
            number = float(text)
            # `1e6` is a whole number to whoever writes it
            return (
                int(number) if re.fullmatch(rf"[-+]?{_DIGITS}[eE]\+?1?[0-9]", text) and abs(number) < 1e15 else number
            )
        case _:
            return text
