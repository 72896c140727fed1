"""Export of a trained model to ONNX, which onnxruntime and others run without PyTorch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fastctc.crnn.data import claimed, own_torch_state, to_json, write_atomically
from fastctc.crnn.model.checkpoint import Checkpoint
from fastctc.crnn.model.exported import (
    METADATA,
    Export,
    Exported,
    Run,
    compare,
    describe,
    dynamic_shapes,
    quiet,
    signature,
    version,
)
from fastctc.crnn.model.network import RecurrentHead

INPUTS = ("images", "widths")
OUTPUTS = ("log_probs", "lengths")


@own_torch_state()
def export_onnx(checkpoint: Checkpoint, path: str | Path) -> Export:
    """Write a model as an ONNX file, which onnxruntime and others run without PyTorch.

    The description is the entry ``fastctc`` of the file's ``metadata_props``.

    Args:
        checkpoint: what to export; it stays as it is.
        path: the file; replaced only by a whole new one.

    Returns:
        What was written, and how well it agrees with PyTorch.

    Raises:
        FolderInUseError: another process writes into the file's folder.
        DiskFullError: there is no room for the file.
        ModuleNotFoundError: onnx or onnxscript is missing.
        ExportError: the file would compute something else; nothing is written.
    """
    try:
        import onnx_ir  # noqa: F401
        import onnxscript  # noqa: F401, torch's exporter needs it
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"{error}: export to ONNX needs pip install fastctc[onnx]") from error
    path = Path(path)
    with claimed(path.parent):
        return _export(checkpoint, path)


def _export(checkpoint: Checkpoint, path: Path) -> Export:
    import onnx_ir
    from onnx_ir.passes.common import ClearMetadataAndDocStringPass

    graph = Exported(checkpoint, _OnnxRecurrence, spare_frames=0)
    with quiet():
        program = torch.onnx.export(
            graph, graph.example(), dynamo=True, dynamic_shapes=dynamic_shapes(),
            input_names=INPUTS, output_names=OUTPUTS, verbose=False,
        )  # fmt: skip
        assert program is not None
        model = ClearMetadataAndDocStringPass()(program.model).model  # traces of the tracing, local paths
    model.producer_name, model.producer_version = "fastctc", version()
    model.metadata_props[METADATA] = to_json(describe(checkpoint), sort_keys=True)
    content = onnx_ir.to_proto(model).SerializeToString()
    run = _onnx_runner(content)
    difference = None if run is None else compare(checkpoint, run, "onnxruntime")
    write_atomically(path, content)
    checked_by = None if run is None else "onnxruntime"
    return Export(path, len(content), *signature(checkpoint, 0), difference, checked_by)


def _onnx_runner(content: bytes) -> Run | None:
    """Return what runs an ONNX file in onnxruntime; None if that is not installed."""
    try:
        import onnxruntime
    except ModuleNotFoundError:
        return None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])

    def run(images: Tensor, widths: Tensor) -> tuple[Tensor, Tensor]:
        log_probs, lengths = session.run(OUTPUTS, {"images": images.numpy(), "widths": widths.numpy()})
        return torch.from_numpy(log_probs), torch.from_numpy(lengths)

    return run


class _OnnxRecurrence(nn.Module):
    """A recurrent head as ONNX's operator LSTM or GRU, which takes the length of each sequence."""

    def __init__(self, head: RecurrentHead) -> None:
        super().__init__()
        rnn = head.rnn
        self.operator = "LSTM" if isinstance(rnn, nn.LSTM) else "GRU"
        self.attributes: dict[str, Any] = {"direction": "bidirectional", "hidden_size": rnn.hidden_size}
        if self.operator == "GRU":
            self.attributes["linear_before_reset"] = 1
        # Gates in the order of PyTorch (LSTM i f g o, GRU r z n) to the order of ONNX (i o f c, z r h).
        self.order = (0, 3, 1, 2) if self.operator == "LSTM" else (1, 0, 2)
        self.layers, self.hidden, self.features = rnn.num_layers, rnn.hidden_size, head.features
        for layer in range(self.layers):
            for name, kinds in (
                ("input", ["weight_ih"]),
                ("hidden", ["weight_hh"]),
                ("bias", ["bias_ih", "bias_hh"]),
            ):
                directions = [
                    torch.cat([self._reordered(getattr(rnn, f"{kind}_l{layer}{suffix}")) for kind in kinds])
                    for suffix in ("", "_reverse")
                ]
                self.register_buffer(f"{name}_{layer}", torch.stack(directions))

    def _reordered(self, weight: Tensor) -> Tensor:
        gates = weight.detach().chunk(len(self.order))
        return torch.cat([gates[i] for i in self.order])

    def forward(self, frames: Tensor, lengths: Tensor) -> Tensor:
        """Map (N, T, inputs) to (N, T, 2 hidden)."""
        x = frames.transpose(0, 1)
        for layer in range(self.layers):
            weights = [self.get_buffer(f"{name}_{layer}") for name in ("input", "hidden", "bias")]
            y = torch.onnx.ops.symbolic(
                self.operator, [x, *weights, lengths.to(torch.int32)], self.attributes,
                dtype=x.dtype, shape=(x.shape[0], 2, x.shape[1], self.hidden),
            )  # fmt: skip
            x = y.transpose(1, 2).flatten(2)  # (T, 2, N, hidden) -> (T, N, 2 hidden)
        return x.transpose(0, 1)
