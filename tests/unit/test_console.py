"""The terminal view: lines without a terminal, a live picture with one, and streams that misbehave."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import select
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from toolkit.console import Console, before_and_after, duration, number, printable, rate
from toolkit.console.words import result_rows
from toolkit.types import Json

SUMMARY = {
    "stages": {
        "collect": {"kind": "collect", "wall_s": 7.0},
        "clone": {"kind": "offline", "agent": "bc", "success": {"iqm": 0.25, "ci95": [0.2, 0.3], "per_seed": [0.25]}},
        "pretrain": {
            "kind": "offline",
            "agent": "iql",
            "success": {"iqm": 0.93, "ci95": [0.9, 0.95], "per_seed": [0.95, 0.9, 0.94]},
        },
        "finetune": {
            "kind": "online",
            "agent": "sac",
            "start": "pretrain",
            "success": {"iqm": 0.99, "ci95": [0.98, 1.0], "per_seed": [1.0, 0.98, 0.99]},
        },
    },
    "baselines": {"bc": {"stage": "clone", "success": {"iqm": 0.25, "ci95": [0.2, 0.3], "per_seed": [0.25]}}},
}


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


def a_run(console: Console, clock: Clock) -> None:
    with console:
        console.pipeline(["collect", "pretrain", "finetune"])
        console.stage_finished("collect", "119,412 transitions", skipped=True)
        console.stage_started("pretrain", total=1000, unit="updates")
        for step in range(0, 1001, 10):
            clock.now += 0.125
            console.advance(step, {"eval/success": [0.25, 0.75]} if step == 500 else {"loss/Q": [1.0, 2.0]})
        console.stage_finished("pretrain", "success 0.93")
        console.note("a note [not markup] \x1b[31mnot red")
        console.final_table(SUMMARY, report=Path("runs/x/report.html"))


def test_plain_lines() -> None:
    stream, clock = io.StringIO(), Clock()
    a_run(Console("auto", stream, clock), clock)
    text = stream.getvalue()
    assert "\x1b" not in text
    assert "\r" not in text
    lines = text.splitlines()
    assert lines[0] == "[1/3] collect: already done: 119,412 transitions"
    assert lines[1] == "[2/3] pretrain: started, 1,000 updates"
    assert lines[2] == "[2/3] pretrain: 39 % of 1,000 updates, 80 updates/s, 0:08 left  loss Q 1.50"
    assert lines[3] == "[2/3] pretrain: 50 % of 1,000 updates, 80 updates/s, 0:06 left  success 0.50  loss Q 1.50"
    assert any(line.startswith("[2/3] pretrain: done in 0:13: success 0.93") for line in lines)
    assert "a note [not markup]  [31mnot red" in lines
    assert len(lines) < 16
    table = "\n".join(lines[-6:])
    assert re.search(r"bc \(baseline\) +0\.25 +0\.20 to 0\.30 +0\.25", table)
    assert re.search(r"pretrain \(before\) +0\.93 +0\.90 to 0\.95 +0\.95 0\.90 0\.94", table)
    assert re.search(r"finetune \(after\) +0\.99 +0\.98 to 1\.00 +1\.00 0\.98 0\.99", table)
    assert lines[-1] == "Report: runs/x/report.html"


def test_none_shows_notes_and_results_only() -> None:
    stream, clock = io.StringIO(), Clock()
    a_run(Console("none", stream, clock), clock)
    assert "pretrain:" not in stream.getvalue()
    assert "a note" in stream.getvalue()
    assert "finetune (after)" in stream.getvalue()


def test_plain_on_a_terminal_has_no_control_codes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    stream, clock = Terminal(), Clock()
    a_run(Console("plain", stream, clock), clock)
    assert "\x1b" not in stream.getvalue()


def test_live_view_has_stages_bar_and_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    stream, clock = Terminal(), Clock()
    a_run(Console("auto", stream, clock), clock)
    text = stream.getvalue()
    assert "✔" in text
    assert "already" not in text
    assert "119,412 transitions" in text


@pytest.mark.parametrize("columns", [20, 40, 80, 200])
def test_the_picture_fits_the_terminal(monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    clock = Clock()
    console = Console("auto", Terminal(), clock)
    console.pipeline(["collect", "a stage with quite a long name", "finetune"])
    console.stage_started("a stage with quite a long name", 100_000, "updates")
    for step in (0, 25_000):
        console.advance(step, {"eval/success": [0.5, 0.75], "loss/Q": 1.5, "odd[name]": float("nan")})
        clock.now += 10.0
    with console._rich.capture() as capture:
        console._rich.print(console._view())
    picture = re.sub(r"\x1b\[[0-9;]*m", "", capture.get())
    assert max(len(line) for line in picture.splitlines()) <= columns
    if columns >= 40:
        assert "25 %" in picture
        assert "0:30 left" in picture
        assert re.search(r"success +0\.6", picture)
        assert re.search(r"updates/s +2,500", picture)
    if columns >= 80:
        assert "0.50 0.75" in picture
        assert "odd[name]" in picture


def test_time_left_is_never_negative_and_survives_a_clock_that_jumps() -> None:
    stream, clock = io.StringIO(), Clock()
    console = Console("plain", stream, clock)
    console.stage_started("train", total=10)
    for now, done in [(1.0, 1), (7.0, 5), (-50.0, 6), (-44.0, 7), (1e9, 8), (1e9 + 6, 30), (1e9 + 12, 29)]:
        clock.now = now
        console.advance(done)
    console.stage_finished("train")
    text = stream.getvalue()
    assert "-" not in text
    assert "100 %" in text
    assert not re.search(r"30[0-9] %", text)


def test_a_resumed_stage_does_not_count_old_work_as_speed() -> None:
    stream, clock = io.StringIO(), Clock()
    console = Console("plain", stream, clock)
    console.stage_started("train", total=1000)
    for done in (900, 910, 920):
        clock.now += 5.0
        console.advance(done)
    assert "92 % of 1,000 steps, 2 steps/s, 0:40 left" in stream.getvalue()


def test_advance_costs_microseconds() -> None:
    console = Console("plain", io.StringIO())
    console.stage_started("train", total=100_000)
    values = {"loss/Q": 1.0, "loss/pi": 2.0}
    start = time.perf_counter()
    for step in range(20_000):
        console.advance(step, values)
    assert (time.perf_counter() - start) / 20_000 < 50e-6  # some 2 on a quiet machine


class Broken(io.StringIO):
    """A pipe whose reader has gone after a few writes."""

    writes = 0

    def write(self, text: str) -> int:
        self.writes += 1
        if self.writes > 2:
            raise BrokenPipeError
        return super().write(text)


def test_a_closed_stream_does_not_end_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    closed = io.StringIO()
    closed.close()
    for stream in (Broken(), closed):
        clock = Clock()
        a_run(Console("auto", stream, clock), clock)
    monkeypatch.setattr(sys, "stderr", None)
    clock = Clock()
    a_run(Console("auto", None, clock), clock)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_any_encoding_will_do(encoding: str) -> None:
    buffer = io.BytesIO()
    stream = io.TextIOWrapper(buffer, encoding=encoding, write_through=True)
    clock = Clock()
    console = Console("auto", stream, clock)
    console.note("naïve – 走")
    a_run(console, clock)
    assert b"done in 0:13" in buffer.getvalue()


def test_an_exception_marks_the_stage() -> None:
    stream = io.StringIO()
    console = Console("plain", stream)
    console.stage_started("train", total=10)
    with pytest.raises(KeyboardInterrupt), console:
        raise KeyboardInterrupt
    assert stream.getvalue().splitlines()[-1] == "[1/1] train: stopped: interrupted"


SCRIPT = """
import sys, time
from toolkit.console import Console
with Console("auto") as console:
    console.pipeline(["collect", "train"])
    console.stage_started("collect", 4, "episodes")
    for i in range(5):
        console.advance(i, {"eval/success": [0.5, i / 4]})
        time.sleep(0.3)
    console.stage_finished("collect", "done well")
    print("a result")
