"""What may be wrong with recorded data: the rules by name, and one case of one."""

from __future__ import annotations

from typing import Literal, NamedTuple

from toolkit.types import Json, ToolkitError

Severity = Literal["error", "warning"]

RULES: dict[str, tuple[Severity, str]] = {
    "unreadable": ("error", "the file can be opened, is whole, and holds a known layout"),
    "missing-array": ("error", "every episode has all arrays"),
    "row-count": ("error", "an episode has T actions, rewards and flags, and T + 1 observations"),
    "swapped-axes": ("error", "rows are steps and columns are numbers, not the other way round"),
    "shape": ("error", "all episodes have arrays of the same width"),
    "task-shape": ("error", "observations, actions and goals are as wide as the task card's simulator has them"),
    "goal-key": ("error", "goals are called achieved_goal and desired_goal, and both are there or none"),
    "not-finite": ("error", "no number is NaN or infinite"),
    "action-bounds": ("error", "actions lie within the bounds of the action space"),
    "early-end": ("error", "terminated and truncated are set on an episode's last step only"),
    "misaligned": ("error", "the observation that follows a step is the next step's observation"),
    "dtype": ("warning", "an array has the same type in all episodes"),
    "action-rounding": ("warning", "no action lies outside its bounds by rounding; such a one is clipped"),
    "action-scale": ("warning", "all episodes have actions of one scale"),
    "both-flags": ("warning", "a step is terminated or truncated, not both"),
    "no-end-flag": ("warning", "an episode's last step is terminated or truncated; else it counts as truncated"),
    "time-limit": ("warning", "no episode is longer than the time limit"),
    "terminal-timeout": ("warning", "running into the time limit is truncated, not terminated"),
    "jump": ("warning", "nothing moves many times farther in one step than it does in others"),
    "frozen": ("warning", "observations change while an episode goes on"),
    "zero-row": ("warning", "no row holds zeros only"),
    "duplicate": ("warning", "no two episodes are the same"),
    "no-success": ("warning", "some episode reaches the goal or is paid differently from the others"),
    "reward-shift": ("warning", "recorded rewards are those of the task card"),
    "env-id": ("warning", "the data was recorded in the task card's environment"),
    "version": ("warning", "the data was recorded with the simulator that is installed"),
}


class Finding(NamedTuple):
    """One rule that does not hold, where, and what was found instead."""

    rule: str
    message: str
    episode: int | None = None  # as the file numbers them
    row: int | None = None  # within the episode
    cases: int = 1  # that it stands for

    @property
    def severity(self) -> Severity:
        """Errors make data unusable; warnings make it suspicious."""
        return RULES[self.rule][0]

    def __str__(self) -> str:
        place = "" if self.episode is None else f"episode_{self.episode}: "
        return place + ("" if self.row is None else f"row {self.row}: ") + self.message

    def json(self) -> Json:
        """For a report."""
        return {"rule": self.rule, "severity": self.severity, **self._asdict()}


def errors(findings: list[Finding]) -> list[Finding]:
    """Those that make the data unusable."""
    return [finding for finding in findings if finding.severity == "error"]


def without(findings: list[Finding], waived: list[str]) -> list[Finding]:
    """Those of rules that are not `waived`. Raises ToolkitError for the name of no rule."""
    unknown = sorted(set(waived) - set(RULES))
    if unknown:
        raise ToolkitError(f"--waive {unknown[0]}: expected the name of a rule: {', '.join(RULES)}")
    return [finding for finding in findings if finding.rule not in waived]
