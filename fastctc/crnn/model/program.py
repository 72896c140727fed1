"""Export of a trained model as a program of ``torch.export``, which PyTorch runs without this package."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from fastctc.crnn.data import claimed, own_torch_state, to_json, write_atomically
from fastctc.crnn.model.checkpoint import Checkpoint
from fastctc.crnn.model.exported import (
    METADATA,
    Export,
    Exported,
    ExportError,
    compare,
    describe,
    dynamic_shapes,
    quiet,
    signature,
)
from fastctc.crnn.model.network import CRNN, RecurrentHead


@own_torch_state()
def export_program(checkpoint: Checkpoint, path: str | Path) -> Export:
    """Write a model as a program that ``torch.export.load`` reads without this package.

    The description is the extra file ``fastctc``:

        extra_files = {"fastctc": ""}
        program = torch.export.load("formula.pt2", extra_files=extra_files).module()
        log_probs, lengths = program(images, widths)
        json.loads(extra_files["fastctc"])["classes"]

    Args:
        checkpoint: what to export; it stays as it is.
        path: the file; replaced only by a whole new one.

    Returns:
        What was written, and how well it agrees with the model it came from.

    Raises:
        FolderInUseError: another process writes into the file's folder.
        DiskFullError: there is no room for the file.
        ExportError: the file would compute something else; nothing is written.
    """
    path = Path(path)
    with claimed(path.parent):
        return _export(checkpoint, path)


def _export(checkpoint: Checkpoint, path: Path) -> Export:
    # torch.export takes a size that may be 1 for a fixed one, so there is always a second frame.
    graph = Exported(checkpoint, _LoopedRecurrence, spare_frames=1)
    with quiet(), _recurrence_as_loops(checkpoint.model):
        program = torch.export.export(graph, graph.example(), dynamic_shapes=dynamic_shapes(), strict=False)
    for part in program.graph_module.modules():  # traces of the tracing, with local paths
        for node in getattr(part, "graph", torch.fx.Graph()).nodes:
            node.meta.pop("stack_trace", None)
    buffer = io.BytesIO()
    description = to_json(describe(checkpoint), sort_keys=True)
    with quiet():
        torch.export.save(program, buffer, extra_files={METADATA: description})
        content = buffer.getvalue()
        loaded = torch.export.load(io.BytesIO(content)).module()
        difference = compare(checkpoint, loaded, "torch.export")
    write_atomically(path, content)
    return Export(path, len(content), *signature(checkpoint, 1), difference, "torch.export.load")


class _LoopedRecurrence(nn.Module):
    """A recurrent head without packed sequences, which ``torch.export`` does not support.

    Backward in time is forward over the frames in reverse order, each sequence reversed within its own
    length; what follows it comes last in both directions and reaches none of its frames.
    """

    def __init__(self, head: RecurrentHead) -> None:
        super().__init__()
        self.rnn, self.features = head.rnn, head.features

    def forward(self, frames: Tensor, lengths: Tensor) -> Tensor:
        """Map (N, T, inputs) to (N, T, 2 hidden)."""
        time, last = torch.arange(frames.shape[1], device=frames.device), lengths[:, None] - 1
        reverse = torch.where(time <= last, last - time, time)[:, :, None]  # (N, T, 1)
        x = frames
        for layer in range(self.rnn.num_layers):
            behind = self._one_direction(x, f"l{layer}")
            ahead = self._one_direction(x.gather(1, reverse.expand_as(x)), f"l{layer}_reverse")
            x = torch.cat([behind, ahead.gather(1, reverse.expand_as(ahead))], dim=2)
        return x

    def _one_direction(self, x: Tensor, suffix: str) -> Tensor:
        """Map (N, T, inputs) to (N, T, hidden): one layer in one direction."""
        names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        weights = [getattr(self.rnn, f"{name}_{suffix}") for name in names]
        start = x.new_zeros(1, x.shape[0], self.rnn.hidden_size)
        # Biases are there, one layer, no dropout, not training, one direction, batch first.
        if isinstance(self.rnn, nn.LSTM):
            result: Tensor = torch.lstm(x, (start, start), weights, True, 1, 0.0, False, False, True)[0]
        else:
            result = torch.gru(x, start, weights, True, 1, 0.0, False, False, True)[0]
        return result


@contextlib.contextmanager
def _recurrence_as_loops(model: CRNN) -> Iterator[None]:
    """Let ``torch.export`` make a loop of a recurrent layer, for it unrolls one to a fixed number of frames."""
    if not isinstance(model.head, RecurrentHead):
        yield
        return
    try:
        from torch.export._patches import (
            register_gru_while_loop_decomposition,
            register_lstm_while_loop_decomposition,
        )
    except ImportError as error:
        raise ExportError(
            f"torch.export of {torch.__version__} cannot export {model.config.architecture!r}: it needs"
            " torch 2.13; ONNX works"
        ) from error
    with register_lstm_while_loop_decomposition(), register_gru_while_loop_decomposition():
        yield
