"""Pages that need nothing but a browser: of a run, of several side by side, of a folder of them (level 4)."""

from toolkit.report.page import write_report

__all__ = ["write_report"]
