"""What a person sees while a run goes on: a live view on a terminal, plain lines elsewhere (level 0).

Everything goes to standard error, so that standard output stays free for results. A stream that is closed, has
another encoding or is 40 columns wide changes how much is shown, never whether the run goes on.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal, Self, TextIO

import rich.console
from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from toolkit.console.stage import Stage
from toolkit.console.stream import SafeStream
from toolkit.console.words import duration, judged_by, number, printable, rate, result_rows
from toolkit.types import Json

View = Literal["auto", "plain", "none"]
Value = float | Sequence[float]

LABELS = {
    "eval/success": "success",
    "eval/return": "return",
    "eval/path_ratio": "route / shortest",
    "eval/steps": "steps",
    "rollout/success": "training success",
    "rollout/return": "training return",
    "q_data": "Q on data",
    "q_policy": "Q on policy",
    "q_start": "Q at the start",
    "true_return": "true return",
    "q_below_return": "Q below return",
    "offline_share": "recorded share",
    "action_distance": "distance to data",
    "guard/lr_policy": "guard, policy rate",
    "guard/offline": "guard, recorded share",
}
MOST_NUMBERS = 14  # lines of the live table, so that it fits a small terminal
LINE_SECONDS = 5.0  # between two plain lines
MARKS = {"waiting": "·", "running": "▸", "done": "✔", "skipped": "✔", "failed": "✘"}
ASCII_MARKS = {"waiting": ".", "running": ">", "done": "+", "skipped": "=", "failed": "x"}
STYLES = {"waiting": "dim", "running": "bold cyan", "done": "green", "skipped": "green dim", "failed": "bold red"}


class Console:
    """The terminal view of one run; a context manager.

    `progress` is "auto" (live on a terminal, else plain lines), "plain" (a line every few seconds and at every
    evaluation) or "none" (notes and the final table only). `advance` may be called at every step: it stores two
    references and looks at the clock, drawing happens elsewhere, at most a few times a second.
    """

    def __init__(
        self, progress: View = "auto", stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._stream = SafeStream(stream if stream is not None else sys.stderr)
        self._clock = clock
        self._silent = progress == "none"
        live = progress == "auto" and self._stream.isatty() and os.environ.get("TERM") not in ("dumb", "unknown")
        self._rich = rich.console.Console(
            file=self._stream,  # type: ignore[arg-type] # has what rich asks for
            force_terminal=live,
            color_system="auto" if live else None,
            highlight=False,
            markup=False,
            emoji=False,
        )
        self._marks = MARKS if self._stream.can_show("".join(MARKS.values())) else ASCII_MARKS
        self._stages: dict[str, Stage] = {}
        self._stage: Stage | None = None
        self._values: dict[str, Value] = {}
        self._line_at = 0.0
        self._live = self._new_live() if live else None

    def _new_live(self) -> Live:
        return Live(
            console=self._rich,
            get_renderable=self._view,
            refresh_per_second=2,
            redirect_stdout=False,  # results on standard output must not land in the view
            redirect_stderr=True,
        )

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is not None and self._stage is not None:
            self._end("failed", "interrupted" if kind in (KeyboardInterrupt, SystemExit) else "")
        if self._live:
            self._live.stop()

    def pipeline(self, names: Iterable[str]) -> None:
        """Announce the stages to come, in order."""
        self._stages = {name: Stage(printable(name)) for name in names}

    def stage_started(self, name: str, total: int | None = None, unit: str = "steps") -> None:
        """A stage begins; `total` counts `unit`s, None where nobody knows."""
        self._stage = self._stages.setdefault(name, Stage(printable(name)))
        self._stage.start(total, unit, self._clock())
        self._values = {}
        self._line_at = self._clock()
        self._line(f"{self._place()}started" + (f", {total:,} {unit}" if total else ""))

    def advance(self, done: int, values: Mapping[str, Value] | None = None) -> None:
        """`done` units of the running stage are finished; `values` are shown, a list as mean and per seed."""
        stage, now = self._stage, self._clock()
        if stage is None:
            return
        stage.advance(done, now)
        if values:
            self._values |= values
        if self._live or self._silent:
            return
        evaluated = values is not None and any(name.startswith("eval/") for name in values)
        if evaluated or not 0 <= now - self._line_at < LINE_SECONDS:
            self._line_at = now
            numbers = [f"{name} {mean}" for name, mean, _ in self._numbers()]
            self._line("  ".join([self._place() + stage.position(), *numbers]))

    def stage_finished(self, name: str, result_line: str = "", skipped: bool = False) -> None:
        """A stage is over, or was found finished (`skipped`); `result_line` says what came of it."""
        self._stage = self._stages.setdefault(name, Stage(printable(name)))
        self._end("skipped" if skipped else "done", printable(result_line))

    def note(self, text: str) -> None:
        """A line of its own, above the live view."""
        self._rich.print(Text(printable(text)), soft_wrap=True)

    def final_table(self, summary: Json, report: Path | str | None = None) -> None:
        """Success, or else return, before and after, per seed and with its interval, from what `summary.json` holds."""
        measures = {judged_by(stage) for stage in summary.get("stages", {}).values() if "return" in stage}
        measure, show = ("return", number) if measures == {"return"} else ("success", rate)
        table = Table(box=None, pad_edge=False, header_style="dim", show_edge=False)
        table.add_column()
        table.add_column(measure, justify="right")
        table.add_column("95 % interval")
        table.add_column("per seed")
        for label, score, strong in result_rows(summary):
            low, high = score.get("ci95") or (None, None)
            per_seed = " ".join(show(value) for value in score.get("per_seed") or [])
            interval = f"{show(low)} to {show(high)}" if low is not None else ""
            style = "bold" if strong else ""
            table.add_row(printable(label), show(score.get("iqm")), interval, per_seed, style=style)
        if table.row_count:
            self._rich.print(table)
        if report is not None:
            self._rich.print(Text(f"Report: {printable(str(report))}"), soft_wrap=True)

    def _end(self, state: str, result: str) -> None:
        assert self._stage is not None
        self._stage.state, self._stage.result = state, result
        if self._stage.started is not None:
            self._stage.seconds = max(0.0, self._clock() - self._stage.started)
        seconds = f" in {duration(self._stage.seconds)}" if state == "done" else ""
        words = {"done": "done", "skipped": "already done", "failed": "stopped"}[state]
        self._line(f"{self._place()}{words}{seconds}" + (f": {result}" if result else ""))
        self._stage, self._values = None, {}

    def _place(self) -> str:
        assert self._stage is not None
        place = next(i for i, stage in enumerate(self._stages.values(), 1) if stage is self._stage)
        return f"[{place}/{len(self._stages)}] {self._stage.name}: "

    def _line(self, text: str) -> None:
        if not self._live and not self._silent:
            self._stream.write(text + "\n")
            self._stream.flush()

    def _numbers(self) -> list[tuple[str, str, str]]:
        """Label, mean and per-seed text of what matters most."""
        values = dict(self._values)
        names = [name for name in LABELS if name in values] + sorted(values.keys() - LABELS.keys())
        rows = []
        for name in names[:MOST_NUMBERS]:
            value = values[name]
            each = [value] if isinstance(value, int | float) else [float(x) for x in value]
            mean = sum(each) / len(each) if each else float("nan")
            show = rate if name.endswith("success") else number
            per_seed = " ".join(show(x) for x in each) if len(each) > 1 else ""
            rows.append((LABELS.get(name, printable(name.replace("/", " "))), show(mean), per_seed))
        return rows

    def _view(self) -> RenderableType:
        """The live picture: stages, the running one's bar, its numbers."""
        wide = self._rich.width >= 60
        stages = Table.grid(padding=(0, 2 if wide else 1), expand=True)
        stages.add_column(width=1)
        stages.add_column(no_wrap=True, overflow="ellipsis", max_width=24 if wide else 12)
        stages.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
        stages.add_column(no_wrap=True, justify="right")
        for stage in list(self._stages.values()):
            style = STYLES[stage.state]
            middle: RenderableType = Text(stage.result, style="dim" if stage.state == "skipped" else "")
            right = duration(stage.seconds) if stage.state in ("done", "failed") else ""
            if stage.state == "running":
                middle = _bar(stage) if wide else Text(stage.percent())
                right = f"{stage.percent()}  {stage.left()}" if wide else stage.left()
            stages.add_row(Text(self._marks[stage.state], style), Text(stage.name, style), middle, Text(right))
        rows = self._numbers()
        if (running := self._stage) is not None and (speed := running.speed()):
            rows.append((f"{running.unit}/s", number(speed), ""))
        numbers = Table.grid(padding=(0, 2))
        numbers.add_column(no_wrap=True, overflow="ellipsis", style="dim")
        numbers.add_column(no_wrap=True, justify="right", style="bold")
        numbers.add_column(no_wrap=True, overflow="ellipsis", style="dim")
        for label, mean, per_seed in rows:
            numbers.add_row("  " + label, mean, per_seed if wide else "")
        return Group(stages, Text(""), numbers) if rows else stages


def _bar(stage: Stage) -> ProgressBar:
    return ProgressBar(total=stage.total or 1, completed=min(stage.done, stage.total or 0), pulse=not stage.total)
