"""What a person sees while a run goes on: a live view on a terminal, plain lines elsewhere (level 0)."""

from toolkit.console.terminal import Console, View
from toolkit.console.words import before_and_after, duration, judged_by, number, printable, rate, rolled_back

__all__ = [
    "Console",
    "View",
    "before_and_after",
    "duration",
    "judged_by",
    "number",
    "printable",
    "rate",
    "rolled_back",
]
