"""A CRNN text recognizer trained with CTC: images of one line of text in, text out.

>>> import numpy as np
>>> Recognizer.load("formula").read(np.full((60, 180), 255, np.uint8)).text  # an empty page
''
"""

from fastctc.crnn import formulas, words
from fastctc.crnn.data import (
    AugmentConfig,
    Constraint,
    DrawConfig,
    ImageError,
    LabelConfig,
    LabelError,
    PreprocessConfig,
    open_source,
    register,
    steps,
    write_folder,
)
from fastctc.crnn.formulas import FormulaConstraint, FormulaDraw, FormulaSource
from fastctc.crnn.model import (
    CRNN,
    Checkpoint,
    CheckpointError,
    CRNNConfig,
    export_onnx,
    export_program,
    load_checkpoint,
    save_checkpoint,
    summarize,
)
from fastctc.crnn.read import Evaluation, Hypothesis, Reading, Recognizer, evaluate, explain
from fastctc.crnn.report import explore, plot_network, write_evaluation_report, write_exploration_report
from fastctc.crnn.training import (
    ModelConfig,
    OptimizerConfig,
    ScheduleConfig,
    TrainConfig,
    TrainError,
    TrainResult,
    model_config,
    overfit_one_batch,
    settled,
    train,
)
from fastctc.crnn.words import WordDraw, WordSource

for _domain in (formulas.DOMAIN, words.DOMAIN):
    register(_domain)

PRESETS = {**formulas.PRESETS, **words.PRESETS}
"""Training recipes by their names, see ``fastctc train --preset``."""

__all__ = [
    "CRNN",
    "PRESETS",
    "AugmentConfig",
    "CRNNConfig",
    "Checkpoint",
    "CheckpointError",
    "Constraint",
    "DrawConfig",
    "Evaluation",
    "FormulaConstraint",
    "FormulaDraw",
    "FormulaSource",
    "Hypothesis",
    "ImageError",
    "LabelConfig",
    "LabelError",
    "ModelConfig",
    "OptimizerConfig",
    "PreprocessConfig",
    "Reading",
    "Recognizer",
    "ScheduleConfig",
    "TrainConfig",
    "TrainError",
    "TrainResult",
    "WordDraw",
    "WordSource",
    "evaluate",
    "explain",
    "explore",
    "export_onnx",
    "export_program",
    "load_checkpoint",
    "model_config",
    "open_source",
    "overfit_one_batch",
    "plot_network",
    "register",
    "save_checkpoint",
    "settled",
    "steps",
    "summarize",
    "train",
    "write_evaluation_report",
    "write_exploration_report",
    "write_folder",
]
