"""The report of a run: one page that needs nothing but a browser (level 4)."""

from toolkit.report.page import write_report

__all__ = ["write_report"]
