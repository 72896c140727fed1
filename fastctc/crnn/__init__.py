"""A CRNN text recogniser trained with CTC: images of one line of text in, text out.

Training is in :mod:`fastctc.crnn.train.run`, drawing of formula images in :mod:`fastctc.crnn.formulas.drawing`.
"""

from fastctc.crnn.data.preprocess import ImageError, PreprocessConfig
from fastctc.crnn.model.checkpoint import Checkpoint, CheckpointError, load_checkpoint, save_checkpoint
from fastctc.crnn.model.network import CRNN, CRNNConfig
from fastctc.crnn.read.constraint import Constraint, FormulaConstraint
from fastctc.crnn.read.decoding import Hypothesis
from fastctc.crnn.read.recognize import Reading, Recognizer

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
