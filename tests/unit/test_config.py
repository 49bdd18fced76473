"""YAML in, model or errors out: values, messages with file and line, overrides, hostile and mistyped files."""

from __future__ import annotations

import contextlib
import math
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field

from toolkit import strict_yaml
from toolkit.config import ConfigError, Problem, Share, Strict, dump, load_model, validate


class Fixed(Strict):
    kind: Literal["fixed"] = "fixed"
    offline: Share = 0.5


class Annealed(Strict):
    kind: Literal["annealed"]
    over_steps: int = Field(gt=0)
    """Steps the change takes."""


class Block(Strict):
    temperature: float | Literal["keep"] | None = None
    cells: tuple[tuple[int, int], ...] | Literal["any"] = "any"
    mix: Annotated[Fixed | Annealed, Field(discriminator="kind")] = Fixed()


class Run(Strict):
    kind: Literal["run"]
    steps: int = Field(gt=0)
    """Steps to run."""
    lr: float = 3e-4
    mode: Literal["auto", "on", "off"] = "auto"
    block: Block = Block()


class Rest(Strict):
    kind: Literal["rest"]


class File(Strict):
    shortcut = "stages"
    name: str
    seeds: tuple[int, ...] = Field((0,), min_length=1)
    stages: dict[str, Annotated[Run | Rest, Field(discriminator="kind")]] = Field(default_factory=dict)
    extra: Block | None = None


GOOD = "name: demo\nstages:\n  fit:\n    kind: run\n    steps: 10\n"


def load(tmp_path: Path, text: str, overrides: list[str] | None = None) -> File:
    file = tmp_path / "f.yaml"
    file.write_text(text)
    return load_model(file, File, overrides or [])


def errors(tmp_path: Path, text: str, overrides: list[str] | None = None) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text, overrides)
    return [line.removeprefix(f"{tmp_path}/") for line in caught.value.problems]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("3e-4", 3e-4),
        ("1e6", 1_000_000),
        ("100_000", 100_000),
        ("-5", -5),
        ("010", 10),
        ("0x1f", 31),
        ("0x" + "f" * 5_000, math.inf),  # more digits than Python puts into words
        ("1.", 1.0),
        (".5", 0.5),
        ("1_0.5", 10.5),
        ("no", "no"),
        ("on", "on"),
        ("12:30:45", "12:30:45"),
        ("2024-01-01", "2024-01-01"),
        ("1_", "1_"),
        ("true", True),
        ("null", None),
        ("~", None),
        ("'7'", "7"),
        ("", None),
    ],
)
def test_scalars(text: str, value: Any) -> None:
    got = strict_yaml.parse(f"a: {text}", "f").value["a"]
    assert (got, type(got)) == (value, type(value))


def test_a_good_file(tmp_path: Path) -> None:
    made = load(tmp_path, GOOD + "    lr: 1\n    block: {cells: [[1, 2]], mix: {kind: annealed, over_steps: 1e3}}\n")
    run = made.stages["fit"]
    assert isinstance(run, Run)
    assert isinstance(run.block.mix, Annealed)
    assert run.lr == 1.0
    assert run.block.cells == ((1, 2),)
    assert validate(File, dump(made)) == (made, [])
    assert load(tmp_path, strict_yaml.render(dump(made))) == made


def test_all_errors_at_once_with_place_and_suggestion(tmp_path: Path) -> None:
    text = """\
name: 3
seedz: [1]
name: x
seeds: [0, a, true, "1"]
stages:
  one: {kind: rum}
  two: {steps: 4}
  fit:
    kind: run
    lr: .nan
    mode: of
    block:
      temperature: kep
      cells: [[1, b]]
      mix: {kind: fixed, offline: 1.5, ofline: 3}
extra: 3
"""
    assert errors(tmp_path, text) == [
        "f.yaml:1: name: expected text, got 3",
        "f.yaml:2: seedz: expected one of name, seeds, stages, extra; got 'seedz'; did you mean 'seeds'?",
        f"f.yaml:3: name: expected each name once, got it again (first in {tmp_path}/f.yaml:1)",
        "f.yaml:4: seeds[1]: expected a whole number, got 'a'",
        "f.yaml:4: seeds[2]: expected a whole number, got true",
        "f.yaml:4: seeds[3]: expected a whole number, got '1'",
        "f.yaml:6: stages.one.kind: expected one of run, rest; got 'rum'; did you mean 'run'?",
        "f.yaml:7: stages.two.kind: expected one of run, rest; got nothing",
        "f.yaml:8: stages.fit.steps: expected a value (Steps to run), got nothing",
        "f.yaml:10: stages.fit.lr: expected a finite number, got nan",
        "f.yaml:11: stages.fit.mode: expected one of auto, on, off, got 'of'; did you mean 'off'?",
        "f.yaml:13: stages.fit.block.temperature: expected a number or keep, got 'kep'",
        "f.yaml:14: stages.fit.block.cells[0][1]: expected a whole number, got 'b'",
        "f.yaml:15: stages.fit.block.mix.offline: expected at most 1, got 1.5",
        "f.yaml:15: stages.fit.block.mix.ofline: expected one of kind, offline; got 'ofline'; did you mean 'offline'?",
        "f.yaml:16: extra: expected a block of names, got 3",
    ]


