"""Cases of several channels from the files of each channel: ``--channel t1/*.nii.gz --channel t2/*.nii.gz``."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from medmae.errors import BadInput
from medmae.volumes import find_images


def cases_of_channels(channels: Sequence[Sequence[str]]) -> list[tuple[Path, ...]]:
    """The images of each case, one a channel: the n-th image of every channel belongs to the n-th case.

    Of several cases, what differs between the paths of a channel (a subject's number) must be the same in all channels,
    so that no case is made of two patients because a file is missing in one channel and another in the next.

    Args:
        channels: for each channel files, folders or patterns, as `find_images` takes them.

    Raises:
        BadInput: the numbers of images differ, or the images do not seem to belong together.
    """
    found = [[image.path for image in find_images(list(names))] for names in channels]
    counts = [len(paths) for paths in found]
    if len(set(counts)) > 1:
        raise BadInput(f"The channels have {', '.join(map(str, counts))} images; each case needs one of every channel. "
                       "Name as many images with every --channel.")
    told = [_differences([str(path) for path in paths]) for paths in found]
    cases = list(zip(*found, strict=True))
    for number, case in enumerate(cases):
        if len({channel[number] for channel in told}) > 1:
            raise BadInput(f"{' and '.join(map(str, case))} would be the channels of one case, but their names do not "
                           "say that they belong together. Name the images of every --channel so that only the name of "
                           "the channel differs, or segment this case alone.")
    return cases


def _differences(paths: Sequence[str]) -> list[str]:
    """What is left of each path without what all begin with and what all end with."""
    if len(paths) < 2:
        return [""] * len(paths)
    begin = len(os.path.commonprefix(list(paths)))
    rest = [path[begin:] for path in paths]
    end = len(os.path.commonprefix([text[::-1] for text in rest]))
    return [text[:len(text) - end] for text in rest]
