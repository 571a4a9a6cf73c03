"""GL-MAE (arXiv 2306.08913): masked reconstruction of global and local views, and their consistency with a teacher.

From each volume p global and q local sub-volumes are cut. The student sees all of them masked and reconstructs them;
the teacher, a moving average of the student, sees the global ones whole, and its embeddings are the targets of the
student's embeddings of the masked global (global-to-global) and masked local (global-to-local) views.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from medmae.datasets import Corpus
from medmae.errors import BadInput
from medmae.networks import architecture_for, build_network
from medmae.networks.layers import denormalised_patches
from medmae.networks.presets import GlMaePreset, preset_size
from medmae.networks.presets import preset as network_preset
from medmae.pretraining.collapse import CollapseWatch, collapse_of
from medmae.pretraining.consistency import Consistency, NegativeCosine, Projector, entropy
from medmae.pretraining.gl_mae_settings import GlMaeSettings
from medmae.pretraining.global_local_views import ViewDrawer, ViewKind, unscored_tokens, views_of_batch
from medmae.pretraining.masking import expand_mask, visible_tokens
from medmae.pretraining.method import Defaults, PretrainingMethod, Reconstructions, preset_value
from medmae.training.blocks import outside_tokens
from medmae.training.randomness import Draw, random_generator
from medmae.training.schedule import cosine_between
from medmae.training.task import Batch
from medmae.training.views import cut_view

log = logging.getLogger(__name__)
_DEFAULTS = {
    "tiny": Defaults(steps=500, batch_size=4, learning_rate=1e-3),
    "tiny-hybrid": Defaults(steps=600, batch_size=4, learning_rate=1e-3),
    "small": Defaults(steps=20_000, batch_size=16, learning_rate=4e-4),
    # The paper's schedule is not known but for 1,600 epochs of 746 volumes; rate as in the author's sister code
    "base": Defaults(steps=75_000, batch_size=16, learning_rate=2e-4),
}
SAMPLED_FOR_PADDING = 16
MUCH_PADDING = 0.6


class _GlobalLocal(nn.Module):
    """Student, teacher, projectors and all losses: one forward is one training step's computation.

    Where no consistency loss counts there is no teacher and no projector.
    """

    def __init__(self, student: nn.Module, width: int, settings: GlMaeSettings, drawer: ViewDrawer) -> None:
        super().__init__()
        self.settings = settings
        self.student = student
        self._kinds = {kind.name: kind for kind in drawer.kinds}
        self._varied = settings.contrast > 0 or settings.brightness > 0
        if not settings.has_teacher:
            return
        with_prototypes = settings.consistency == "cross_entropy"
        self.projector = Projector(width, settings.projector_hidden, settings.projector_bottleneck,
                                   settings.prototypes if with_prototypes else 0)
        encoder: Any = student.encoder
        self.teacher = copy.deepcopy(encoder).requires_grad_(False)
        self.teacher_projector = copy.deepcopy(self.projector).requires_grad_(False)
        self.consistency: nn.Module = (
            Consistency(settings.student_temperature, settings.teacher_temperature) if with_prototypes
            else NegativeCosine(settings.projector_bottleneck, settings.projector_hidden))

    def forward(self, batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        views = {name: views_of_batch(batch, kind, self._varied) for name, kind in self._kinds.items()}
        losses: dict[str, torch.Tensor] = {}
        embeddings = {name: self._masked(name, views[name], batch, losses) for name in views}
        if self.settings.has_teacher:
            self._agree(self._teach(views["global"]), embeddings, losses)
        # How far embeddings of different views lie apart; medmae/pretraining/collapse.py watches it
        losses["feature_std"] = embeddings["global"].detach().float().std(0, correction=0).mean()
        return {"loss": self._weighted(losses), **losses}

    def _masked(self, name: str, views: torch.Tensor, batch: Mapping[str, torch.Tensor],
                losses: dict[str, torch.Tensor]) -> torch.Tensor:
        """Embeddings (B * V, width) of masked views (B, V, C, *size); notes their reconstruction loss."""
        volumes, visible = views.flatten(0, 1), batch[f"{name}_visible"].flatten(0, 1)
        embedding, prediction = self.student(volumes, visible)
        unscored = unscored_tokens(visible, batch[f"{name}_outside"].flatten(0, 1))
        losses[f"reconstruction_{name}"] = self.student.masked_loss(  # type: ignore[operator]
            prediction, volumes, unscored, normalise_patches=self.settings.normalise_target)
        return embedding

    @torch.no_grad()
    def _teach(self, views: torch.Tensor) -> torch.Tensor:
        """The teacher's embeddings (B, p, width) of the intact global views (B, p, C, *size)."""
        return self.teacher(views.flatten(0, 1))[0].unflatten(0, views.shape[:2])

    def _agree(self, taught: torch.Tensor, embeddings: Mapping[str, torch.Tensor],
               losses: dict[str, torch.Tensor]) -> None:
        """Note the consistency losses of the student's embeddings (B * V, width) with the teacher's (B, p, width).

        In fp32: early in training embeddings of different views differ by less than half precision resolves.
        """
        with torch.autocast(taught.device.type, enabled=False):
            with torch.no_grad():
                targets = self.consistency.targets(self.teacher_projector(taught.float()))  # type: ignore[operator]
            for name, embedding in embeddings.items():
                projected = self.projector(embedding.float()).unflatten(0, (len(taught), -1))
                losses[f"global_to_{name}"] = self.consistency(targets, projected)
            if self.settings.consistency == "cross_entropy":
                losses["teacher_entropy"] = entropy(targets)

    def _weighted(self, losses: Mapping[str, torch.Tensor]) -> torch.Tensor:
        settings = self.settings
        weights = {"reconstruction_global": settings.weight_global, "reconstruction_local": settings.weight_local,
                   "global_to_global": settings.weight_global_to_global,
                   "global_to_local": settings.weight_global_to_local}
        return torch.stack([weight * losses[name] for name, weight in weights.items() if name in losses]).sum()

    @torch.no_grad()
    def move_teacher(self, momentum: float) -> None:
        """teacher = momentum x teacher + (1 - momentum) x student."""
        if not self.settings.has_teacher:
            return
        pairs = ((self.teacher, self.student.encoder), (self.teacher_projector, self.projector))
        for teacher, student in pairs:
            for old, new in zip(teacher.parameters(), student.parameters(), strict=True):  # type: ignore[union-attr]
                old.mul_(momentum).add_(new.detach(), alpha=1 - momentum)


