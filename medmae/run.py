"""Execute a run folder in this process: ``python -m medmae.run FOLDER``, or under torchrun.

The command line, the Slicer modules and remote jobs all come through here; what a kind of run does is its own
``execute(run)``, this module adds what they share: state, log, signals, exit codes.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import logging
import os
import shutil
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from medmae.errors import BadInput, PartialFailure, ProcessLost, Stopped
from medmae.files import remove_partial
from medmae.run_folder import RunFolder

log = logging.getLogger("medmae.run")

KINDS = {
    "pretrain": "medmae.pretraining.run",
    "finetune": "medmae.finetuning.run",
    "curve": "medmae.finetuning.curve",
    "segment": "medmae.inference.segment_run",
    "classify": "medmae.inference.classify_run",
    "evaluate": "medmae.inference.evaluate_run",
    "rank": "medmae.active_learning.rank_run",
}
DONE, FAILED, BAD_INPUT = 0, 1, 2
APPLIES_MODEL = ("segment", "classify", "evaluate", "rank")
REPORTED = ("pretrain", "finetune", "curve")
HEARTBEAT_SECONDS = 20.0


def execute(folder: Path | str) -> int:
    """Run the specification in `folder`; returns the exit code 0 (done or stopped), 1 (failed) or 2 (bad input).

    The outcome is in ``state.json`` (state, reason, remedy), everything else in ``log.txt``.

    Raises:
        BadInput: the folder is no run folder, or the run is going on in another process.
    """
    run = RunFolder.open(folder)
    rank, processes = _rank(), int(os.environ.get("WORLD_SIZE", "1"))
    is_main = rank == 0
    spec = run.spec
    if spec.get("kind") not in KINDS:
        raise BadInput(f"The run {run.path} is of kind '{spec.get('kind')}', which this version cannot execute. "
                       f"It knows {', '.join(KINDS)}.")
    if is_main:
        _refuse_if_running(run)
    run.forget_failures(rank, processes)
    if is_main:
        # A STOP that came before the first start still counts.
        if run.state_file.exists() and run.state()["state"] != "queued":
            run.stop_file.unlink(missing_ok=True)
        run.write_state(state="running", reason=None, remedy=None)
        # Of an earlier attempt that was killed. Whoever submits or follows a job of this computer writes here, too.
        remove_partial(run.path, keep_records=True)
    if spec["kind"] in APPLIES_MODEL:
        _begin_to_read(spec["inputs"].get("model"))
    # A signal must not end the process before the state is written: torchrun sends one once it has missed another.
    with _logging_to(run, is_main), _graceful_signals(run):
        with _heartbeat(run, is_main):
            code, outcome = _outcome(run, spec["kind"])
            if is_main and outcome["state"] == "done":
                _report(run, spec)
        if is_main:
            run.write_state(**outcome)
    return code


def _rank() -> int:
    """Which of several processes under torchrun this one is; 0 for the main one and for one that is alone."""
    return int(os.environ.get("RANK", "0"))


def _begin_to_read(model: Any) -> None:
    """Read the weights while torch is imported; for several models, those of the first."""
    from medmae.models.registry import begin_to_verify

    first = model[0] if isinstance(model, list) and model else model
    if isinstance(first, str):
        begin_to_verify(first)


def _outcome(run: RunFolder, kind: str) -> tuple[int, dict[str, str | None]]:
    try:
        importlib.import_module(KINDS[kind]).execute(run)
    except Stopped as stopped:
        failure = run.failure_of_another()
        if failure:  # because of which torchrun has ended this process, with the signal of a stop
            return FAILED, {"state": "failed", **failure}
        log.info("%s", stopped)
        return DONE, {"state": "stopped", "reason": str(stopped), "remedy": "Continue it with --resume."}
    except BadInput as error:
        log.error("%s", error)
        return BAD_INPUT, _failed(run, str(error), "Mend the input and start again.")
    except PartialFailure as failure:
        log.error("%s", failure)
        return FAILED, _failed(run, str(failure), "Mend the cases listed and run them again.")
    except ProcessLost as loss:
        log.error("%s", loss)
        unexplained = {"reason": str(loss), "remedy": "Continue it with --resume."}
        return FAILED, {"state": "failed", **(run.failure_of_another() or unexplained)}
    except Exception as error:  # noqa: BLE001 - the last line of defence: recorded whole, reported, exit code 1
        log.exception("the run failed")
        # What says all that there is to know needs no name of a class.
        kind = "" if isinstance(error, FloatingPointError) else f"{type(error).__name__}: "
        return FAILED, _failed(run, f"{kind}{error}", _remedy(error))
    return DONE, {"state": "done", "reason": None, "remedy": None}


def _failed(run: RunFolder, reason: str, remedy: str) -> dict[str, str | None]:
    """The state of a run that fails; another process than the main one notes it for that."""
    if _rank() > 0:
        run.note_failure(_rank(), reason, remedy)
    return {"state": "failed", "reason": reason, "remedy": remedy}


def _report(run: RunFolder, spec: dict[str, Any]) -> None:
    """Write ``report.html``, for an evaluation into its output folder where it has one.

    The run's result does not depend on it, so that a fault here is logged and no more.
    """
    out = spec["inputs"].get("out") if spec["kind"] == "evaluate" else None
    if spec["kind"] not in REPORTED and not out:
        return
    from medmae.reports import write_run_report

    try:
        report = write_run_report(run)
        if out:
            shutil.copyfile(report, Path(out) / report.name)
    except BadInput as error:  # matplotlib is an optional extra
        log.warning("no report: %s", error)
    except Exception:  # noqa: BLE001 - recorded whole; the finished model must not be lost to a picture
        log.exception("the report could not be written")


def _remedy(error: Exception) -> str:
    if "out of memory" in str(error).lower() or isinstance(error, MemoryError):
        return ("Compute fewer samples at once (--set device_batch_size=...; the batch of a step stays what it is) and "
                "continue with --resume; or use a smaller preset or another device.")
    if isinstance(error, OSError) or "I/O error" in str(error):  # safetensors has an error of its own
        return "Check free disk space and permissions, then continue with --resume."
    if isinstance(error, FloatingPointError):
        return "Lower the learning rate, or compute with the precision fp32, and start again."
    return "See log.txt in the run folder; it has the full traceback."


def _refuse_if_running(run: RunFolder) -> None:
    if not run.state_file.exists():
        return
    state = run.state()
    if state["state"] not in ("running", "stopping") or state["pid"] == os.getpid():
        return
    slurm_job = os.environ.get("SLURM_JOB_ID")
    if slurm_job and state.get("slurm_job_id") == slurm_job and state["host"] != socket.gethostname():
        return  # an earlier go of this job, on a node that failed: Slurm never has two at the same time
    raise BadInput(f"The run {run.path} is going on already (process {state['pid']} on {state['host']}). "
                   "Stop it first, or wait for it.")


@contextlib.contextmanager
def _logging_to(run: RunFolder, is_main: bool) -> Iterator[None]:
    """Send the log of all packages to ``log.txt``; other processes than the main one write warnings only."""
    handler = logging.FileHandler(run.log_file, encoding="utf-8", errors="backslashreplace")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    handler.setLevel(logging.INFO if is_main else logging.WARNING)
    root = logging.getLogger("medmae")
    level, propagate = root.level, root.propagate
    logging.raiseExceptions = False  # on a full disk, the reason of the failure is what a person wants to see
    root.setLevel(logging.INFO)
    root.propagate = False
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
        root.propagate = propagate
        handler.close()


@contextlib.contextmanager
def _graceful_signals(run: RunFolder) -> Iterator[None]:
    """SIGTERM and Ctrl-C ask for a graceful stop; a second one ends the process as usual.

    Not under torchrun: it repeats what Slurm has sent to all processes, and ends those itself that take too long.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def ask(number: int, _frame: object) -> None:
        if "TORCHELASTIC_RUN_ID" not in os.environ:
            for each, handler in previous.items():
                signal.signal(each, handler)
        run.request_stop()

    for number in previous:
        signal.signal(number, ask)
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _heartbeat(run: RunFolder, is_main: bool) -> Iterator[None]:
    """Refresh the state's time while long steps report nothing, so that a living run never reads as interrupted."""
    if not is_main:
        yield
        return
    finished = threading.Event()

    def beat() -> None:
        while not finished.wait(HEARTBEAT_SECONDS):
            with contextlib.suppress(OSError):  # a full disk may be emptied before the next beat
                run.write_state()

    thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        finished.set()
        thread.join()


def _exit_with_parent() -> None:
    """End this process when its parent closes our standard input, as it does when it dies in any way."""

    def watch() -> None:
        while sys.stdin.buffer.read(1):
            pass
        os._exit(130)

    threading.Thread(target=watch, name="parent", daemon=True).start()


def main() -> None:
    """Entry point of ``python -m medmae.run``."""
    parser = argparse.ArgumentParser(prog="python -m medmae.run", description="Execute a run folder.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--exit-with-parent", action="store_true",
                        help="end at once when standard input closes (for interactive children)")
    arguments = parser.parse_args()
    if arguments.exit_with_parent:
        _exit_with_parent()
    begun = time.monotonic()
    try:
        code = execute(arguments.folder)
    except BadInput as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(BAD_INPUT)
    if code != DONE:
        sys.stderr.write(f"{RunFolder.open(arguments.folder).state().get('reason')}\n")
    log.debug("ended after %.1f s", time.monotonic() - begun)
    sys.exit(code)


if __name__ == "__main__":
    main()
