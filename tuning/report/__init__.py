"""The self-contained HTML page of a sweep."""

from tuning.report.html import write_sweep_report

__all__ = ["write_sweep_report"]