class GlMaePretraining(PretrainingMethod):
    """Items are volumes; each draw gives p global and q local views of one."""

    Settings: ClassVar[type] = GlMaeSettings
    spatial_dims: ClassVar[int] = 3
    settings: GlMaeSettings
    module: _GlobalLocal

    def __init__(self, preset: str, channels: int, corpus: Corpus, settings: GlMaeSettings, seed: int,
                 weight_decay: float) -> None:
        super().__init__(preset, channels, corpus, settings, seed, weight_decay)
        self.architecture = architecture_for("gl-mae", preset, "encoder", channels, 0)
        self.network = build_network(self.architecture)
        numbers = _numbers(preset)
        kinds = [self._kind(name, numbers) for name in ("global", "local")
                 if name == "global" or settings.has_local_views]
        self._drawer = ViewDrawer(corpus, kinds, settings, seed)
        self.module = _GlobalLocal(self.network, numbers.width, settings, self._drawer)
        self._collapse_watch = CollapseWatch()
        self._tell_padding()

    def _kind(self, name: str, numbers: GlMaePreset) -> ViewKind:
        settings = self.settings
        size = view_sizes(numbers, settings)[name]
        count = getattr(settings, f"{name}_views") or getattr(numbers, f"{name}_views")
        return ViewKind(name, count, size, tuple(self.network.grid(size)),  # type: ignore[operator,arg-type]
                        settings.scale_of(name))  # type: ignore[arg-type]

    @classmethod
    def defaults(cls, preset: str) -> Defaults:
        """Schedule of the preset."""
        return preset_value(_DEFAULTS, preset)

    @classmethod
    def settings_for(cls, preset: str) -> GlMaeSettings:
        """Tiny presets have a small projector, and a teacher that follows faster, because their runs are short.

        Hybrid ones hide less, standardise the patches to predict, and compare embeddings by a negative cosine with a
        quarter of the weight: with the cross-entropy they collapse (docs/methods.md).
        """
        settings = GlMaeSettings()
        if preset_size(preset) == "tiny":
            settings = replace(settings, momentum=0.99, projector_hidden=512, projector_bottleneck=128, prototypes=512)
        if _numbers(preset).stem_widths:
            settings = replace(settings, mask_ratio=0.6, normalise_target=True, consistency="negative_cosine",
                               weight_global_to_global=0.25, weight_global_to_local=0.25)
        return settings

    @classmethod
    def check_settings(cls, preset: str, settings: GlMaeSettings) -> None:
        """Views must be cut into whole patches, at least two tokens of them."""
        numbers = _numbers(preset)
        patch = (numbers.patch,) * 3 if isinstance(numbers.patch, int) else tuple(numbers.patch)
        for name, size in view_sizes(numbers, settings).items():
            if any(side % part for side, part in zip(size, patch, strict=True)) or size == patch:
                raise BadInput(f"{name}_size {list(size)} does not fit the preset {preset}, which cuts views into "
                               f"patches of {list(patch)} voxels (k, j, i). Choose multiples of them, two patches at "
                               "least.")

    @property
    def number_of_items(self) -> int:
        """The number of volumes."""
        return len(self.corpus)

    def load_batch(self, draws: Sequence[Draw]) -> Batch:
        """A block of each volume, where its views lie and what of them is visible (`ViewDrawer.load`)."""
        return self._drawer.load(draws)

    def after_step(self, step: int, total: int) -> None:
        """Move the teacher; its momentum rises to 1 along half a cosine."""
        self.module.move_teacher(cosine_between(self.settings.momentum, 1.0, step, total))

    def watch(self, record: Mapping[str, Any]) -> None:
        """Follow the figures of training; a collapse is told as soon as it shows."""
        if self.settings.has_teacher:
            self._collapse_watch.note(record)

    def training_summary(self, records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """The views that the encoder saw, and whether the representation collapsed, for model and report."""
        views = {"views": {kind.name: list(kind.size) for kind in self._drawer.kinds}}
        return views | ({"collapse": collapse_of(records)} if self.settings.has_teacher else {})

    @property
    def network_spacing_mm(self) -> tuple[float, float, float] | None:
        """The voxel size (k, j, i) of views, where they have one of their own."""
        return self.settings.view_spacing_mm

    def _tell_padding(self) -> None:
        items = np.linspace(0, self.number_of_items - 1, min(SAMPLED_FOR_PADDING, self.number_of_items)).round()
        shares = self._drawer.padding_shares([Draw(int(item), 0) for item in items])
        told = ", ".join(f"{100 * share:.0f} % of {name} ones" for name, share in shares.items())
        log.info("one block of %s voxels is read of each volume for all its views; outside the images lie %s",
                 " x ".join(map(str, self._drawer.block)), told)
        if shares["global"] > MUCH_PADDING:
            log.warning("%.0f %% of the global views is padding: the volumes are smaller than the views. Choose a "
                        "preset with smaller views (tiny; *-thin for few slices), or set global_size and local_size.",
                        100 * shares["global"])

    @torch.no_grad()
    def reconstruct_items(self, items: Sequence[int]) -> Reconstructions:
        """Central global views of volumes, hidden tokens filled in by the student."""
        network: Any = self.network.eval()
        device = next(network.parameters()).device
        kind = self._drawer.kinds[0]
        images, visible = [], []
        for item in items:
            volume, step = self.corpus.image(item), self._drawer.view_step(item)
            centre = (np.array(volume.shape[1:]) - 1) / 2
            images.append(cut_view(volume, centre, np.diag(step), kind.size))
            outside, _ = outside_tokens(np.array(volume.shape[1:]), np.stack([centre, step]), kind.size, kind.grid)
            generator = random_generator(self.seed, "reconstruct", self.corpus.items.id(item))
            visible.append(torch.from_numpy(visible_tokens(outside.size, self.settings.mask_ratio, generator,
                                                           outside.ravel())))
        batch, kept = torch.stack(images).to(device), torch.stack(visible).to(device)
        prediction = network(batch, kept)[1].float()
        if self.settings.normalise_target:
            prediction = denormalised_patches(prediction, network.patchify(batch))
        result = network.unpatchify(prediction, kind.grid)
        hidden = np.ones((len(items), int(np.prod(kind.grid))), bool)
        np.put_along_axis(hidden, kept.cpu().numpy(), False, axis=1)
        voxels = np.stack([expand_mask(one.reshape(kind.grid), kind.size) for one in hidden])
        return Reconstructions(batch.cpu().numpy(), voxels, result.cpu().numpy())


def view_sizes(numbers: GlMaePreset, settings: GlMaeSettings) -> dict[str, tuple[int, int, int]]:
    """Voxels (k, j, i) of global and local views: as set, else the preset's."""
    return {"global": settings.global_size or numbers.global_size, "local": settings.local_size or numbers.local_size}


def _numbers(preset: str) -> GlMaePreset:
    numbers = network_preset("gl-mae", preset)
    assert isinstance(numbers, GlMaePreset)
    return numbers
