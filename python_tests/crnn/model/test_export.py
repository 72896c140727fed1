"""Exported models compute what PyTorch computes, and the example reads with them."""

import importlib.util
import io
import json
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from fastctc import cli
from fastctc.crnn.data import PreprocessConfig, prepare
from fastctc.crnn.formulas import FormulaSource
from fastctc.crnn.model import (
    CRNN,
    Checkpoint,
    CRNNConfig,
    Export,
    ExportError,
    export_onnx,
    export_program,
    exported,
    load_checkpoint,
    program,
    save_checkpoint,
)
from fastctc.crnn.model import onnx as onnx_export
from fastctc.crnn.model.exported import describe
from fastctc.crnn.model.network import RecurrentHead
from fastctc.crnn.read import Recognizer, infer
from fastctc.text import Alphabet

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

EXAMPLE = Path(__file__).parents[3] / "examples" / "read_with_onnx.py"
CONFIGS = {
    "conv": CRNNConfig(5, height=64, stem_stride=2, channels=4, hidden=8),
    "bilstm": CRNNConfig(5, "bilstm", channels=4, hidden=8),
    "bigru": CRNNConfig(5, "bigru", height=64, stem_stride=2, channels=4, hidden=8),
    "vgg-bilstm": CRNNConfig(5, "vgg-bilstm", channels=4, hidden=8),
}


def make_checkpoint(architecture: str) -> Checkpoint:
    torch.manual_seed(0)
    model = CRNN(CONFIGS[architecture]).eval()
    with torch.no_grad():
        model.classify.weight.mul_(8)  # an untrained model that has opinions
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.2)
                module.running_var.uniform_(0.5, 2)
    return Checkpoint(
        model, Alphabet("aé😀-", blank=2), PreprocessConfig(height=model.config.height), {"seed": 3}
    )


def batches(height: int):
    """Return images of several widths, alone and together, and each batch with anything in the padding."""
    rng = np.random.default_rng(0)
    for widths in ([1], [8], [97], [64, 64], [5, 120, 33, 1], [9] * 7):
        grays = [rng.integers(0, 256, (height, width), dtype=np.uint8) for width in widths]
        batch = rng.integers(0, 256, (len(widths), 1, height, max(widths) + 13), dtype=np.uint8)
        for n, gray in enumerate(grays):
            batch[n, 0, :, : widths[n]] = gray
        yield grays, batch, np.array(widths)


def assert_same(checkpoint: Checkpoint, grays, log_probs, lengths):
    for n, gray in enumerate(grays):
        expected, (length,) = infer(checkpoint.model, [gray], checkpoint.preprocess)
        assert lengths[n] == length
        read = torch.as_tensor(log_probs[n][: int(length)])
        torch.testing.assert_close(read, expected[0], rtol=0, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["bigru", "vgg-bilstm"])
def test_onnx_reads_as_torch(architecture, tmp_path):
    checkpoint = make_checkpoint(architecture)
    written = export_onnx(checkpoint, tmp_path / "deep" / "a.onnx")
    assert [path.name for path in written.path.parent.iterdir()] == ["a.onnx"]
    assert written.size == written.path.stat().st_size
    assert written.difference < 1e-4 and "checked with onnxruntime" in str(written)
    session = onnxruntime.InferenceSession(written.path, providers=["CPUExecutionProvider"])
    for grays, images, widths in batches(checkpoint.preprocess.height):
        assert_same(checkpoint, grays, *session.run(None, {"images": images, "widths": widths}))
    description = json.loads(session.get_modelmeta().custom_metadata_map["fastctc"])
    assert description == json.loads(json.dumps(describe(checkpoint)))
    onnx.checker.check_model(onnx.load(written.path), full_check=True)
    assert str(EXAMPLE.parents[1]).encode() not in written.path.read_bytes()


def assert_program_reads_as_eager(path: Path, checkpoint: Checkpoint):
    extra_files = {"fastctc": ""}
    program = torch.export.load(path, extra_files=extra_files).module()
    for grays, images, widths in batches(checkpoint.preprocess.height):
        assert_same(checkpoint, grays, *program(torch.from_numpy(images), torch.from_numpy(widths)))
    assert json.loads(extra_files["fastctc"]) == json.loads(json.dumps(describe(checkpoint)))
    assert str(EXAMPLE.parents[1]).encode() not in path.read_bytes()


