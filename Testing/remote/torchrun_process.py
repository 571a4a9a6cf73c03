"""What torchrun starts in these tests: ``medmae.run`` on a run folder, observed.

Each process leaves in ``RUN/observed/rank-N.json`` the draws of its batches (epoch, item) and which images of the
corpus its loaders read, and in ``rank-N.safetensors`` its module after training. With ``FAIL_RANK=N`` that process
fails while it loads its ``FAIL_BATCH``-th batch, as it would on a damaged shard. ``ANSWER_WITHIN`` is how many seconds
others may be silent, so that no test waits ten minutes. ``BATCH_SECONDS`` is how long each batch takes to load at
least, so that a short run can be stopped before its end on any machine.
"""

from __future__ import annotations

import datetime
import json
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

import medmae.pretraining.run as pretraining
import medmae.training.distributed as distributed
from medmae.datasets import Corpus
from medmae.run import execute

RANK = os.environ.get("RANK", "0")
FAIL_BATCH = int(os.environ.get("FAIL_BATCH", "0")) if os.environ.get("FAIL_RANK") == RANK else None
BATCH_SECONDS = float(os.environ.get("BATCH_SECONDS", "0"))


def observe(folder: Path) -> None:
    observed = folder / "observed"
    observed.mkdir(exist_ok=True)
    draws: list[tuple[int, int]] = []
    images: list[int] = []
    image, train = Corpus.image, pretraining.train

    def observed_image(corpus: Corpus, index: int) -> Any:
        if threading.current_thread().name.startswith("batches"):
            images.append(index)
        return image(corpus, index)

    def observed_train(method: Any, *others: Any) -> int:
        load = method.load_batch

        def observed_load(of_batch: Any) -> Any:
            draws.extend((draw.epoch, draw.item) for draw in of_batch)
            time.sleep(BATCH_SECONDS)
            if FAIL_BATCH is not None and len(draws) > FAIL_BATCH * len(of_batch):
                raise OSError(5, "Input/output error", "shard-00000.bin")
            return load(of_batch)

        method.load_batch = observed_load
        steps = train(method, *others)
        (observed / f"rank-{RANK}.json").write_text(json.dumps({"draws": draws, "images": images}))
        save_file({name: tensor.contiguous() for name, tensor in method.module.state_dict().items()},
                  observed / f"rank-{RANK}.safetensors")
        return steps

    Corpus.image = observed_image  # type: ignore[method-assign]
    pretraining.train = observed_train


if __name__ == "__main__":
    if "ANSWER_WITHIN" in os.environ:
        distributed.ANSWER_WITHIN = datetime.timedelta(seconds=int(os.environ["ANSWER_WITHIN"]))
    observe(Path(sys.argv[1]))
    sys.exit(execute(sys.argv[1]))
