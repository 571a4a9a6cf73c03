"""GL-MAE (arXiv 2306.08913): masked reconstruction of global and local views, and their consistency with a teacher.

From each volume p global and q local sub-volumes are cut. The student sees all of them masked and reconstructs them;
the teacher, a moving average of the student, sees the global ones whole, and its embeddings are the targets of the
student's embeddings of the masked global (global-to-global) and masked local (global-to-local) views.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from medmae.datasets import Corpus
from medmae.networks import architecture_for, build_network
from medmae.networks.presets import GlMaePreset, preset_size
from medmae.networks.presets import preset as network_preset
from medmae.pretraining.consistency import Consistency, Projector, entropy
from medmae.pretraining.masking import expand_mask, visible_tokens
from medmae.pretraining.method import Defaults, PretrainingMethod, Reconstructions, preset_value
from medmae.training.randomness import Draw, random_generator
from medmae.training.schedule import cosine_between
from medmae.training.task import Batch
from medmae.training.views import cut_view, random_centre

_DEFAULTS = {
    "tiny": Defaults(steps=500, batch_size=4, learning_rate=1e-3),
    "small": Defaults(steps=20_000, batch_size=16, learning_rate=4e-4),
    # The paper's schedule is not known but for 1,600 epochs of 746 volumes; rate as in the author's sister code
    "base": Defaults(steps=75_000, batch_size=16, learning_rate=2e-4),
}


@dataclass(frozen=True)
class GlMaeSettings:
    """Views, masks and loss weights; what the paper leaves open is discussed in docs/methods.md.

    `global_views` (p) and `local_views` (q) per volume; None takes the preset's. Views are cut at a random scale of
    `view_scale` (1 is plain cropping). `mask_ratio` of the tokens of every view is hidden from the student.
    """

    global_views: int | None = None
    local_views: int | None = None
    mask_ratio: float = 0.75
    view_scale: tuple[float, float] = (0.75, 1.33)
    flip: bool = True
    normalise_target: bool = False
    weight_global: float = 1.0
    weight_local: float = 1.0
    weight_global_to_global: float = 1.0
    weight_global_to_local: float = 1.0
    momentum: float = 0.996
    student_temperature: float = 0.1
    teacher_temperature: float = 0.5
    projector_hidden: int = 2048
    projector_bottleneck: int = 256
    prototypes: int = 4096

    def __post_init__(self) -> None:
        if not 0 < self.mask_ratio < 1:
            raise ValueError(f"mask_ratio must lie between 0 and 1, not {self.mask_ratio}")
        if not 0 < self.view_scale[0] <= self.view_scale[1]:
            raise ValueError(f"view_scale must be two rising positive numbers, not {self.view_scale}")
        if not 0 <= self.momentum <= 1:
            raise ValueError(f"momentum must lie between 0 and 1, not {self.momentum}")
        if any(count is not None and count < 1 for count in (self.global_views, self.local_views)):
            raise ValueError("global_views and local_views must be at least 1")


class _GlobalLocal(nn.Module):
    """Student, teacher, projectors and all four losses: one forward is one training step's computation."""

    def __init__(self, student: nn.Module, width: int, settings: GlMaeSettings) -> None:
        super().__init__()
        self.settings = settings
        self.student = student
        self.projector = Projector(width, settings.projector_hidden, settings.projector_bottleneck, settings.prototypes)
        encoder: Any = student.encoder
        self.teacher = copy.deepcopy(encoder).requires_grad_(False)
        self.teacher_projector = copy.deepcopy(self.projector).requires_grad_(False)
        self.consistency = Consistency(settings.student_temperature, settings.teacher_temperature)

    def forward(self, batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        views, settings = batch["global"], self.settings
        with torch.no_grad():
            embedding = self.teacher(views.flatten(0, 1))[0]
            scores = self.teacher_projector(embedding).unflatten(0, views.shape[:2])
            targets = self.consistency.targets(scores)
        global_loss, global_scores, student_embedding = self._masked(views, batch["global_visible"])
        local_loss, local_scores, _ = self._masked(batch["local"], batch["local_visible"])
        g2g = self.consistency(targets, global_scores)
        g2l = self.consistency(targets, local_scores)
        loss = (settings.weight_global * global_loss + settings.weight_local * local_loss
                + settings.weight_global_to_global * g2g + settings.weight_global_to_local * g2l)
        return {"loss": loss, "reconstruction_global": global_loss, "reconstruction_local": local_loss,
                "global_to_global": g2g, "global_to_local": g2l,
                # Collapse shows here: entropy near 0 or 1 with a feature spread near 0
                "teacher_entropy": entropy(targets), "feature_std": student_embedding.float().std(0).mean()}

    def _masked(self, views: torch.Tensor, visible: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Reconstruction loss, prototype scores (B, views, K) and embeddings of masked views (B, views, C, *size)."""
        volumes, visible = views.flatten(0, 1), visible.flatten(0, 1)
        embedding, tokens = self.student.encode(volumes, visible)  # type: ignore[operator]
        prediction = self.student.decode(tokens, visible, self.student.grid(volumes.shape[2:]))  # type: ignore[operator]
        loss = self.student.masked_loss(prediction, volumes, visible,  # type: ignore[operator]
                                        normalise_patches=self.settings.normalise_target)
        return loss, self.projector(embedding).unflatten(0, views.shape[:2]), embedding

    @torch.no_grad()
    def move_teacher(self, momentum: float) -> None:
        """teacher = momentum x teacher + (1 - momentum) x student."""
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
        numbers = network_preset("gl-mae", preset)
        assert isinstance(numbers, GlMaePreset)
        self.architecture = architecture_for("gl-mae", preset, "encoder", channels, 0)
        self.network = build_network(self.architecture)
        self.module = _GlobalLocal(self.network, numbers.width, settings)
        self._views = {
            "global": (settings.global_views or numbers.global_views, tuple(numbers.global_size)),
            "local": (settings.local_views or numbers.local_views, tuple(numbers.local_size)),
        }

    @classmethod
    def defaults(cls, preset: str) -> Defaults:
        """Schedule of the preset."""
        return preset_value(_DEFAULTS, preset)

    @classmethod
    def settings_for(cls, preset: str) -> GlMaeSettings:
        """The tiny preset has a small projector, and a teacher that follows faster, because its runs are short."""
        if preset_size(preset) == "tiny":
            return GlMaeSettings(momentum=0.99, projector_hidden=512, projector_bottleneck=128, prototypes=512)
        return GlMaeSettings()

    @property
    def number_of_items(self) -> int:
        """The number of volumes."""
        return len(self.corpus)

    def load_batch(self, draws: Sequence[Draw]) -> Batch:
        """global (B, p, C, *G), local (B, q, C, *L) float32 and the indices of their visible tokens (B, views, n)."""
        parts = [self._views_of(draw) for draw in draws]
        return {name: torch.stack([part[name] for part in parts]) for name in parts[0]}

    def _views_of(self, draw: Draw) -> Batch:
        volume, item_id = self.corpus.image(draw.item), self.corpus.items[draw.item].id
        batch: Batch = {}
        for name, (count, size) in self._views.items():
            generator = random_generator(self.seed, draw.epoch, item_id, name)
            batch[name] = torch.stack([self._cut(volume, size, generator) for _ in range(count)])
            tokens = self._tokens(size)
            batch[f"{name}_visible"] = torch.from_numpy(np.stack(
                [visible_tokens(tokens, self.settings.mask_ratio, generator) for _ in range(count)]))
        return batch

    def _cut(self, volume: np.ndarray, size: tuple[int, ...], generator: np.random.Generator) -> torch.Tensor:
        low, high = self.settings.view_scale
        scale = float(np.exp(generator.uniform(np.log(low), np.log(high))))
        flips = np.where(generator.random(3) < 0.5, -1.0, 1.0) if self.settings.flip else np.ones(3)
        centre = random_centre(volume, np.array(size) * scale, generator)
        return cut_view(volume, centre, np.diag(scale * flips), size)

    def _tokens(self, size: tuple[int, ...]) -> int:
        return int(np.prod(self.network.grid(size)))  # type: ignore[operator]

    def after_step(self, step: int, total: int) -> None:
        """Move the teacher; its momentum rises to 1 along half a cosine."""
        self.module.move_teacher(cosine_between(self.settings.momentum, 1.0, step, total))

    @torch.no_grad()
    def reconstruct(self, count: int) -> Reconstructions:
        """Central global views of volumes spread over the corpus, hidden tokens filled in by the student."""
        network: Any = self.network.eval()
        device = next(network.parameters()).device
        _, size = self._views["global"]
        images, visible = [], []
        for item in np.linspace(0, self.number_of_items - 1, count).round().astype(int):
            volume = self.corpus.image(int(item))
            images.append(cut_view(volume, (np.array(volume.shape[1:]) - 1) / 2, np.eye(3), size))
            generator = random_generator(self.seed, "reconstruct", self.corpus.items[int(item)].id)
            visible.append(torch.from_numpy(visible_tokens(self._tokens(size), self.settings.mask_ratio, generator)))
        batch, kept = torch.stack(images).to(device), torch.stack(visible).to(device)
        grid = network.grid(size)
        result = network.unpatchify(network.decode(network.encode(batch, kept)[1], kept, grid), grid)
        hidden = np.ones((count, self._tokens(size)), bool)
        np.put_along_axis(hidden, kept.cpu().numpy(), False, axis=1)
        voxels = np.stack([expand_mask(one.reshape(grid), size) for one in hidden])
        return Reconstructions(batch.cpu().numpy(), voxels, result.float().cpu().numpy())

