"""Start a worker, send it requests and follow them, without ever blocking (docs/worker.md).

Standard library alone, so that it runs in Slicer's process and in any script. Volumes are anything with the buffer
protocol, numpy arrays for instance.

>>> with WorkerClient() as worker:
...     request = worker.segment("liver", [worker.image(array, affine)])
...     labels = numpy.array(worker.wait(request).labels)

From an event loop, call `poll` with a timer instead of `wait`, and look at the state of the request.
"""

from __future__ import annotations

import json
import os
import queue
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from medmae.worker.child import Child, environment_of_worker
from medmae.worker.exchange import Exchange, view_of

CANCEL_WITHIN_SECONDS = 1.8
CLOSE_WITHIN_SECONDS = 2.0


class WorkerError(RuntimeError):
    """A request gave no result; the text is the reason and what to do about it.

    Attributes:
        kind: "bad_input" (the user's mistake), "bad_request" (the program's), "cancelled", "failed", or "died" (the
            worker ended).
        reason, remedy: the parts of the text.
    """

    def __init__(self, kind: str, reason: str, remedy: str | None = None) -> None:
        super().__init__(" ".join(part for part in (reason, remedy) if part))
        self.kind, self.reason, self.remedy = kind, reason, remedy


@dataclass(eq=False)
class Request:
    """One request and how it stands; it changes in `WorkerClient.poll` only.

    Attributes:
        state: waiting, running, done or failed.
        progress: the last progress message ({"stage", "step", "total", "seconds", "eta_s"}).
        result: the worker's answer, once done.
        error: why there is none, once failed.
        labels: of a segmentation that is done, its label values as a view (k, j, i) that needs no copy.
    """

    message: dict[str, Any]
    state: Literal["waiting", "running", "done", "failed"] = "waiting"
    progress: dict[str, Any] | None = None
    result: dict[str, Any] | None = None
    error: WorkerError | None = None
    labels: memoryview | None = None
    cancelled_at: float | None = field(default=None, repr=False)

    @property
    def is_over(self) -> bool:
        """Whether there is a result or an error."""
        return self.state in ("done", "failed")


