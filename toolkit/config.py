"""YAML files to typed, frozen models, with errors a person can act on (level 0).

`load_model` reports every error of a file at once, each as `file:line: dotted.path: expected ..., got ...; did you
mean ...?`. Values given on the command line go through the same checks.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, TypeVar, Union, get_args, get_origin

import pydantic
from pydantic_core import ErrorDetails

from toolkit import strict_yaml
from toolkit.strict_yaml import Document, Keys, dotted, show
from toolkit.types import Json, ToolkitError

Share = Annotated[float, pydantic.Field(ge=0, le=1)]
Discount = Annotated[float, pydantic.Field(ge=0, lt=1)]
Seed = Annotated[int, pydantic.Field(ge=0, lt=2**31)]


class Strict(pydantic.BaseModel):
    """Base of everything a user writes in YAML: unknown names refused, nothing converted but whole numbers to reals.

    A docstring under a field is its description in the JSON schema and in error messages.
    """

    model_config = pydantic.ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True, protected_namespaces=()
    )

    shortcut: ClassVar[str] = ""
    """Field whose entries may begin an override's path: with "stages", `finetune.utd` is `stages.finetune.utd`."""
    decisive: ClassVar[str] = ""
    """Entry that says what those beside it mean."""

    @classmethod
    def overridden(cls, block: dict[str, Any], value: Any, given: Callable[..., bool]) -> None:
        """An override is about to give a block's decisive entry another value: take away what belonged to the old one,
        but not what was `given` by an override, which that tells of a path in the block."""


S = TypeVar("S", bound=Strict)
T = TypeVar("T", bound=pydantic.BaseModel)