@pytest.mark.slow
def test_a_recurrent_program_reads_as_eager_and_needs_no_fastctc(tmp_path):
    checkpoint = make_checkpoint("vgg-bilstm")
    written = export_program(checkpoint, tmp_path / "a.pt2")
    assert written.difference < 1e-4
    assert_program_reads_as_eager(written.path, checkpoint)
    code = f"""
import sys, torch
program = torch.export.load({str(written.path)!r}).module()
log_probs, lengths = program(torch.zeros(2, 1, 32, 50, dtype=torch.uint8), torch.tensor([50, 9]))
assert lengths.tolist() == [13, 3] and log_probs.isfinite().all()
assert "fastctc" not in sys.modules
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], cwd=tmp_path, check=True)


@pytest.mark.slow
def test_command_writes_a_program(tmp_path, capsys):
    checkpoint, path = make_checkpoint("conv"), tmp_path / "a.pt2"
    save_checkpoint(checkpoint, tmp_path / "a.safetensors")
    assert cli.main(["export", str(tmp_path / "a.safetensors"), str(path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{path}: {path.stat().st_size / 1e6:.2f} MB"
    assert lines[1:5] == [
        "input   images uint8 (N, 1, 64, W)",
        "input   widths int64 (N,)",
        "output  log_probs float32 (N, ceil(W / 8) + 1, 5)",
        "output  lengths int64 (N,)",
    ]
    assert lines[5].startswith("checked with torch.export.load: log-probabilities within ")
    assert_program_reads_as_eager(path, load_checkpoint(tmp_path / "a.safetensors"))


def test_command_errors(tmp_path, capsys):
    assert cli.main(["export", "formula", str(tmp_path / "a.txt")]) == 2
    assert "a.txt, expected a name that ends in .onnx or .pt2" in capsys.readouterr().err
    assert cli.main(["export", "none.safetensors", str(tmp_path / "a.pt2")]) == 2
    assert "no checkpoint at none.safetensors" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        cli.main(["export", "--help"])
    assert "examples:\n  fastctc export formula formula.onnx" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_recurrence_without_packed_sequences(kind):
    torch.manual_seed(0)
    head = RecurrentHead(kind, 5, 7).eval()
    frames, lengths = torch.randn(4, 9, 5), torch.tensor([9, 1, 4, 8])
    with torch.no_grad():
        expected, read = head(frames, lengths), program._LoopedRecurrence(head)(frames, lengths)
    for n, length in enumerate(lengths):
        torch.testing.assert_close(read[n, :length], expected[n, :length])


@pytest.mark.slow
def test_a_file_that_computes_something_else_is_not_written(tmp_path, monkeypatch):
    class Wrong(exported.Exported):
        def forward(self, images, widths):
            return super().forward(images, widths.clamp_min(9))

    monkeypatch.setattr(program, "Exported", Wrong)
    path = tmp_path / "a.pt2"
    path.write_text("the file before")
    with pytest.raises(ExportError, match="an image 1 wide has 2 frames, expected 1"):
        export_program(make_checkpoint("conv"), path)
    assert path.read_text() == "the file before" and list(tmp_path.iterdir()) == [path]


def test_padding_that_is_read_and_nan_are_found():
    checkpoint = make_checkpoint("conv")

    def run(images, widths):
        log_probs, _ = infer(checkpoint.model, list(images[:, 0].numpy()), checkpoint.preprocess)
        return log_probs, torch.div(widths + 7, 8, rounding_mode="floor")

    with pytest.raises(ExportError, match=r"of an image \d+ wide are off by \d.*, allowed are 0.001"):
        exported.compare(checkpoint, run, "test")
    with pytest.raises(ExportError, match="an image 1 wide are off by nan"):
        exported.compare(checkpoint, lambda *batch: (run(*batch)[0] * float("nan"), batch[1]), "test")


def test_without_onnxruntime_it_says_that_nothing_was_checked(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert onnx_export._onnx_runner(b"") is None
    assert "not checked: onnxruntime is not installed" in str(Export(Path("a"), 1, (), (), None, None))
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ModuleNotFoundError, match=r"needs pip install fastctc\[onnx\]"):
        export_onnx(make_checkpoint("conv"), "nowhere.onnx")


def test_the_description_says_what_is_done():
    checkpoint = make_checkpoint("conv")
    checkpoint.preprocess = replace(checkpoint.preprocess, tone=0.7, contrast_floor=5.5)
    description = describe(checkpoint)
    assert PreprocessConfig(**description["preprocess"]) == checkpoint.preprocess
    assert description["classes"] == ["a", "é", "", "😀", "-"] and description["blank"] == 2
    assert description["columns_per_frame"] == 8 and description["training"] == {"seed": 3}
    words = " ".join(description["steps"])
    assert "s ** 0.7" in words and "+ 5.5" in words and "64 rows" in words and "Filters" not in words


@pytest.fixture(scope="module")
def shipped(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("export") / "formula.onnx"
    assert cli.main(["export", "formula", str(path)]) == 0
    return path


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("read_with_onnx", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def pictures() -> list[Image.Image]:
    """Return 20 drawn formulas, some of them of another kind or size."""
    images = []
    for i in range(20):
        source = FormulaSource(look=("contest", "default")[i % 2], renderer="captcha", seed=8)
        image, _ = source(i)
        images.append(image if isinstance(image, Image.Image) else Image.fromarray(np.asarray(image)))
    images[3] = images[3].convert("L").point(lambda level: 255 - level)
    images[4] = images[4].convert("RGB").resize((300, 88))
    images[5] = images[5].convert("P")
    images[6] = images[6].convert("RGBA")
    images[6].putalpha(images[6].convert("L").point(lambda level: 255 - level))
    images[7] = images[7].convert("CMYK")
    images[8] = images[8].convert("L")
    images[8].info["transparency"] = 3
    images[9] = images[9].convert("1")
    images[10] = images[10].convert("L").point(lambda level: 180 + level // 10)
    images[11] = images[11].convert("LA")
    return images


@pytest.mark.slow
def test_the_shipped_model_reads_as_torch_in_onnxruntime(shipped):
    session = onnxruntime.InferenceSession(shipped, providers=["CPUExecutionProvider"])
    checkpoint = load_checkpoint("formula")
    for grays, images, widths in batches(64):
        assert_same(checkpoint, grays, *session.run(None, {"images": images, "widths": widths}))


@pytest.mark.slow
def test_the_example_prepares_and_reads_as_the_recognizer(shipped, example):
    reader, recognizer = example.Reader(str(shipped)), Recognizer.load()
    *_, dithered = images = [*pictures()[:9], *pictures()[10:], pictures()[9]]
    texts = [reading.text for reading in recognizer.read(images[:-1])]
    assert reader.read(images[:-1]) == texts
    with pytest.raises(ValueError, match="does not smooth dithered"):
        reader.read([dithered])
    assert [reader.read([image])[0] for image in images[:-1]] == texts
    assert len(set(texts)) > 15 and all(texts)


def test_the_example_crops_as_the_recognizer(example):
    config = PreprocessConfig(height=64, ink="gray", tone=0.0, crop=True)
    reader, rng = object.__new__(example.Reader), np.random.default_rng(0)
    reader.settings = asdict(config)
    cropped = 0
    for number in range(20):
        height, width, scale = int(rng.integers(5, 90)), int(rng.integers(3, 400)), int(rng.integers(1, 5))
        gray = np.full((height, width), 220, np.uint8)
        top = int(rng.integers(height))
        gray[top : top + height // 4, ::7] = rng.integers(210)
        image = Image.fromarray(gray.repeat(scale, 0).repeat(scale, 1))
        ours = prepare(image, config).pixels
        assert (reader.prepare(image) == ours).all(), number
        cropped += ours.shape[1] > round(64 * width / height) + 1
    assert cropped > 5


@pytest.mark.slow
def test_the_example_uses_neither_torch_nor_fastctc(shipped, tmp_path):
    pictures()[0].save(tmp_path / "a.png")
    (text,) = (reading.text for reading in Recognizer.load().read([tmp_path / "a.png"]))
    code = f"""
import runpy, sys
sys.modules["torch"] = sys.modules["fastctc"] = None
sys.argv[1:] = [{str(shipped)!r}, {str(tmp_path / "a.png")!r}]
runpy.run_path({str(EXAMPLE)!r}, run_name="__main__")
"""
    result = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert result.stdout == f"{tmp_path / 'a.png'}\t{text}\n"


@pytest.mark.slow
def test_the_example_refuses_filters_it_does_not_have(shipped, example, tmp_path):
    model = onnx.load(io.BytesIO(shipped.read_bytes()))
    (entry,) = (entry for entry in model.metadata_props if entry.key == "fastctc")
    description = json.loads(entry.value)
    description["preprocess"] |= {"off": 0, "sharpen": 3}
    entry.value = json.dumps(description)
    onnx.save(model, tmp_path / "a.onnx")
    with pytest.raises(ValueError, match=r"filters that this example does not have: sharpen$"):
        example.Reader(str(tmp_path / "a.onnx"))
