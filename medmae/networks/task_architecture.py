"""Which network a task gets: that of a preset, or one that follows an encoder of any sizes."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from medmae.networks.build import NETWORKS
from medmae.networks.presets import Preset, Task, architecture_for, spread_skip_blocks


def architecture_following(source: Mapping[str, Any], method: str, preset_or_name: Preset | str, task: Task,
                           channels: int, classes: int = 0) -> dict[str, Any]:
    """The architecture of a task's network whose encoder has the sizes of the network `source`.

    Depths, widths, window, position grid and the like come from `source`, so that all of its weights find their place,
    whatever preset it is nearest to; what it does not have (UNETR's skips for a pretraining network) is the preset's.
    Where the preset's skips do not fit the source's patch or depth, as many as needed are spread evenly.

    Args:
        source: the architecture of a pretrained or finetuned network, as in its model.json.
        method, preset_or_name, task, channels, classes: see `architecture_for`.

    Raises:
        BadInput: the method or preset does not exist.
    """
    architecture = architecture_for(method, preset_or_name, task, channels, classes)
    valid = set(inspect.signature(NETWORKS[architecture["name"]]).parameters) - {"channels", "classes"}
    followed = {key: value for key, value in source["arguments"].items() if key in valid}
    return _with_fitting_skips({"name": architecture["name"], "arguments": architecture["arguments"] | followed})


def with_patch(architecture: Mapping[str, Any], patch: Sequence[int]) -> dict[str, Any]:
    """The same network with patches of other sides (k, j, i), for example finer tokens than its encoder was pretrained
    with; `transfer_encoder` resizes the stem.
    """
    changed = architecture["arguments"] | {"patch": list(patch)}
    return _with_fitting_skips({"name": architecture["name"], "arguments": changed})


def _with_fitting_skips(architecture: dict[str, Any]) -> dict[str, Any]:
    """UNETR's skips, spread evenly where their number does not fit its patch or they lie deeper than it is."""
    arguments = architecture["arguments"]
    if architecture["name"] != "unetr":
        return architecture
    patch, blocks = arguments["patch"], arguments["skip_blocks"]
    skips = max([patch] if isinstance(patch, int) else patch).bit_length() - 2
    if len(blocks) != skips or (skips and blocks[-1] > arguments["depth"]):
        arguments["skip_blocks"] = list(spread_skip_blocks(arguments["depth"], skips))
    return architecture
