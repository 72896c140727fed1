"""Reading: from images to texts, and their accuracy."""

from fastctc.crnn.read.calibration import calibration_error, confidence_of, fitted_temperature
from fastctc.crnn.read.decoding import Decoder, Hypothesis
from fastctc.crnn.read.evaluation import (
    CONTRAST_BINS,
    Evaluation,
    Outcome,
    Share,
    edit_alignment,
    edit_distance,
    evaluate,
    evaluate_samples,
)
from fastctc.crnn.read.explanation import Explanation, explain
from fastctc.crnn.read.formats import row_of, why_unread
from fastctc.crnn.read.inference import PRECISIONS, infer
from fastctc.crnn.read.knowledge import HOTWORD_BONUS, lines_of, scorers_from_files
from fastctc.crnn.read.measures import Comparison, Measures, compare, measures
from fastctc.crnn.read.output import Written, write_readings
from fastctc.crnn.read.recognize import Evidence, Reading, Recognizer
from fastctc.crnn.read.stream import read_entries, workers_for

__all__ = [
    "CONTRAST_BINS",
    "HOTWORD_BONUS",
    "PRECISIONS",
    "Comparison",
    "Decoder",
    "Evaluation",
    "Evidence",
    "Explanation",
    "Hypothesis",
    "Measures",
    "Outcome",
    "Reading",
    "Recognizer",
    "Share",
    "Written",
    "calibration_error",
    "compare",
    "confidence_of",
    "edit_alignment",
    "edit_distance",
    "evaluate",
    "evaluate_samples",
    "explain",
    "fitted_temperature",
    "infer",
    "lines_of",
    "measures",
    "read_entries",
    "row_of",
    "scorers_from_files",
    "why_unread",
    "workers_for",
    "write_readings",
]
