"""The report of a run: ``report.html`` in its folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from medmae.errors import BadInput
from medmae.reports.page import Page
from medmae.reports.run_facts import configuration, footer
from medmae.run_folder import RunFolder


def write_run_report(run: RunFolder) -> Path:
    """Write the report of a pretrain, finetune, evaluate or curve run from what its folder holds; return its path.

    Raises:
        BadInput: the kind of run has no report, or matplotlib is missing.
    """
    from medmae.reports import curve_report, evaluate_report, finetune_report, pretrain_report

    writers: Mapping[str, Callable[[RunFolder], Page]] = {
        "pretrain": pretrain_report.build, "finetune": finetune_report.build, "evaluate": evaluate_report.build,
        "curve": curve_report.build}
    kind = run.spec["kind"]
    if kind not in writers:
        raise BadInput(f"A run of kind '{kind}' has no report. Reports exist for {', '.join(writers)}.")
    page = writers[kind](run)
    page.section("Settings")
    page.details("Configuration of the run", configuration(run))
    page.details("Inputs", run.spec["inputs"])
    return page.write(run.report, footer())
