"""Datasets: case lists, their validation, splits and few-label subsets, and the corpora that training reads."""

from medmae.datasets.corpus import Corpus
from medmae.datasets.corpus_items import CorpusItem, LabelPlace
from medmae.datasets.corpus_writer import CorpusWriter
from medmae.datasets.dataset import Case, Dataset, load_dataset
from medmae.datasets.drawing import draw_cases
from medmae.datasets.splits import folds, split_by_subject
from medmae.datasets.summary import CaseSummary, DatasetSummary
from medmae.datasets.validation import validate, validate_cases

__all__ = ["Case", "CaseSummary", "Corpus", "CorpusItem", "CorpusWriter", "Dataset", "DatasetSummary", "LabelPlace",
           "draw_cases", "folds", "load_dataset", "split_by_subject", "validate", "validate_cases"]
