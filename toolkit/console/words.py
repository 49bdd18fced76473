"""Numbers, times and results as a person reads them."""

from __future__ import annotations

import math
from collections.abc import Iterator

from toolkit.types import Json


def duration(seconds: float) -> str:
    """Minutes and seconds, 0:07, with hours where there are any, 1:02:03; never negative."""
    minutes, rest = divmod(int(max(0.0, seconds) + 0.5), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def number(value: float | None) -> str:
    """About three digits: 0.98, -61.2, 12,345, 3.0e-06; a dash for nothing and NaN."""
    if value is None or math.isnan(value):
        return "-"
    size = abs(value)
    if size >= 1e7 or 0 < size < 0.005:
        return f"{value:.1e}"
    return f"{value:,.{0 if size >= 1000 else 1 if size >= 10 else 2}f}"


def rate(value: float | None) -> str:
    """A share of one, 0.98; a dash for nothing and NaN."""
    return "-" if value is None or math.isnan(value) else f"{value:.2f}"


def printable(text: str) -> str:
    """The text on one line, without characters that would move a cursor or change a colour."""
    return "".join(c if c.isprintable() else " " for c in text)


def rolled_back(line: Json) -> str:
    """What the guard of an online stage did."""
    share = f", with {rate(line['offline'])} of each batch or more from the recording" if line["offline"] else ""
    return (
        f"step {line['step']:,}: seed {line['seed']} had fallen to {rate(line['success'])} and went back to step "
        f"{line['best_step']:,} ({rate(line['best'])}); its policy learns at {line['lr_policy']:.3g} times the "
        f"rate{share}"
    )


def judged_by(result: Json) -> str:
    """What a policy is judged by: success where the task says what that is, else the return."""
    success = result.get("success")
    return "success" if isinstance(success, dict) and success.get("iqm") is not None else "return"


def before_and_after(summary: Json) -> tuple[str | None, str | None]:
    """The stages whose score, success or return, a reader compares: before the online part and at the end.

    The online part is the last online stage that goes on from another, else the only one. Before is what that stage
    goes on from, none where it began from scratch; after is the last evaluation of its policy, else its own; baselines
    are left out. Without an online stage there is no before, and an after only where a single stage measured anything:
    of several agents side by side none is the result.
    """
    stages = summary.get("stages", {})
    measured = _measured(summary)
    online = [name for name, stage in stages.items() if stage.get("kind") == "online"]
    switched = [name for name in online if stages[name].get("start")]
    if not online:
        return None, measured[0] if len(measured) == 1 else None
    if not switched and len(online) > 1:
        return None, None
    practised = (switched or online)[-1]
    before = stages[practised].get("start")
    # the score of an evaluation is that of the last policy it names
    after = [name for name in measured if name == practised or [*(stages[name].get("of") or ())][-1:] == [practised]]
    return (before if before in measured else None), (after[-1] if after else None)


def result_rows(summary: Json) -> Iterator[tuple[str, Json, bool]]:
    """Label, score and whether it is a headline: baselines first, then the stages in order."""
    before, after = before_and_after(summary)
    stages = summary.get("stages", {})
    for name, baseline in summary.get("baselines", {}).items():
        if score := baseline.get(judged_by(baseline)):
            yield f"{name} (baseline)", score, False
    for name in _measured(summary):
        role = " (before)" if name == before else " (after)" if name == after and before else ""
        yield name + role, stages[name][judged_by(stages[name])], name in (before, after)


def _measured(summary: Json) -> list[str]:
    """Stages with a score, without the baselines."""
    baselines = {baseline.get("stage") for baseline in summary.get("baselines", {}).values()}
    stages = summary.get("stages", {})
    return [name for name, stage in stages.items() if stage.get(judged_by(stage)) and name not in baselines]
