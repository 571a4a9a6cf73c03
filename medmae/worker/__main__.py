"""The warm worker: ``python -m medmae.worker`` (docs/worker.md)."""

from __future__ import annotations

import argparse
import logging
import sys
import threading
from pathlib import Path
from typing import Any

from medmae.worker.ending import EXIT_WITHIN_SECONDS, Ending
from medmae.worker.parent import call_when_gone
from medmae.worker.pipes import Replies, requests_of, take_pipes


def main() -> None:
    """Entry point: serve requests until they end, the parent ends, or a signal comes."""
    arguments = _arguments()
    requests, answers = take_pipes()
    logging.basicConfig(stream=sys.stderr, level=logging.INFO,
                        format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    from medmae.worker.server import Server, greeting

    ending = Ending(arguments.exchange)
    ending.ask_on_signals()
    call_when_gone(arguments.parent, lambda: ending.ask("the parent has ended", is_orphan=True))
    replies = Replies(answers, lambda: ending.ask("the answers cannot be written", is_orphan=True))
    listed: list[dict[str, Any]] = []
    engine_is_there = threading.Event()
    server = Server(replies, ending, lambda: list(listed),
                    lambda work: None if engine_is_there.is_set() else _read_ahead(work))
    server.say("ready", None, **greeting())
    threading.Thread(target=server.read, args=(requests_of(requests),), name="requests", daemon=True).start()

    # The engine is imported while requests arrive already; a cancelled one is never begun.
    from medmae.worker.model_store import ModelStore
    from medmae.worker.work import perform

    engine_is_there.set()
    store = ModelStore(arguments.models_memory * 2**20)

    def work(request: Any, on_progress: Any, should_stop: Any) -> dict[str, Any]:
        try:
            return perform(request, store, on_progress, should_stop)
        finally:
            listed[:] = store.listed()

    server.work(work)
    replies.close(EXIT_WITHIN_SECONDS)
    ending.finish()


def _read_ahead(work: Any) -> None:
    """Read the weights for the first request while torch is imported."""
    from medmae.models.registry import begin_to_verify

    model = getattr(work, "model", None)
    first = model[0] if isinstance(model, list) and model else model
    if isinstance(first, str):
        begin_to_verify(first)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m medmae.worker", description=(
        "Keep models loaded and answer requests: JSON lines on standard input and output (docs/worker.md)."))
    parser.add_argument("--parent", type=int, metavar="PID", help="also end when this process ends")
    parser.add_argument("--models-memory", type=int, default=4096, metavar="MiB",
                        help="what all loaded models together may take (default: 4096)")
    parser.add_argument("--exchange", type=Path, metavar="FOLDER",
                        help="the client's folder of voxels, removed when the client disappears")
    return parser.parse_args()


if __name__ == "__main__":
    main()
