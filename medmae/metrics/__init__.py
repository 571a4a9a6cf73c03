"""Metrics: one definition for every figure anywhere. Needs numpy and scipy alone."""

from medmae.metrics.auc import auc, auc_per_class
from medmae.metrics.bootstrap import bootstrap_interval, mean_interval
from medmae.metrics.calibration import Calibration, fit_temperature, probabilities_of
from medmae.metrics.classification_scores import (
    ClassificationCase,
    classification_scores,
    predicted_classes,
    targets_of,
)
from medmae.metrics.dice import dice_per_label, false_positive_ml, false_positive_voxels
from medmae.metrics.hausdorff import hd95_mm, hd95_per_label
from medmae.metrics.roc import roc_points
from medmae.metrics.segmentation_scores import (
    SegmentationCase,
    foreground_labels,
    score_segmentation,
    segmentation_scores,
)

__all__ = ["Calibration", "ClassificationCase", "SegmentationCase", "auc", "auc_per_class", "bootstrap_interval",
           "classification_scores", "dice_per_label", "false_positive_ml", "false_positive_voxels", "fit_temperature",
           "foreground_labels", "hd95_mm", "hd95_per_label", "mean_interval", "predicted_classes", "probabilities_of",
           "roc_points", "score_segmentation", "segmentation_scores", "targets_of"]
