"""Small pictures of what a network makes of the same image as it trains: ``samples/step-NNNNNN.png`` of a run.

They are for looking at only: they take next to no time, leave no trace in the training, and end no run.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator

import torch
from torch import nn

from medmae.files import atomic_path
from medmae.run_folder import RunFolder

log = logging.getLogger(__name__)
WITHOUT_VALIDATIONS = 10  # so many over a run, at even distances
LARGEST_SHARE = 0.02  # of the time of training
FREE_SECONDS = 1.0  # that a short run may spend as well


class Samples:
    """Draws after the first step, at validations (or ten times in a run without) and at the end.

    Of more validations than the run keeps pictures of, every second, third, ... is drawn. A picture that would take
    more than `LARGEST_SHARE` of the time so far is left out, except for the first and the last.

    Args:
        run: keeps the pictures.
        draw: makes a picture as bytes of a PNG.
        module: all that is trained and that `draw` uses.
        device: where it is.
        steps: of the whole training.
        validate_every: steps between two validations; None where there are none.
    """

    def __init__(self, run: RunFolder, draw: Callable[[], bytes], module: nn.Module, device: torch.device, steps: int,
                 validate_every: int | None) -> None:
        self._run, self._module, self._device, self._steps = run, module, device, steps
        self._draw: Callable[[], bytes] | None = draw
        self._due = due_steps(steps, validate_every, run.most_samples)
        self._begun = time.monotonic()
        self._spent = self._latest = 0.0

    def keep(self, done: int, *, is_last: bool = False) -> None:
        """Draw and write a picture after `done` steps, if one is due; a failure is logged, and there are no more."""
        is_wanted = is_last or (done in self._due and (done == 1 or self._is_affordable))
        if self._draw is None or not is_wanted:
            return
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)  # steps that are still being computed take no time of the picture
        begun = time.monotonic()
        try:
            with undisturbed(self._module, self._device):
                picture = self._draw()
            with atomic_path(self._run.sample_file(done)) as temporary:
                temporary.write_bytes(picture)
        except Exception:  # noqa: BLE001 - whatever it is, a picture is not worth a run
            log.warning("a sample picture could not be made at step %d; training goes on without pictures", done,
                        exc_info=True)
            self._draw = None
        self._latest = time.monotonic() - begun
        self._spent += self._latest

    @property
    def _is_affordable(self) -> bool:
        elapsed = time.monotonic() - self._begun
        return self._spent + self._latest <= max(FREE_SECONDS, LARGEST_SHARE * elapsed)


def due_steps(steps: int, validate_every: int | None, most: int) -> frozenset[int]:
    """After how many steps pictures are drawn, at most `most` of them; the same whenever a run goes on."""
    every = validate_every or -(-steps // WITHOUT_VALIDATIONS)
    between = max(0, most - 2)
    thinning = -(-len(range(every, steps, every)) // between) if between else steps
    first = {1} if most > 1 else set()
    return frozenset({*first, *range(every * max(1, thinning), steps, every * max(1, thinning)), steps})


@contextlib.contextmanager
def undisturbed(module: nn.Module, device: torch.device) -> Iterator[None]:
    """Whatever is computed with `module` inside leaves its modes, the random state and all gradients as they were."""
    modes = [(part, part.training) for part in module.modules()]
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []), torch.no_grad():
            yield
    finally:
        for part, was_training in modes:
            part.training = was_training
