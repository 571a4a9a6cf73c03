"""Reports: charts and pictures of runs as one HTML file that needs nothing else (matplotlib, imported when used)."""

from medmae.reports.run_report import write_run_report

__all__ = ["write_run_report"]