class WorkerClient:
    """A worker process and the requests to it. It starts with the first request, and anew after it has died.

    Args:
        command: starts the worker; default: this Python with ``-m medmae.worker``.
        environment: of the worker; default: this process's, with the same `medmae` first.
        folder: where the private folder for voxels is made; default: that of temporary files.

    Attributes:
        starts: how many processes were started.
    """

    def __init__(self, command: Sequence[str] | None = None, environment: Mapping[str, str] | None = None,
                 folder: Path | str | None = None) -> None:
        self._command = [*(command or (sys.executable, "-m", "medmae.worker"))]
        self._environment = environment
        self._parent_folder = folder
        self._exchange: Exchange | None = None
        self._child: Child | None = None
        self._open: dict[int, Request] = {}
        self._last_number = 0
        self.starts = 0

    def __enter__(self) -> WorkerClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def is_busy(self) -> bool:
        """Whether a request is under way."""
        return bool(self._open)

    def image(self, array: Any, affine: Any, *, name: str = "The volume", **more: Any) -> dict[str, Any]:
        """Copy voxels to where the worker sees them; what it returns stands for the image in requests.

        Args:
            array: (k, j, i), or (C, k, j, i), or (k, j, i, C) with ``channels_last=True``.
            affine: 4 rows of 4 numbers, (i, j, k, 1) to RAS mm.
            name: what messages call it.
            more: channels_last, is_2d, spacing_known.

        Raises:
            TypeError: the voxels are not plain numbers.
        """
        return {"buffer": self.exchange.put(array), "affine": [[float(value) for value in row] for row in affine],
                "name": name, **more}

    def load(self, model: str | Path | Sequence[str | Path], **settings: Any) -> Request:
        """Load a model (or the members of an ensemble), so that later requests find it warm: device, precision."""
        return self.send("load", model=_names(model), **settings)

    def segment(self, model: str | Path | Sequence[str | Path], images: Sequence[Mapping[str, Any]], *,
                settings: Mapping[str, Any] | None = None, dtype: str = "int16", output: Path | str | None = None,
                base: Mapping[str, Any] | None = None) -> Request:
        """Label an image, or the aligned channels of one.

        Args:
            model: name or folder; several are an ensemble.
            images: each as `image` makes it, or ``{"path": file}``.
            settings: those of ``medmae segment``: device, precision, overlap, roi, ...
            dtype: of `Request.labels`: uint8, int16, uint16 or int32.
            output: path, without ending, of files for the labels and for maps that settings ask for, instead of
                `Request.labels`; needed where the first image is a file.
            base: labels that stay outside of the region of interest, as `image` makes them.

        Raises:
            ValueError: neither a voxel buffer nor `output` tells where the labels go, or another dtype.
        """
        fields: dict[str, Any] = {"model": _names(model), "images": list(images), "settings": dict(settings or {})}
        if output is not None:
            fields["output"] = str(output)
        elif images and "buffer" in images[0]:
            fields["labels"] = self.exchange.space(dtype, _grid(images[0]))
        else:
            raise ValueError("The size of an image in a file is not known here: give `output`, a path for its labels.")
        if base is not None:
            fields["base"] = base["buffer"]
        return self.send("segment", **fields)

    def plan(self, model: str | Path | Sequence[str | Path], images: Sequence[Mapping[str, Any]], *,
             settings: Mapping[str, Any] | None = None, measure: bool = True) -> Request:
        """Tell what a segmentation would take: windows, passes, memory. The model is loaded.

        Args:
            model, settings: as for `segment`.
            images: one, or one a channel, each ``{"shape": (k, j, i), "affine": 4 rows of 4 numbers, "dtype": ...}``.
            measure: run one forward pass where none was measured before.
        """
        return self.send("plan", model=_names(model), images=list(images), settings=dict(settings or {}),
                         measure=measure)

    def classify(self, model: str | Path, images: Sequence[Mapping[str, Any]], *,
                 settings: Mapping[str, Any] | None = None) -> Request:
        """Class probabilities of an image; the arguments are those of `segment`."""
        return self.send("classify", model=str(model), images=list(images), settings=dict(settings or {}))

    def send(self, operation: str, **fields: Any) -> Request:
        """Send any request of the protocol; returns at once."""
        self.poll()
        self._start()
        number = self._number()
        request = Request({"id": number, "op": operation, **fields})
        self._open[number] = request
        self._write(request.message)
        return request

    def cancel(self, request: Request) -> None:
        """Cancel a request. It fails as "cancelled" within two seconds; a worker that does not obey is replaced."""
        if not request.is_over and request.cancelled_at is None:
            request.cancelled_at = time.monotonic()
            self._write({"id": self._number(), "op": "cancel", "request": request.message["id"]})

    def poll(self) -> list[Request]:
        """Take in what the worker has said, without waiting; the requests that changed."""
        changed: list[Request] = []
        while self._child is not None:
            try:
                line = self._child.received()
            except queue.Empty:
                break
            changed += self._bury() if line is None else self._take(line)
        changed += self._replace_disobedient()
        return list(dict.fromkeys(changed))

    def wait(self, request: Request, seconds: float | None = None) -> Request:
        """Wait for a request; blocks the caller.

        Raises:
            WorkerError: it gave no result.
            TimeoutError: it is still open after `seconds`.
        """
        begun = time.monotonic()
        while self.poll() is not None and not request.is_over:
            if seconds is not None and time.monotonic() - begun > seconds:
                raise TimeoutError(f"The request is still {request.state} after {seconds} s.")
            time.sleep(0.005)
        if request.error is not None:
            raise request.error
        return request

    def release(self, *of: Request | Mapping[str, Any]) -> None:
        """Delete the voxels of images, or the labels of requests, that are needed no more."""
        for each in of:
            if isinstance(each, Request):
                each.labels = None
            buffer = each.message.get("labels") if isinstance(each, Request) else each.get("buffer")
            if buffer:
                self.exchange.remove(buffer)

    def close(self) -> None:
        """End the worker and delete all voxels; requests that are open fail as "cancelled"."""
        child, self._child = self._child, None
        if child is not None:
            child.end(CLOSE_WITHIN_SECONDS)
        self._fail_all(WorkerError("cancelled", "The worker was closed."))
        if self._exchange is not None:
            self._exchange.close()
            self._exchange = None

    @property
    def exchange(self) -> Exchange:
        """The private folder for voxels."""
        if self._exchange is None:
            self._exchange = Exchange(self._parent_folder)
        return self._exchange

    @property
    def pid(self) -> int | None:
        """The number of the process that was started (a launcher's, where there is one); None while there is none."""
        return self._child.process.pid if self._child is not None else None

    def _start(self) -> None:
        if self._child is None:
            folder = self.exchange.folder
            folder.mkdir(mode=0o700, exist_ok=True)
            command = [*self._command, "--parent", str(os.getpid()), "--exchange", str(folder)]
            self._child = Child(command, self._environment or environment_of_worker(), folder)
            self.starts += 1

    def _number(self) -> int:
        self._last_number += 1
        return self._last_number

    def _write(self, message: Mapping[str, Any]) -> None:
        if self._child is not None:
            self._child.send(json.dumps(message).encode("ascii") + b"\n")

    def _take(self, line: bytes) -> list[Request]:
        """Take one message in; the request that it changed."""
        message = json.loads(line)
        event, request = message.pop("event"), self._open.get(message.pop("id"))
        if request is None or event == "queued":  # ready, or the answer to a cancellation
            return []
        if event == "started":
            request.state = "running"
        elif event == "progress":
            request.progress = message
        elif event == "error":
            self._fail(request, WorkerError(message["kind"], message["reason"], message["remedy"]))
        else:
            request.state, request.result = "done", message
            if "labels" in request.message:
                request.labels = view_of(request.message["labels"])
            del self._open[request.message["id"]]
        return [request]

    def _fail(self, request: Request, error: WorkerError) -> Request:
        request.state, request.error = "failed", error
        self._open.pop(request.message["id"], None)
        return request

    def _fail_all(self, error: WorkerError) -> list[Request]:
        cancelled = WorkerError("cancelled", "Cancelled.")
        return [self._fail(request, cancelled if request.cancelled_at is not None else error)
                for request in list(self._open.values())]

    def _bury(self) -> list[Request]:
        """The worker has ended by itself: what was open fails with the reason."""
        assert self._child is not None
        child, self._child = self._child, None
        code = child.end(CLOSE_WITHIN_SECONDS)
        if code < 0:
            return self._fail_all(WorkerError(
                "died", f"The computation was ended from outside (signal {-code}).",
                "The usual cause is too little memory: close other programs, or set a memory limit; then try again."))
        return self._fail_all(WorkerError(
            "died", f"The worker ended unexpectedly (exit code {code}). Its last words:\n{child.last_words()}"))

    def _replace_disobedient(self) -> list[Request]:
        """Kill a worker that has not obeyed a cancellation in time; what only waited goes to a new one."""
        now = time.monotonic()
        late = [request for request in self._open.values()
                if request.cancelled_at is not None and now - request.cancelled_at > CANCEL_WITHIN_SECONDS]
        if not late or self._child is None:
            return []
        child, self._child = self._child, None
        child.kill()
        waiting = [request for request in self._open.values()
                   if request.state == "waiting" and request.cancelled_at is None]
        changed = [self._fail(request, WorkerError("cancelled", "Cancelled.")) for request in late]
        self._start()
        for request in waiting:
            self._write(request.message)
        others = [request for request in self._open.values() if request not in waiting]
        reason = WorkerError("died", "The worker was replaced, because it did not obey a cancellation.", "Try again.")
        return changed + [self._fail(request, reason) for request in others]


def _names(model: str | Path | Sequence[str | Path]) -> str | list[str]:
    return str(model) if isinstance(model, (str, Path)) else [str(one) for one in model]


def _grid(image: Mapping[str, Any]) -> list[int]:
    """(k, j, i) of an image in a buffer."""
    shape = image["buffer"]["shape"]
    if len(shape) == 3:
        return shape
    return shape[:3] if image.get("channels_last") else shape[1:]