class ConfigError(ToolkitError):
    """All that is wrong with one configuration; `problems` holds one line for each."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


class Problem(NamedTuple):
    """One thing wrong with a value: where in it, and a sentence `expected ..., got ...; did you mean ...?`."""

    keys: Keys
    text: str


def load_model(
    path: str | Path,
    model: type[S],
    overrides: Sequence[str] = (),
    check: Callable[[Json], Iterable[Problem]] | None = None,
) -> S:
    """Read a YAML file into `model`.

    `overrides` are `a.b=value` with a YAML value. `check` sees the plain values, which may be wrong in any way, and
    says what no single field can know. Raises ConfigError with every problem of the file and the overrides.
    """
    document, lines = _document(path, model, overrides)
    if document.value is not None:
        value, problems = validate(model, document.value)
        if check is not None and isinstance(document.value, dict):
            problems += check(document.value)
        lines += _placed(document, problems)
        if value is not None and not lines:
            return value
    raise ConfigError(sorted(dict.fromkeys(lines), key=_file_order))


def located(path: str | Path, model: type[Strict], overrides: Sequence[str], found: Iterable[Problem]) -> ConfigError:
    """The error for what turned out to be wrong with a file after `load_model` had read it."""
    document, _ = _document(path, model, overrides)
    return ConfigError(sorted(_placed(document, found), key=_file_order))


def _document(path: str | Path, model: type[Strict], overrides: Sequence[str]) -> tuple[Document, list[str]]:
    """The file with the overrides put in, and what is wrong with the text of either."""
    document = _read(Path(path))
    lines = [f"{place}: {text}" for place, text in document.problems]
    return document, lines + [line for item in overrides for line in _override(document, item, model)]


def _placed(document: Document, problems: Iterable[Problem]) -> list[str]:
    return [f"{document.place(keys)}: {dotted(keys)}: {text}" for keys, text in problems]


def validate(model: type[T], value: Any) -> tuple[T | None, list[Problem]]:
    """Check plain values as strictly as a file's; the paths of the problems are relative to `value`.

    Returns the model, or None and everything that is wrong.
    """
    try:
        # JSON mode: a list may become a tuple, but text never a number
        return model.model_validate_json(json.dumps(value), strict=True), []
    except pydantic.ValidationError as error:
        return None, list(_problems(model, error.errors(include_url=False)))


def dump(model: pydantic.BaseModel) -> Json:
    """The model with all its defaults as plain JSON values; `validate` reads them back to an equal model."""
    return model.model_dump(mode="json")


def nearest(name: str, names: Iterable[str]) -> str:
    """`; did you mean 'x'?` for the closest of `names`, or nothing where none is close."""
    original = {n.lower(): n for n in names}
    close = difflib.get_close_matches(name.lower(), original, n=1, cutoff=0.55)
    return f"; did you mean {original[close[0]]!r}?" if close else ""


def one_of(names: Iterable[str], got: str) -> str:
    """The sentence for a name that is not among `names`."""
    names = list(names)
    valid = f"one of {', '.join(names)}" if names else "nothing here"
    return f"expected {valid}; got {got!r}{nearest(got, names)}"


def _read(path: Path) -> Document:
    try:
        size = path.stat().st_size
        if size > strict_yaml.MAX_BYTES:
            raise ToolkitError(f"{path}: expected at most {strict_yaml.MAX_BYTES} bytes, got {size}")
        return strict_yaml.read(path)
    except OSError as error:
        raise ConfigError([f"{path}: expected a readable YAML file; {error.strerror}"]) from None
    except ToolkitError as error:
        raise ConfigError([str(error)]) from None


def _override(document: Document, item: str, model: type[Strict]) -> Iterator[str]:
    """Put one `a.b=value` into the document; yields what is wrong with it."""
    path, equals, text = item.partition("=")
    place = f"--set {item}"
    keys: Keys = tuple(path.strip().split("."))
    if not equals or "" in keys:
        yield f"{place}: expected NAME.NAME=VALUE"
        return
    parsed = strict_yaml.parse(text, place)
    yield from (f"{place}: {problem}" for _, problem in parsed.problems)
    if parsed.problems or not isinstance(document.value, dict):
        return
    value = None if parsed.value == {} and not text.strip() else parsed.value
    if keys[0] not in model.model_fields and model.shortcut:
        entries = document.value.get(model.shortcut)
        if not isinstance(entries, dict) or keys[0] not in entries:
            names = [*model.model_fields, *(entries if isinstance(entries, dict) else ())]
            yield f"{place}: {path.strip()}: {one_of(names, str(keys[0]))}"
            return
        keys = (model.shortcut, *keys)
    block: Any = document.value
    for key in keys[:-1]:
        block = block.get(key) if isinstance(block, dict) else None
    if keys[-1] == model.decisive and isinstance(block, dict) and block.get(keys[-1]) != value:
        model.overridden(block, value, lambda *inner: document.place((*keys[:-1], *inner)).startswith("--set"))
    try:
        document.put(keys, value, place)
    except ValueError as error:
        yield f"{place}: {error}"


def _file_order(line: str) -> tuple[bool, int, str]:
    """Problems of the file by line, then those of the overrides."""
    number = re.match(r"[^\n]*?:(\d+): ", line)
    return line.startswith("--set"), int(number[1]) if number else 0, line


# ---- pydantic's errors in our words

_EXPECTED = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "text",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "a block of names",
    "model_type": "a block of names",
    "model_attributes_type": "a block of names",
    "finite_number": "a finite number",
}


def _problems(model: type[pydantic.BaseModel], errors: Sequence[ErrorDetails]) -> Iterator[Problem]:
    """One problem for each wrong value; a union's members each complain of the same one."""
    wrong: dict[Keys, tuple[list[str], str]] = {}  # keys -> (what would do, what came)
    for error in errors:
        keys, owner, kind = _locate(model, error["loc"])
        context = error.get("ctx", {})
        match error["type"]:
            case "extra_forbidden":
                yield Problem(keys, one_of(owner.model_fields, str(keys[-1])))
            case "missing":
                yield Problem(keys, f"expected a value{_described(owner, keys)}, got nothing")
            case "value_error":
                yield Problem(keys, error["msg"].removeprefix("Value error, "))
            case "union_tag_not_found":
                word = _unquote(context["discriminator"])[0]
                names = [tag for member in members(kind) for tag in get_args(member.model_fields[word].annotation)]
                yield Problem((*keys, word), f"expected one of {', '.join(names)}; got nothing")
            case "union_tag_invalid":
                word, names = _unquote(context["discriminator"])[0], _unquote(context["expected_tags"])
                yield Problem((*keys, word), one_of(names, context["tag"]))
            case _:
                expected, got = wrong.setdefault(keys, ([], _got(error)))
                expected.append(_expected(error))
    for keys, (expected, got) in wrong.items():
        deeper = any(len(other) > len(keys) and other[: len(keys)] == keys for other in wrong)
        if not deeper:  # else another member of the union came further, and says more
            yield Problem(keys, f"expected {' or '.join(dict.fromkeys(expected))}, got {got}")


