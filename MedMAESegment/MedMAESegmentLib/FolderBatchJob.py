"""All images of a folder, segmented into files by one run of the engine."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from medmae.run_folder import RunFolder
from MedMAESegmentLib.BatchCase import BatchCase, summaryOf
from MedMAESegmentLib.ChildProcess import ChildProcess
from MedMAESegmentLib.RunJob import RunJob


class FolderBatchJob(RunJob):
    """The cases are in `cases`, their results are files; `result` is that list.

    What is finished is noted beside the results by the engine: started again, the batch goes on where it ended.
    """

    def __init__(self, run: RunFolder, process: ChildProcess, images: list[Path]) -> None:
        """`images` are called as in the run, which lies in a temporary folder that is removed at the end."""
        super().__init__(run, process)
        self.cases = [BatchCase(str(image)) for image in images]
        self._byImage = {str(image): case for image, case in zip(images, self.cases, strict=True)}
        self.recorded.connect(self._onRecord)

    def cancel(self) -> None:
        """End the run; finished cases stay."""
        if not self._ended:
            for case in self.cases:
                if case.state in ("waiting", "running"):
                    case.state = "cancelled"
        super().cancel()

    def _onRecord(self, record: dict[str, Any]) -> None:
        current = self._byImage.get(str(record.get("message")))
        if current is None:
            return
        for case in self.cases[:self.cases.index(current)]:
            if case.state in ("waiting", "running"):
                case.state = "done"
        if record["step"] < record["total"]:
            current.state = "running"

    def _takeEnd(self, name: str, state: dict[str, Any]) -> None:
        """Some cases that failed do not make the batch a failure; the reasons are with the cases."""
        self._noteResults()
        if name == "failed" and any(case.state == "done" for case in self.cases):
            name = "done"
        super()._takeEnd(name, state)

    def _takeResult(self) -> list[BatchCase]:
        return self.cases

    def _noteResults(self) -> None:
        file = self.run.path / "result.json"
        if not file.is_file():
            return
        results = json.loads(file.read_text(encoding="utf-8"))
        for result in results["cases"]:
            case = self._byImage.get(result["image"])
            if case is not None:
                case.state, case.message, case.result = "done", "", Path(result["output"])
        for failure in results["failed"]:
            case = self._byImage.get(failure["image"])
            if case is not None:
                case.state, case.message = "failed", failure["reason"]

    def _cleanUp(self) -> None:
        if self._process is not None and not self._process.waitForExit(0.05):
            self._process.killTree()
        self.message = summaryOf(self.cases)
        shutil.rmtree(self.run.path.parent, ignore_errors=True)
