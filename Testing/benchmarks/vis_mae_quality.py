"""Error of VIS-MAE's reconstruction on images that pretraining did not see, for several pretraining runs side by side.

    python Testing/benchmarks/vis_mae_quality.py --dataset dataset.json [--split validation] RUN [RUN ...]

Each run reconstructs the same whole images under the same masks (four draws an image), in the way it was trained: with
visible tokens only, or with replaced tokens as published. The error is the mean squared one over hidden pixels, the
intensities being in [0, 1]; the difference from the first run comes with a 95 % interval over the images. To compare
finetuned models too, give the runs to vis_mae_labels.py --encoders.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from medmae.config import from_json
from medmae.datasets import Corpus, load_dataset
from medmae.datasets.corpus_building import build_corpus
from medmae.datasets.preprocessing import Preprocessing
from medmae.files import read_json
from medmae.metrics.bootstrap import mean_interval
from medmae.models import load_info, load_state, resolve_model
from medmae.pretraining.vis_mae import VisMaePretraining, VisMaeSettings
from medmae.training.randomness import Draw

MASKS = 4
SEED = 12_345


def errors_of(run: Path, corpus: Corpus) -> NDArray[np.float64]:
    """The error of each image of the corpus, the mean over its masks."""
    settings = from_json(VisMaeSettings, read_json(run / "config.json", "run")["settings"], "settings")
    settings = replace(settings, crop_scale=(1.0, 1.0), flip=False)
    info = load_info(resolve_model(run))
    method = VisMaePretraining(info.preset, info.image_channels, corpus, settings, SEED, 0.0)
    method.network.load_state_dict(load_state(run))
    method.module.eval()
    errors = np.zeros(len(corpus))
    with torch.no_grad():
        for index in range(len(corpus)):
            batch = method.load_batch([Draw(index, epoch) for epoch in range(MASKS)])
            errors[index] = float(method.module(batch)["loss"])
    return errors


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", type=Path, required=True)
    parser.add_argument("--split", default="validation")
    parser.add_argument("runs", nargs="+", type=Path)
    given = parser.parse_args()
    dataset = load_dataset(given.dataset)
    first: NDArray[np.float64] | None = None
    with tempfile.TemporaryDirectory() as folder:
        preprocessing = Preprocessing.of(load_info(resolve_model(given.runs[0])))
        corpus = build_corpus(Path(folder), dataset, dataset.cases(given.split), preprocessing, with_labels=False,
                              on_progress=lambda done, total: None, should_stop=lambda: False)
        subjects = [item.subject or item.id for item in corpus.items]
        for run in given.runs:
            config: dict[str, Any] = read_json(run / "config.json", "run")
            errors = errors_of(run, corpus)
            line = (f"{run.name}: {config['steps']} steps of {config['batch_size']} images, "
                    f"visible_only={config['settings']['visible_only']}: {errors.mean():.5f}")
            if first is not None:
                low, high = mean_interval(errors - first, subjects) or (float("nan"), float("nan"))
                line += f", difference {errors.mean() - first.mean():+.5f} ({low:+.5f} to {high:+.5f})"
            first = errors if first is None else first
            sys.stdout.write(f"{line} on {len(corpus)} images of {dataset.name}, {given.split}\n")


if __name__ == "__main__":
    main()