def _expected(error: ErrorDetails) -> str:
    if error["type"] == "literal_error":
        names = _unquote(error["ctx"]["expected"])
        return ("one of " if len(names) > 1 else "") + ", ".join(names)
    if error["type"] == "string_pattern_mismatch":
        return f"text that matches {error['ctx']['pattern']}"
    if error["type"] == "too_short":
        return f"a length of at least {error['ctx']['min_length']}"
    text = _EXPECTED.get(error["type"]) or error["msg"].removeprefix("Input should be ")
    return text.replace("greater than or equal to", "at least").replace("less than or equal to", "at most")


def _got(error: ErrorDetails) -> str:
    value = error["input"]
    literal = error["type"] == "literal_error" and isinstance(value, str)
    return show(value) + (nearest(value, _unquote(error["ctx"]["expected"])) if literal else "")


def _unquote(text: str) -> list[str]:
    """The words of pydantic's "'fixed', 'annealed' or 'none'"."""
    return re.findall(r"'([^']*)'", text)


def _described(owner: type[pydantic.BaseModel], keys: Keys) -> str:
    field = owner.model_fields.get(str(keys[-1]))
    return f" ({field.description.rstrip('.')})" if field is not None and field.description else ""


def _locate(model: type[pydantic.BaseModel], loc: Sequence[str | int]) -> tuple[Keys, type[pydantic.BaseModel], Any]:
    """The path in the file of pydantic's `loc`, which also names union members; its end's owner and declared type."""
    keys: Keys = ()
    kind: Any = model
    for part in loc:
        kinds = members(kind)
        if len(kinds) > 1:
            kind = next((one for one in kinds if part in _names(one)), Any)
            continue
        kind, keys = kinds[0], (*keys, part)
        if is_model(kind):
            model = kind
            field = model.model_fields.get(str(part))
            kind = field.annotation if field else Any
        else:  # a list or dict: its last argument is what it holds
            kind = next((inner for inner in reversed(get_args(kind)) if inner is not ...), Any)
    return keys, model, kind


def members(kind: Any) -> list[Any]:
    """What a union may be besides null; a type that is none, alone."""
    if get_origin(kind) is Annotated:
        return members(get_args(kind)[0])
    if get_origin(kind) in (Union, UnionType):
        return [inner for member in get_args(kind) if member is not NoneType for inner in members(member)]
    return [kind]


def _names(kind: Any) -> list[Any]:
    """What pydantic may call a member of a union: a word that chooses it among others, or its class."""
    fields = kind.model_fields.values() if is_model(kind) else ()
    tags = [tag for field in fields if get_origin(field.annotation) is Literal for tag in get_args(field.annotation)]
    return [getattr(kind, "__name__", None), *tags]


def is_model(kind: Any) -> bool:
    """Whether a type is a model."""
    return isinstance(kind, type) and issubclass(kind, pydantic.BaseModel)
