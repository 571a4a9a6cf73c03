"""Runs a network on batches of windows: mirrored where asked, once for windows without contrast, within memory."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import torch

from medmae.inference.device import Precision, autocast
from medmae.inference.out_of_memory import Steps, is_out_of_memory
from medmae.networks.voxel_head import Features

RunPass = Callable[[Features, torch.Tensor], torch.Tensor]
MOST_KNOWN = 1  # windows without contrast whose outputs are kept for others alike: those of air


def plain_pass(network: Features, windows: torch.Tensor) -> torch.Tensor:
    """A pass as it is; others may look at what it takes."""
    return network(windows)


class WindowPredictor:
    """A network, or the features of one, on windows.

    Args:
        network: in eval mode, on `device`; maps (B, C, *window) to (B, F, *window).
        device: where the network is.
        precision: arithmetic of the network.
        batch: windows a forward pass; halved by itself when memory does not suffice.
        mirrored_axes: axes of the window; the outputs are averaged over the windows mirrored along every combination
            of these n axes: 2^n forward passes instead of one.
        steps: where it is noted that the batch was halved.
        run_pass: runs the unmirrored passes: called with what answers (B, C, *window), and these windows.

    Attributes:
        computed: how many windows went through the network.
    """

    def __init__(self, network: Features, device: torch.device, precision: Precision, *, batch: int = 1,
                 mirrored_axes: Sequence[int] = (), steps: Steps | None = None,
                 run_pass: RunPass = plain_pass) -> None:
        self.network = network
        self.device = device
        self.precision = precision
        self.batch = batch
        self.mirrored_axes = tuple(mirrored_axes)
        self.steps = steps or Steps()
        self.run_pass = run_pass
        self.known: dict[tuple[float, ...], torch.Tensor] = {}
        self.computed = 0

    def __call__(self, windows: torch.Tensor) -> list[torch.Tensor]:
        """(B, C, *window) to B outputs (F, *window) in the precision of the network.

        Raises:
            Exception: `is_out_of_memory`, where not even one window fits.
        """
        flat = windows.flatten(2)
        values, highest = flat.amin(2), flat.amax(2)
        empty = (values == highest).all(1).tolist()
        keys = [tuple(value) if is_empty else None for value, is_empty in zip(values.tolist(), empty, strict=True)]
        needed = [index for index, key in enumerate(keys)
                  if key is None or (key not in self.known and keys.index(key) == index)]
        computed = dict(zip(needed, self._run(windows[needed]), strict=True)) if needed else {}
        for index, output in computed.items():
            key = keys[index]
            if key is not None and len(self.known) < MOST_KNOWN:
                self.known[key] = output.clone()  # not the whole batch
        self.computed += len(needed)
        return [self._output(index, key, keys, computed) for index, key in enumerate(keys)]

    def _output(self, index: int, key: tuple[float, ...] | None, keys: list[tuple[float, ...] | None],
                computed: dict[int, torch.Tensor]) -> torch.Tensor:
        if index in computed:
            return computed[index]
        return self.known[key] if key is not None and key in self.known else computed[keys.index(key)]

    def _run(self, windows: torch.Tensor) -> list[torch.Tensor]:
        outputs: list[torch.Tensor] = []
        while len(outputs) < len(windows):
            part = windows[len(outputs):len(outputs) + self.batch]
            try:
                outputs += self._mirrored(part.to(self.device, non_blocking=True))
                continue
            except RuntimeError as error:
                if not is_out_of_memory(error) or len(part) == 1:
                    raise
            # Outside of the handler, which holds on to the memory of the failed pass
            self.batch = len(part) // 2
            self.steps.take(f"{self.batch} window{'s' if self.batch > 1 else ''} a forward pass instead of {len(part)}")
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
        return outputs

    def _mirrored(self, windows: torch.Tensor) -> torch.Tensor:
        """(B, F, *window), the mean over the mirrored windows where wanted."""
        output = self.run_pass(self._pass, windows)
        if not self.mirrored_axes:
            return output
        with autocast(self.device, self.precision):
            axes = [2 + axis for axis in self.mirrored_axes]
            mirrors = [combination for count in range(1, len(axes) + 1)
                       for combination in itertools.combinations(axes, count)]
            total = output.float()
            for mirrored in mirrors:
                total += self.network(windows.flip(mirrored)).flip(mirrored)
        return total.div_(len(mirrors) + 1)

    def _pass(self, windows: torch.Tensor) -> torch.Tensor:
        """(B, F, *window), with weights in lower precision that are gone afterwards."""
        with autocast(self.device, self.precision):
            return self.network(windows)
