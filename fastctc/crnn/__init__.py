"""A CRNN text recogniser trained with CTC: images of one line of text in, text out.

Training is in :mod:`fastctc.crnn.train`, drawing of formula images in :mod:`fastctc.crnn.drawing`.
"""

from fastctc.crnn.checkpoint import Checkpoint, CheckpointError, load_checkpoint, save_checkpoint
from fastctc.crnn.constraint import Constraint, FormulaConstraint
from fastctc.crnn.decoding import Hypothesis
from fastctc.crnn.model import CRNN, CRNNConfig
from fastctc.crnn.preprocess import ImageError, PreprocessConfig
from fastctc.crnn.recognize import Reading, Recognizer

__all__ = [
    "CRNN",
    "CRNNConfig",
    "Checkpoint",
    "CheckpointError",
    "Constraint",
    "FormulaConstraint",
    "Hypothesis",
    "ImageError",
    "PreprocessConfig",
    "Reading",
    "Recognizer",
    "load_checkpoint",
    "save_checkpoint",
]
