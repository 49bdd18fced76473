"""What can be set, with defaults and meanings, out of the models that read it. Knows no torch."""

from __future__ import annotations

import json
import shutil
import textwrap
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple, get_args, get_origin

import pydantic

from toolkit.agents import CONFIGS
from toolkit.config import is_model, members, one_of
from toolkit.controllers.recipe import Recipe
from toolkit.pipeline.spec import PipelineSpec, Stage
from toolkit.tasks.card import TaskCard
from toolkit.types import ToolkitError

KINDS: dict[str, type[pydantic.BaseModel]] = {
    "pipeline": PipelineSpec,
    "task": TaskCard,
    "recipe": Recipe,
    **{get_args(stage.model_fields["kind"].annotation)[0]: stage for stage in members(Stage)},
    **CONFIGS,
}
"""Blocks of the files that a user writes: a whole file, a stage by its kind, the `config` of an agent."""


class Setting(NamedTuple):
    """One line of a block."""

    name: str  # dotted, as `--set` takes it
    default: str  # "required" where there is none
    meaning: str


def settings(kind: str) -> list[Setting]:
    """Everything that can be set in a block. Raises ToolkitError for an unknown one."""
    if kind not in KINDS:
        raise ToolkitError(f"no settings of {kind!r}: {one_of(KINDS, kind)}")
    return list(_of(KINDS[kind], ""))


def _of(model: type[pydantic.BaseModel], prefix: str) -> Iterator[Setting]:
    """The settings of a model, then of the blocks within it."""
    for name, field in model.model_fields.items():
        kinds = members(field.annotation)
        inner = [kind for kind in kinds if is_model(kind)]
        if get_origin(field.annotation) is Literal and len(get_args(field.annotation)) == 1:
            continue  # the word that chose this model
        default = "required" if field.is_required() else _shown(field.get_default(call_default_factory=True))
        words = [str(word) for kind in kinds if get_origin(kind) is Literal for word in get_args(kind)]
        words += [tag for kind in inner if (tag := _tag(kind))]
        about = field.description or (inner and inner[0].__doc__) or ""
        meaning = " ".join(about.partition("\n\n")[0].split())
        yield Setting(prefix + name, default, meaning + (f" ({', '.join(words)})" if words else ""))
        for kind in inner:
            tag = _tag(kind)
            for setting in _of(kind, f"{prefix}{name}."):
                yield setting._replace(meaning=f"{tag}: {setting.meaning}") if tag else setting


def _tag(model: type[pydantic.BaseModel]) -> str:
    """The word that chooses a model among others."""
    field = model.model_fields.get("kind")
    words = get_args(field.annotation) if field is not None else ()
    return str(words[0]) if words else ""


def _shown(value: Any) -> str:
    """A default as a file would have it."""
    if isinstance(value, pydantic.BaseModel):
        return _tag(type(value)) or "{}"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, str):
        return value or '""'
    return json.dumps(value, default=str)


def lines(found: list[Setting]) -> Iterator[str]:
    """The settings for a terminal."""
    names, defaults = (max(len(setting[place]) for setting in found) + 2 for place in (0, 1))
    width = max(40, shutil.get_terminal_size((120, 24)).columns - names - defaults)
    for name, default, meaning in found:
        first, *rest = textwrap.wrap(meaning, width) or [""]
        yield f"{name:{names}}{default:{defaults}}{first}".rstrip()
        yield from (" " * (names + defaults) + line for line in rest)
