"""Training: recipes, runs, and everything a run needs."""

from fastctc.crnn.training.average import average, check_alike
from fastctc.crnn.training.config import (
    GROUPS,
    ModelConfig,
    OptimizerConfig,
    ScheduleConfig,
    TrainConfig,
    config_from_dict,
    config_to_dict,
    fast_precision,
    model_config,
    settled,
)
from fastctc.crnn.training.curve import plot_curve
from fastctc.crnn.training.data import FIRST_UNSEEN
from fastctc.crnn.training.errors import TrainError
from fastctc.crnn.training.fine_tune import digest_of
from fastctc.crnn.training.journal import read_log
from fastctc.crnn.training.optimizers import MuonAdamW
from fastctc.crnn.training.overfit import Overfit, overfit_one_batch
from fastctc.crnn.training.resume import MAY_CHANGE, ResumeError, saved_config
from fastctc.crnn.training.run import TrainResult, train

__all__ = [
    "FIRST_UNSEEN",
    "GROUPS",
    "MAY_CHANGE",
    "ModelConfig",
    "MuonAdamW",
    "OptimizerConfig",
    "Overfit",
    "ResumeError",
    "ScheduleConfig",
    "TrainConfig",
    "TrainError",
    "TrainResult",
    "average",
    "check_alike",
    "config_from_dict",
    "config_to_dict",
    "digest_of",
    "fast_precision",
    "model_config",
    "overfit_one_batch",
    "plot_curve",
    "read_log",
    "saved_config",
    "settled",
    "train",
]