def test_overrides(tmp_path: Path) -> None:
    made = load(
        tmp_path,
        GOOD,
        [
            "fit.steps=1e3",
            "seeds=[3, 4]",
            "fit.block.mix.kind=annealed",
            "fit.block.mix.over_steps=5",
            "stages.fit.lr=1e-5",
        ],
    )
    run = made.stages["fit"]
    assert isinstance(run, Run)
    assert (made.seeds, run.steps, run.lr) == ((3, 4), 1000, 1e-5)
    assert run.block.mix == Annealed(kind="annealed", over_steps=5)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("fit.steps=yes", "fit.steps: expected a whole number, got 'yes'"),
        ("fit.step=4", "fit.step: expected one of kind, steps, lr, mode, block; got 'step'; did you mean 'steps'?"),
        ("fut.steps=4", "fut.steps: expected one of name, seeds, stages, extra, fit; got 'fut'; did you mean 'fit'?"),
        ("seeds=[]", "seeds: expected a length of at least 1, got a list of 0"),
        ("fit.kind.x=3", "fit.kind is 'run', not a block with names of its own"),
        (
            "fit.block.mix.kind=fixt",
            "fit.block.mix.kind: expected one of fixed, annealed; got 'fixt'; did you mean 'fixed'?",
        ),
        ("nonsense", "expected NAME.NAME=VALUE"),
        ("a..b=1", "expected NAME.NAME=VALUE"),
        ("name=[", "not readable as YAML"),
        ("name=!!python/name:os.system x", "tag tag:yaml.org,2002:python/name:os.system is not allowed"),
    ],
)
def test_a_wrong_override_names_itself(tmp_path: Path, override: str, message: str) -> None:
    (line,) = errors(tmp_path, GOOD, [override])
    assert line.startswith(f"--set {override}: ")
    assert message in line


def test_a_check_of_the_whole_speaks_beside_the_models(tmp_path: Path) -> None:
    file = tmp_path / "f.yaml"
    file.write_text(GOOD + "extra: 1\n")
    with pytest.raises(ConfigError) as caught:
        load_model(file, File, [], lambda raw: [Problem(("stages", "fit", "steps"), f"expected 3, got {raw['name']}")])
    assert [line.split(": ", 1)[1] for line in caught.value.problems] == [
        "stages.fit.steps: expected 3, got demo",
        "extra: expected a block of names, got 1",
    ]


LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12)
)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a: !!python/object/apply:os.system ['touch canary']", "is not allowed"),
        (LAUGHS.encode(), "check the aliases"),
        (b"a: &a [*a]", "check the aliases"),
        (b"[" * 100_000, "more than 32 levels"),
        (b"a: 1\n" * 100_000, "expected at most"),
        (b"name: \xff\xfe", "expected UTF-8 text"),
        (b"name: \x00", "not readable as YAML"),
        (b"name: a\n---\nname: b", "another document"),
        (b"name: a: b", ":1: not readable as YAML"),
        (b"- 1", "(top): expected a block of names, got a list of 1"),
        (b"", "name: expected a value, got nothing"),
        (b"1: 2\nname: x", ":1: (top): expected a name, got 1; put it in quotes"),
        (b"<<: {name: x}\nname: y", "<<: expected one of name"),
        (b"name: x\nseeds: [" + b"9" * 10_000 + b"]", "seeds[0]: expected"),
    ],
)
def test_hostile_files_are_refused_quickly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "f.yaml"
    file.write_bytes(content)
    began = time.process_time()
    with pytest.raises(ConfigError) as caught:
        load_model(file, File)
    assert time.process_time() - began < 1.0
    assert message in str(caught.value)
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("name", ["missing.yaml", "."])
def test_no_such_file(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="expected a readable YAML file"):
        load_model(tmp_path / name, File)


def test_models_are_frozen_and_export_a_schema() -> None:
    assert File.model_json_schema()["$defs"]["Run"]["properties"]["steps"]["description"] == "Steps to run."
    with pytest.raises(ValueError, match="frozen"):
        Fixed().offline = 0.1  # type: ignore[misc]


def test_reading_a_configuration_does_not_import_torch() -> None:
    code = "import sys, toolkit.config, toolkit.catalog, toolkit.pipeline.load; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(), st.lists, max_leaves=8
    )
)
def test_what_is_rendered_reads_back_equal(value: Any) -> None:
    document = strict_yaml.parse(strict_yaml.render({"a": value}), "f")
    assert not document.problems
    if not isinstance(value, int) or abs(value) < 10**300:
        assert document.value == {"a": value}


TYPOS = st.lists(
    st.tuples(st.integers(0, 400), st.sampled_from(["insert", "delete", "swap"]), st.characters()), max_size=6
)
FULL = GOOD + "    block: {temperature: keep, cells: [[1, 2]], mix: {kind: fixed, offline: 0.5}}\nseeds: [0, 1]\n"


@settings(max_examples=150, deadline=None)
@given(TYPOS, st.lists(st.text(max_size=20), max_size=2))
def test_typos_end_in_a_config_error_or_a_model(
    tmp_path_factory: pytest.TempPathFactory, typos: list[tuple[int, str, str]], overrides: list[str]
) -> None:
    text = FULL
    for at, what, character in typos:
        at %= len(text) or 1
        put = "" if what == "delete" else character
        text = text[:at] + put + text[at + (what != "insert") :]
    file = tmp_path_factory.getbasetemp() / "fuzz.yaml"
    file.write_bytes(text.encode("utf-8", "surrogatepass"))
    with contextlib.suppress(ConfigError):
        load_model(file, File, overrides)


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet=st.sampled_from("ab: -[]{},&*!|>\"'#\n\t%@`?0.e_~"), max_size=60))
def test_any_text_parses_or_says_why(text: str) -> None:
    document = strict_yaml.parse(text, "f")
    assert document.problems or document.value is not None or text.strip()
