"""Carrying pretrained weights into a network of another task, with a report and never half-way in silence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from medmae.errors import BadInput
from medmae.networks.vit import Grid, Positions, resized_positions

ENCODER = "encoder."
PATCH_STEM = "patch_embed.proj.weight"
STEMS = (PATCH_STEM, "image_block.conv1.weight", "image_block.conv3.weight", "patch_embed.levels.0.conv1.weight",
         "patch_embed.levels.0.conv3.weight")  # (width, input channels, ...)
LEAST_FRACTION = 0.95


@dataclass(frozen=True)
class LoadReport:
    """What happened to every tensor.

    Attributes:
        loaded: tensors of the target that were filled, the resized ones included.
        missing: tensors of the target that keep their fresh values.
        unexpected: tensors of the source without a place in the target, other shapes included.
        resized: tensors that were filled after folding channels or resampling a stem, a bias or a position table.
        encoder_fraction: share of the target encoder's parameters that was filled.
        resizings: for each of `resized` a line for a log.
    """

    loaded: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    resized: tuple[str, ...]
    encoder_fraction: float
    resizings: tuple[str, ...] = ()

    def summary(self) -> str:
        """One line for a log."""
        return (f"{len(self.loaded)} tensors loaded ({self.encoder_fraction:.1%} of the encoder's parameters), "
                f"{len(self.resized)} of them resized; {len(self.missing)} missing, {len(self.unexpected)} unexpected")

    def parts(self) -> str:
        """Which parts of the network were filled and which stay new, for a log."""
        filled = sorted({name.split(".")[0] for name in self.loaded})
        missing = [name.split(".") for name in self.missing]
        fresh = {".".join(parts[:2]) if parts[0] in filled else parts[0] for parts in missing}
        return f"{', '.join(filled) or 'nothing'} filled; new: {', '.join(sorted(fresh)) or 'nothing'}"


def transfer_encoder(source_state: Mapping[str, Tensor], target: nn.Module, *,
                     allow_partial: bool = False, slices: tuple[int, int] = (1, 1),
                     position_grid: Sequence[int] | None = None) -> LoadReport:
    """Copy the encoder, and the rest as far as names and shapes agree, from a saved network into `target`.

    swin_mae fills encoder and decoder of swin_unet (docs/methods.md) and the encoder of swin_classifier; vit_mae fills
    the encoder of unetr and vit_classifier, its CLS token stays behind unless the classifier pools by it. A finetuned
    network fills one of its own kind whole, the head where the number of classes is the same. A stem for other channels
    is summed and spread (divided by the new number), over slices for each image channel, over image channels where
    their number is another. A stem for other patches is resized so that a resized patch gives the token that the patch
    gave; a bias table of another window and a position table of another grid are resampled.

    Args:
        source_state: the state of a network of `medmae.networks`.
        target: changed in place, but only when the transfer is accepted.
        allow_partial: accept less than 95 % of the encoder's parameters.
        slices: how many slices the source and the target see as channels (2 * context + 1).
        position_grid: the grid (k, j, i) of the source's position table, where it has one: the grid of a table cannot
            be told from its size. Without it a table of another size is not loaded.

    Raises:
        BadInput: less than 95 % of the encoder's parameters fit.
    """
    wanted: dict[str, Tensor] = dict(target.state_dict())
    grids = _table_grids(target)
    fitted: dict[str, Tensor] = {}
    resized: list[str] = []
    for name, tensor in source_state.items():
        if name not in wanted:
            continue
        shape = wanted[name].shape
        # Equal shapes may mean other things where slices are channels, and where tables have other grids
        other_slices = name.endswith(STEMS) and slices[0] != slices[1]
        other_grid = name in grids and position_grid is not None and tuple(position_grid) != grids[name]
        if tensor.shape == shape and not other_slices and not other_grid:
            fitted[name] = tensor
            continue
        fitting = (_resized_table(tensor, position_grid, grids[name], shape) if name in grids
                   else _resized(name, tensor, shape, slices))
        if fitting is not None:
            fitted[name] = fitting
            resized.append(name)
    encoder_size = sum(tensor.numel() for name, tensor in wanted.items() if name.startswith(ENCODER))
    filled = sum(tensor.numel() for name, tensor in fitted.items() if name.startswith(ENCODER))
    report = LoadReport(
        loaded=tuple(fitted), missing=tuple(name for name in wanted if name not in fitted),
        unexpected=tuple(name for name in source_state if name not in fitted), resized=tuple(resized),
        encoder_fraction=filled / max(encoder_size, 1),
        resizings=tuple(f"{name}: {tuple(source_state[name].shape)} to {tuple(wanted[name].shape)}"
                        for name in resized))
    if report.encoder_fraction < LEAST_FRACTION and not allow_partial:
        raise BadInput(_refusal(report, source_state, wanted))
    target.load_state_dict(fitted, strict=False)
    return report


def _refusal(report: LoadReport, source: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> str:
    examples = []
    for name in [name for name in report.missing if name.startswith(ENCODER)][:3]:
        found = f"the weights have {tuple(source[name].shape)}" if name in source else "not in the weights"
        examples.append(f"{name} {tuple(wanted[name].shape)}: {found}")
    return (f"Only {report.encoder_fraction:.1%} of the encoder's parameters can be loaded "
            f"({'; '.join(examples)}). The weights belong to another architecture. Choose the method and preset they "
            "were trained with, or allow a partial load (--allow-partial) if that is what you want.")


def _table_grids(target: nn.Module) -> dict[str, Grid]:
    """The position tables of a network, by their names in its state, and the grids they belong to."""
    return {f"{name}.position_table": module.position_grid for name, module in target.named_modules()
            if isinstance(module, Positions) and module.position_grid is not None}


def _resized_table(table: Tensor, grid: Sequence[int] | None, wanted: Grid, shape: torch.Size) -> Tensor | None:
    if grid is None or table.ndim != 2:
        return None
    k, j, i = grid
    if not 0 <= len(table) - k * j * i <= 1:
        return None
    resized = resized_positions(table.float(), (k, j, i), wanted).to(table.dtype)
    return resized if resized.shape == shape else None


def _resized(name: str, tensor: Tensor, shape: torch.Size, slices: tuple[int, int]) -> Tensor | None:
    if name.endswith(STEMS) and _differs_in_channels(tensor.shape, shape):
        return _refitted_stem(tensor, shape[1], slices)
    if name.endswith(PATCH_STEM) and tensor.ndim == len(shape) and tensor.shape[0] == shape[0]:
        if tensor.shape[1] != shape[1] or slices[0] != slices[1]:
            tensor = _refitted_stem(tensor, shape[1], slices)
        return resized_patch_stem(tensor, shape[2:])
    if name.endswith("relative_position_bias_table") and tensor.ndim == 2 and tensor.shape[1] == shape[1]:
        return _resampled_table(tensor, shape[0])
    return None


def resized_patch_stem(weight: Tensor, patch: Sequence[int]) -> Tensor:
    """A patch embedding (width, C, *sides) for patches of other sides, by pseudo-inverse (FlexiViT, arXiv 2212.08013).

    A resize of a patch is linear, x' = Bx, so the weights w' = pinv(B^T) w give <x', w'> = <x, w>. Where a side grows
    (linear interpolation) for every patch; where it shrinks (averages) for every patch that is constant within each
    average, and for others as nearly as can be. Interpolating the weights themselves would change the size of the
    tokens by the ratio of the voxels.
    """
    result = weight.double()
    for axis, after in enumerate(patch, start=2):
        before = result.shape[axis]
        if before != after:
            voxels = torch.eye(before, dtype=torch.float64)[None]  # each alone, resized: (1, before, after) is B^T
            resize = functional.interpolate(voxels, size=after, mode="linear" if after > before else "area")[0]
            inverse = torch.linalg.pinv(resize).to(result.device)  # (after, before)
            result = torch.tensordot(result, inverse, dims=([axis], [1])).movedim(-1, axis)
    return result.to(weight.dtype)


def _refitted_stem(weight: Tensor, channels: int, slices: tuple[int, int]) -> Tensor:
    """A stem (width, slices * image channels, ...) for other channels: equal slices and channels answer as before."""
    before, after = slices
    each = weight.unflatten(1, (before, -1)).sum(1)  # (width, image channels, ...)
    image_channels = channels // after
    if each.shape[1] != image_channels:
        each = each.sum(1, keepdim=True).repeat_interleave(image_channels, 1) / image_channels
    return torch.cat([each / after] * after, 1)


def _differs_in_channels(source: torch.Size, target: torch.Size) -> bool:
    return len(source) == len(target) and source[:1] + source[2:] == target[:1] + target[2:]


def _resampled_table(table: Tensor, rows: int) -> Tensor:
    """Relative-position biases ((2w - 1)**2, heads) of another window, bicubic."""
    before, after = round(table.shape[0] ** 0.5), round(rows**0.5)
    image = table.float().T.reshape(1, -1, before, before)
    resampled = functional.interpolate(image, size=(after, after), mode="bicubic", align_corners=True)
    return resampled.reshape(-1, rows).T.to(table.dtype)