"""


def test_on_a_real_terminal_of_40_columns_and_a_poor_locale() -> None:
    outer, inner = pty.openpty()
    import fcntl
    import termios

    fcntl.ioctl(inner, termios.TIOCSWINSZ, struct.pack("HHHH", 20, 40, 0, 0))
    environment = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES", "NO_COLOR")}
    environment |= {"TERM": "xterm-256color", "LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"}
    run = subprocess.Popen([sys.executable, "-c", SCRIPT], stderr=inner, stdout=subprocess.PIPE, env=environment)
    os.close(inner)
    shown = b""
    while select.select([outer], [], [], 30)[0]:
        try:
            shown += os.read(outer, 4096)
        except OSError:  # the other end is closed
            break
    out, _ = run.communicate()
    assert run.returncode == 0
    assert out == b"a result\n"  # standard output carries results alone
    text = shown.decode("ascii")
    assert "\x1b[?25h" in text  # the cursor is back
    assert "+ collect" in re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text)
    assert "done well" in text


@pytest.mark.parametrize("unbuffered", ["", "1"])  # an empty one counts as none
@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", "2>/dev/full"])
def test_closed_file_descriptors(closed: str, unbuffered: str) -> None:
    script = SCRIPT.replace('print("a result")', "")
    command = ["sh", "-c", f'"{sys.executable}" -c "$0" {closed}', script]
    run = subprocess.run(command, env={**os.environ, "PYTHONUNBUFFERED": unbuffered}, check=False)
    assert run.returncode == 0


def test_words() -> None:
    assert [duration(s) for s in (-3, 0, 7.4, 724, 3723)] == ["0:00", "0:00", "0:07", "12:04", "1:02:03"]
    values = [None, float("nan"), 0.0, 0.98, -61.25, 12345.6, 3e-6, 2e9, float("inf")]
    assert [number(v) for v in values] == ["-", "-", "0.00", "0.98", "-61.2", "12,346", "3.0e-06", "2.0e+09", "inf"]
    assert [rate(v) for v in (None, float("nan"), 1.0, 0.0033)] == ["-", "-", "1.00", "0.00"]
    assert printable("a\x1b[2J\nb") == "a [2J b"


def test_before_and_after() -> None:
    assert before_and_after(SUMMARY) == ("pretrain", "finetune")
    assert before_and_after({}) == (None, None)
    offline = SUMMARY | {"stages": {k: v for k, v in SUMMARY["stages"].items() if k != "finetune"}}
    assert before_and_after(offline) == (None, "pretrain")  # clone is a baseline
    assert before_and_after({"stages": offline["stages"]}) == (None, None)  # two agents side by side
    unfinished = {"stages": SUMMARY["stages"] | {"finetune": {"kind": "online", "start": "pretrain"}}}
    assert before_and_after(unfinished) == ("pretrain", None)


def entry(kind: str, **fields: Any) -> Json:
    return {"kind": kind, "success": {"iqm": 0.5, "ci95": [0.4, 0.6], "per_seed": [0.5]}} | fields


def test_a_baseline_is_a_stage_and_not_an_agent() -> None:
    stages = {
        "calql_alpha1": entry("offline", agent="calql"),
        "pretrain": entry("offline", agent="calql"),
        "finetune": entry("online", agent="calql", start="pretrain"),
    }
    summary = {"stages": stages, "baselines": {"calql": stages["calql_alpha1"] | {"stage": "calql_alpha1"}}}
    assert before_and_after(summary) == ("pretrain", "finetune")
    labels = [label for label, _, _ in result_rows(summary)]
    assert labels == ["calql (baseline)", "pretrain (before)", "finetune (after)"]


def test_before_is_what_went_online() -> None:
    bc, iql = entry("offline", agent="bc"), entry("offline", agent="iql")
    scratch, going_on = entry("online", agent="rlpd"), entry("online", agent="sac", start="iql")
    assert before_and_after({"stages": {"bc": bc, "rlpd": scratch}}) == (None, "rlpd")
    assert before_and_after({"stages": {"rlpd": scratch, "iql": iql, "sac": going_on}}) == ("iql", "sac")
    assert before_and_after({"stages": {"iql": iql, "bc": bc, "sac": going_on}}) == ("iql", "sac")


def test_after_is_what_came_of_the_same_policy() -> None:
    iql, scratch = entry("offline", agent="iql"), entry("online", agent="rlpd")
    stages = {"iql": iql, "sac": entry("online", agent="sac", start="iql"), "bc": entry("offline", agent="bc")}
    assert before_and_after({"stages": stages | {"rlpd": scratch}}) == ("iql", "sac")
    for of, after in ({"iql": {}, "sac": {}}, "evaluate"), ({"sac": {}, "bc": {}}, "sac"), (["bc"], "sac"):
        assert before_and_after({"stages": stages | {"evaluate": entry("evaluate", of=of)}}) == ("iql", after)
    assert before_and_after({"stages": {"rlpd": scratch, "sac": scratch}}) == (None, None)  # side by side


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("locomotion", ("pretrain", "evaluate")),
        ("offline2online", ("pretrain", "evaluate")),
        ("fetch", ("bc", "evaluate")),
        ("stitching", ("iql", "finetune")),
        ("overestimation", (None, None)),
    ],
)
def test_before_and_after_of_measured_runs(name: str, expected: tuple[str | None, str | None]) -> None:
    file = Path(__file__).parents[2] / "benchmarks" / "results" / f"{name}.json"
    assert before_and_after(json.loads(file.read_text())) == expected
