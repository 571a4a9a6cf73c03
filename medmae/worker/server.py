"""Takes requests from the pipe and works on them one after the other."""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, cast

from medmae import __version__
from medmae.errors import BadInput, Stopped
from medmae.worker.ending import Ending
from medmae.worker.pipes import Replies
from medmae.worker.protocol import (
    PROTOCOL,
    BadRequest,
    Cancel,
    Hello,
    Ping,
    Quit,
    Request,
    Status,
    Work,
    request_id,
    request_of,
)

log = logging.getLogger(__name__)
MOST_WAITING = 1000
PROGRESS_EVERY_SECONDS = 0.1
CANCELLED = {"event": "error", "kind": "cancelled", "reason": "Cancelled.", "remedy": None}

Perform = Callable[[Work, Callable[[int, int], None], Callable[[], bool]], dict[str, Any]]


class Job:
    """One request that is worked on in its turn."""

    def __init__(self, number: int | str, work: Work) -> None:
        self.number = number
        self.work = work
        self.cancelled = threading.Event()


class Server:
    """Answers requests: those about the worker at once, work in the order of its arrival, in the main thread.

    Args:
        replies: where answers go.
        ending: what ends the worker.
        models: what is loaded, for status messages.
        on_queued: told about work as it arrives, from the thread that reads.
    """

    def __init__(self, replies: Replies, ending: Ending, models: Callable[[], list[dict[str, Any]]],
                 on_queued: Callable[[Work], None] = lambda work: None) -> None:
        self._replies = replies
        self._models = models
        self._on_queued = on_queued
        self._changed = threading.Condition()
        self._waiting: deque[Job] = deque()
        self._running: Job | None = None
        self._ending = ending
        ending.on_asked = self._wake

    def say(self, event: str, number: int | str | None, **content: Any) -> None:
        """Send one message about the request `number`, or about the worker itself."""
        self._replies.send({"id": number, "event": event, **content})

    def read(self, messages: Iterable[dict[str, Any] | BadRequest]) -> None:
        """Take requests until one asks to quit or their pipe ends; for a thread of its own."""
        try:
            for message in messages:
                self._take(message)
                if self._ending.is_asked:
                    return
        except OSError as error:
            log.warning("the requests cannot be read: %s", error)
        self._ending.ask("the requests have ended", is_orphan=True)

    def work(self, perform: Perform) -> None:
        """Work on requests until the end is asked for."""
        while (job := self._next()) is not None:
            answer = self._do(job, perform)
            with self._changed:
                self._running = None  # before the answer, after which the client may use the id again
            self.say(answer.pop("event"), job.number, **answer)
        with self._changed:
            left = list(self._waiting)
            self._waiting.clear()
        for job in left:
            self._replies.send({"id": job.number, **CANCELLED})

    def _take(self, message: dict[str, Any] | BadRequest) -> None:
        number = None if isinstance(message, BadRequest) else request_id(message)
        try:
            if isinstance(message, BadRequest):
                raise message
            self._answer(cast("int | str", number), request_of(message))
        except BadRequest as error:
            self.say("error", number, kind="bad_request", reason=str(error), remedy="Correct the request.")

    def _answer(self, number: int | str, request: Request) -> None:
        if isinstance(request, Hello):
            self.say("result", number, **greeting())
        elif isinstance(request, Ping):
            self.say("result", number)
        elif isinstance(request, Status):
            self.say("result", number, **self._status())
        elif isinstance(request, Cancel):
            self.say("result", number, found=self._cancel(request.request))
        elif isinstance(request, Quit):
            self.say("result", number)
            self._ending.ask("asked to quit")
        else:
            self._queue(Job(number, request))

    def _queue(self, job: Job) -> None:
        with self._changed:
            open_jobs = [*self._waiting, *([self._running] if self._running else [])]
            if any(job.number == other.number for other in open_jobs):
                raise BadRequest(f"The id {job.number!r} is that of a request which is still open. Give another one.")
            if len(self._waiting) >= MOST_WAITING:
                raise BadRequest(f"{MOST_WAITING} requests are waiting already. Send it again when some are answered.")
            self._waiting.append(job)
            self.say("queued", job.number, waiting=len(open_jobs))
            self._changed.notify_all()
        self._on_queued(job.work)

    def _cancel(self, number: int | str) -> bool:
        """Whether there was such a request. One that waits is answered here and now."""
        with self._changed:
            if self._running is not None and self._running.number == number:
                self._running.cancelled.set()
                return True
            job = next((job for job in self._waiting if job.number == number), None)
            if job is not None:
                self._waiting.remove(job)
        if job is not None:
            self._replies.send({"id": number, **CANCELLED})
        return job is not None

    def _next(self) -> Job | None:
        """The next job; waits for one. None when the end is asked for."""
        with self._changed:
            # With a time limit, because Windows delivers Ctrl-C only between waits.
            while not self._waiting and not self._ending.is_asked:
                self._changed.wait(1.0)
            if self._ending.is_asked:
                return None
            self._running = self._waiting.popleft()
            return self._running

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _do(self, job: Job, perform: Perform) -> dict[str, Any]:
        """Do a job; the answer."""
        self.say("started", job.number)
        progress = _Progress(lambda record: self.say("progress", job.number, **record), type(job.work).__name__.lower())
        try:
            result = perform(job.work, progress, lambda: job.cancelled.is_set() or self._ending.is_asked)
            json.dumps(result, allow_nan=False)  # or a probability that is not a number would end the worker
        except Stopped:
            return dict(CANCELLED)
        except BadInput as error:
            log.warning("request %s: %s", job.number, error)
            return {"event": "error", "kind": "bad_input", "reason": str(error),
                    "remedy": "Mend the input and try again."}
        except Exception as error:  # noqa: BLE001 - recorded whole and told; the worker lives for other requests
            log.exception("request %s failed", job.number)
            return {"event": "error", "kind": "failed", "reason": f"{type(error).__name__}: {error}",
                    "remedy": remedy_of(error)}
        return {"event": "result", **result}

    def _status(self) -> dict[str, Any]:
        with self._changed:
            running, waiting = self._running, [job.number for job in self._waiting]
        return {"state": "idle" if running is None else "busy", "running": None if running is None else running.number,
                "waiting": waiting, "models": self._models()}


def greeting() -> dict[str, Any]:
    """Who this is."""
    return {"protocol": PROTOCOL, "medmae": __version__, "python": sys.version.split()[0], "pid": os.getpid()}


def remedy_of(error: Exception) -> str:
    """What to do about a failure that is not the input's."""
    if isinstance(error, MemoryError) or "out of memory" in str(error).lower():
        return "Close other programs, unload other models, set a memory limit, or use another device."
    if isinstance(error, OSError):
        return "Check free disk space and permissions, then try again."
    return "The worker's log has the details."


class _Progress:
    """Progress messages as in progress.jsonl, no more than ten a second and the last one always."""

    def __init__(self, say: Callable[[dict[str, Any]], None], stage: str) -> None:
        self._say = say
        self._stage = stage
        self._started = time.monotonic()
        self._said = float("-inf")

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if now - self._said < PROGRESS_EVERY_SECONDS and done < total:
            return
        self._said, seconds = now, now - self._started
        eta = round(seconds / done * (total - done), 1) if done else None
        self._say({"stage": self._stage, "step": done, "total": total, "seconds": round(seconds, 3), "eta_s": eta})
