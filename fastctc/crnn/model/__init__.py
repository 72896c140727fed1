"""The network: its layers, its file, its summary, and its exports."""

from fastctc.crnn.model.caseless import small_letters, without_case
from fastctc.crnn.model.checkpoint import (
    DAMAGED,
    MODEL_FILE,
    Checkpoint,
    CheckpointError,
    checkpoint_file,
    load_checkpoint,
    load_state,
    save_checkpoint,
    save_state,
)
from fastctc.crnn.model.exported import Export, ExportError
from fastctc.crnn.model.folding import folded
from fastctc.crnn.model.masked_norm import MaskedBatchNorm
from fastctc.crnn.model.network import CRNN, CRNNConfig
from fastctc.crnn.model.onnx import export_onnx
from fastctc.crnn.model.program import export_program
from fastctc.crnn.model.summary import Summary, summarize

__all__ = [
    "CRNN",
    "DAMAGED",
    "MODEL_FILE",
    "CRNNConfig",
    "Checkpoint",
    "CheckpointError",
    "Export",
    "ExportError",
    "MaskedBatchNorm",
    "Summary",
    "checkpoint_file",
    "export_onnx",
    "export_program",
    "folded",
    "load_checkpoint",
    "load_state",
    "save_checkpoint",
    "save_state",
    "small_letters",
    "summarize",
    "without_case",
]
