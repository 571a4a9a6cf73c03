"""Datasets: case lists, their validation, splits and few-label subsets, and the corpora that training reads."""

from medmae.datasets.corpus import Corpus, CorpusItem, LabelPlace
from medmae.datasets.corpus_writer import CorpusWriter
from medmae.datasets.dataset import Case, Dataset, load_dataset
from medmae.datasets.drawing import draw_cases
from medmae.datasets.splits import folds, split_by_subject

__all__ = ["Case", "Corpus", "CorpusItem", "CorpusWriter", "Dataset", "LabelPlace", "draw_cases", "folds",
           "load_dataset", "split_by_subject"]
