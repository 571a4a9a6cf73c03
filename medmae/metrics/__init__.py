"""Metrics: one definition for every figure anywhere. Needs numpy and scipy alone."""

from medmae.metrics.auc import auc, auc_per_class
from medmae.metrics.bootstrap import bootstrap_interval, mean_interval
from medmae.metrics.classification_scores import ClassificationCase, classification_scores
from medmae.metrics.dice import dice_per_label, false_positive_ml, false_positive_voxels
from medmae.metrics.hausdorff import hd95_mm, hd95_per_label
from medmae.metrics.segmentation_scores import (
    SegmentationCase,
    foreground_labels,
    score_segmentation,
    segmentation_scores,
)

__all__ = ["ClassificationCase", "SegmentationCase", "auc", "auc_per_class", "bootstrap_interval",
           "classification_scores", "dice_per_label", "false_positive_ml", "false_positive_voxels", "foreground_labels",
           "hd95_mm", "hd95_per_label", "mean_interval", "score_segmentation", "segmentation_scores"]
