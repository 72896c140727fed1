"""Which kinds of numbers, tensors and exceptions the public functions take and raise."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import fastctc
from fastctc.arguments import integer, real

X = torch.randn(6, 2, 5, generator=torch.Generator().manual_seed(0)).log_softmax(2)
TARGETS = torch.tensor([[1, 2], [3, 4]])


class Index:
    """An integer of another class."""

    def __init__(self, value: int) -> None:
        self.value = value

    def __index__(self) -> int:
        return self.value


def zero_dimensional(value: int) -> Tensor:
    return torch.tensor(value)


def of_one_value(value: int) -> Tensor:
    return torch.tensor([value], dtype=torch.uint8)


INTEGERS: list[Callable[[int], Any]] = [
    int, np.int64, np.int32, np.uint8, np.array, zero_dimensional, of_one_value, Index,
]  # fmt: skip
integers = pytest.mark.parametrize("kind", INTEGERS, ids=lambda kind: kind.__name__)
REALS: list[Callable[[float], Any]] = [float, np.float64, np.float32, np.float16, Fraction]
reals = pytest.mark.parametrize("kind", REALS, ids=lambda kind: kind.__name__)


@integers
def test_lengths_of_each_kind(kind: Callable[[int], Any]) -> None:
    expected = fastctc.ctc_loss(X, TARGETS, [6, 5], [2, 1], reduction="none")
    frames, labels = [kind(6), kind(5)], (kind(2), kind(1))
    torch.testing.assert_close(
        fastctc.ctc_loss(X, TARGETS, frames, labels, reduction="none"), expected, rtol=0, atol=0
    )
    flat = torch.tensor([1, 2, 3])
    torch.testing.assert_close(
        fastctc.ctc_loss(X, flat, frames, labels, reduction="none"), expected, rtol=0, atol=0
    )
    assert fastctc.ctc_loss(X[:, 0], TARGETS[0], kind(6), kind(2)) == fastctc.ctc_loss(
        X[:, 0], TARGETS[0], 6, 2
    )
    paths, _ = fastctc.forced_align(X, TARGETS, frames, labels, time_major=True)
    assert paths.shape == (2, 6)
    assert fastctc.ctc_posteriors(X, TARGETS, frames, labels).shape == X.shape


@pytest.mark.parametrize(
    "lengths",
    [
        tuple(torch.tensor([6, 5])),
        torch.tensor([6, 5]).unbind(),
        [torch.tensor(6), 5],
        [torch.tensor([6]), np.int8(5)],
        np.array([6, 5]),
        np.array([6, 5], dtype=np.uint16),
        torch.tensor([6, 5], dtype=torch.uint16),
        torch.tensor([6, 5], dtype=torch.uint64),
        range(6, 4, -1),
        (length for length in (6, 5)),
        {6: "a", 5: "b"}.keys(),
    ],
    ids=lambda lengths: type(lengths).__name__,
)
def test_sequences_of_lengths(lengths: Any) -> None:
    expected = fastctc.ctc_loss(X, TARGETS, [6, 5], [2, 2])
    assert fastctc.ctc_loss(X, TARGETS, lengths, torch.tensor([2, 2]).unbind()) == expected


@integers
def test_options_that_are_integers(kind: Callable[[int], Any]) -> None:
    loss = fastctc.ctc_loss(X, TARGETS, [6, 6], [2, 2], blank=kind(0), star=kind(4))
    assert loss == fastctc.ctc_loss(X, TARGETS, [6, 6], [2, 2], blank=0, star=4)
    module = fastctc.CTCLoss(blank=kind(0), star=kind(4))
    assert module(X, TARGETS, [6, 6], [2, 2]) == loss
    paths, scores = fastctc.forced_align(X.transpose(0, 1), TARGETS, blank=kind(0), star=kind(4))
    spans = fastctc.merge_tokens(paths, scores, blank=kind(0))
    assert [[span.token for span in each] for each in spans] == [[1, 2], [3, 4]]


@reals
def test_options_that_are_numbers(kind: Callable[[float], Any]) -> None:
    options = {"focal_gamma": 1.5, "blank_penalty": 0.25, "delay_penalty": 0.5}
    of_kind = {name: kind(value) for name, value in options.items()}
    assert fastctc.ctc_loss(X, TARGETS, [6, 6], [2, 2], **of_kind) == fastctc.ctc_loss(
        X, TARGETS, [6, 6], [2, 2], **options
    )
    assert fastctc.CTCLoss(**of_kind)(X, TARGETS, [6, 6], [2, 2]).isfinite()


def test_flags_of_numpy() -> None:
    loss = fastctc.ctc_loss(X, TARGETS, [6, 6], [2, 2], from_logits=np.True_, zero_infinity=np.True_)
    assert loss == fastctc.ctc_loss(X, TARGETS, [6, 6], [2, 2], from_logits=True, zero_infinity=True)


@pytest.mark.parametrize(
    "value",
    [True, np.True_, 1.0, np.float32(1), "1", None, torch.tensor(1.0), torch.tensor(True), [1], 1j],
    ids=repr,
)
def test_what_is_no_integer(value: Any) -> None:
    with pytest.raises(TypeError, match=r"^size must be an int, got "):
        integer(value, "size")
    with pytest.raises(TypeError, match=r"input_lengths\[1\] must be an int"):
        fastctc.ctc_loss(X, TARGETS, [6, value], [2, 2])


@pytest.mark.parametrize(
    "value", [True, np.True_, "1", None, torch.tensor(1.0), torch.tensor(True), [1.0], 1j], ids=repr
)
def test_what_is_no_number(value: Any) -> None:
    with pytest.raises(TypeError, match=r"^size must be a number, got "):
        real(value, "size")


# Symbolic integers


class OfShapes(torch.nn.Module):
    """The lengths are lists of sizes, as in a model without padding."""

    def __init__(self, function: str) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor, targets: Tensor) -> Tensor:
        frames, samples = x.shape[0], x.shape[1]
        lengths = [frames] * samples, [targets.shape[1]] * samples
        if self.function == "loss":
            return fastctc.ctc_loss(x, targets, *lengths, reduction="none")
        if self.function == "posteriors":
            return fastctc.ctc_posteriors(x, targets, *lengths)
        return fastctc.forced_align(x, targets, *lengths, time_major=True)[1]


@pytest.mark.parametrize("function", ["loss", "posteriors", "alignment"])
@pytest.mark.parametrize("strict", [False, True])
def test_export_with_lengths_of_a_dynamic_shape(function: str, strict: bool) -> None:
    model = OfShapes(function)
    dynamic = {"x": {0: torch.export.Dim("frames", min=4, max=50)}, "targets": {}}
    program = torch.export.export(model, (X, TARGETS), dynamic_shapes=dynamic, strict=strict).module()
    for frames in (6, 9):
        x = torch.randn(frames, 2, 5, generator=torch.Generator().manual_seed(1)).log_softmax(2)
        torch.testing.assert_close(program(x, TARGETS), model(x, TARGETS), rtol=0, atol=0)


@pytest.mark.parametrize("function", ["loss", "posteriors", "alignment"])
@pytest.mark.parametrize("mode", ["real", "fake", "symbolic"])
def test_make_fx_with_lengths_of_shapes(function: str, mode: str) -> None:
    from torch.fx.experimental.proxy_tensor import make_fx

    model = OfShapes(function)
    traced = make_fx(model, tracing_mode=mode)(X, TARGETS)
    torch.testing.assert_close(traced(X, TARGETS), model(X, TARGETS), rtol=0, atol=0)


@pytest.mark.parametrize("dynamic", [False, True])
def test_compile_with_lengths_of_shapes(dynamic: bool) -> None:
    model = OfShapes("loss")
    compiled = torch.compile(model, backend="aot_eager", dynamic=dynamic, fullgraph=True)
    for frames in (6, 9):
        x = torch.randn(frames, 2, 5, generator=torch.Generator().manual_seed(1)).log_softmax(2)
        torch.testing.assert_close(compiled(x, TARGETS), model(x, TARGETS), rtol=0, atol=0)


# Exceptions


def calls_that_fail() -> dict[str, tuple[type[Exception], Callable[[], object]]]:
    def loss(**changes: Any) -> Callable[[], object]:
        arguments = {
            "log_probs": X, "targets": TARGETS, "input_lengths": [6, 6], "target_lengths": [2, 2], **changes,
        }  # fmt: skip
        return lambda: fastctc.ctc_loss(**arguments)

    return {
        "a label that is no class": (ValueError, loss(targets=TARGETS + 3)),
        "a length beyond the frames": (ValueError, loss(input_lengths=[6, 7])),
        "a length beyond the targets": (ValueError, loss(target_lengths=[2, 3])),
        "too few lengths": (ValueError, loss(input_lengths=[6])),
        "a blank that is no class": (ValueError, loss(blank=5)),
        "a negative blank": (ValueError, loss(blank=-1)),
        "an unknown reduction": (ValueError, loss(reduction="median")),
        "targets of another batch": (ValueError, loss(targets=TARGETS[:1])),
        "scores of four dimensions": (ValueError, loss(log_probs=X[None])),
        "scores of integers": (TypeError, loss(log_probs=TARGETS)),
        "targets of floats": (TypeError, loss(targets=TARGETS.float())),
        "lengths of floats": (TypeError, loss(input_lengths=[6.0, 6.0])),
        "a blank of float": (TypeError, loss(blank=0.5)),
        "an alignment to a blank": (
            ValueError,
            lambda: fastctc.forced_align(X[:, :1], TARGETS[:1] - 1, time_major=True),
        ),
        "an alignment of integers": (TypeError, lambda: fastctc.forced_align(TARGETS, TARGETS)),
        "spans of two shapes": (ValueError, lambda: fastctc.merge_tokens(TARGETS, X)),
        "posteriors of a label that is no class": (
            ValueError,
            lambda: fastctc.ctc_posteriors(X, TARGETS + 3, [6, 6], [2, 2]),
        ),
    }  # fmt: skip


@pytest.mark.parametrize("name", calls_that_fail())
def test_exceptions_are_runtime_errors_too(name: str) -> None:
    """PyTorch and torchaudio raise a RuntimeError in most of these cases."""
    kind, call = calls_that_fail()[name]
    with pytest.raises(kind) as caught:
        call()
    assert isinstance(caught.value, RuntimeError)
    assert isinstance(caught.value, (fastctc.ArgumentValueError, fastctc.ArgumentTypeError))
    assert pickle.loads(pickle.dumps(caught.value)).args == caught.value.args


# Layouts and devices of tensors

NOT_DENSE: dict[str, Callable[[Tensor], Tensor]] = {
    "sparse": lambda x: x.to_sparse(),
    "compressed": lambda x: x[:, 0].to_sparse_csr(),
    "mkldnn": lambda x: x.to_mkldnn(),
    "jagged": lambda x: torch.nested.nested_tensor([x[:4, 0], x[:6, 1]], layout=torch.jagged),
    "nested": lambda x: torch.nested.nested_tensor([x[:4, 0], x[:6, 1]]),
}


@pytest.mark.filterwarnings("ignore:.*(prototype|beta).*")
@pytest.mark.parametrize("kind", NOT_DENSE)
def test_other_layouts_are_refused_by_name(kind: str) -> None:
    if kind == "mkldnn" and not torch.backends.mkldnn.is_available():
        pytest.skip("PyTorch is built without mkldnn")
    x = NOT_DENSE[kind](X)
    layout = "nested tensor" if x.is_nested else str(x.layout)
    functions: list[Callable[[], object]] = [
        lambda: fastctc.ctc_loss(x, TARGETS, [6, 6], [2, 2]),
        lambda: fastctc.forced_align(x, TARGETS),
        lambda: fastctc.ctc_posteriors(x, TARGETS, [6, 6], [2, 2]),
    ]
    for function in functions:
        with pytest.raises(TypeError, match=rf"log_probs must have layout torch\.strided, got .*{layout}"):
            function()


@pytest.mark.parametrize("name", ["targets", "input_lengths", "target_lengths", "label_priors"])
def test_other_layouts_of_the_other_tensors_are_refused(name: str) -> None:
    arguments: dict[str, Any] = {
        "targets": TARGETS, "input_lengths": torch.tensor([6, 6]), "target_lengths": torch.tensor([2, 2]),
        "label_priors": torch.zeros(5),
    }  # fmt: skip
    arguments[name] = arguments[name].to_sparse()
    with pytest.raises(
        TypeError, match=f"{name} must have layout torch.strided, got layout torch.sparse_coo"
    ):
        fastctc.ctc_loss(X, **arguments)


def test_quantized_scores_are_refused() -> None:
    x = torch.quantize_per_tensor(X, 0.1, 0, torch.qint8)
    with pytest.raises(TypeError, match=r"log_probs must be a tensor of float16.*got torch\.qint8"):
        fastctc.ctc_loss(x, TARGETS, [6, 6], [2, 2])


def test_meta_tensors_have_the_shapes_of_results() -> None:
    x = X.to("meta").requires_grad_()
    loss = fastctc.ctc_loss(x, TARGETS.to("meta"), [6, 6], [2, 2], reduction="none")
    assert loss.device.type == "meta" and loss.shape == (2,)
    loss.sum().backward()
    assert x.grad is not None and x.grad.shape == x.shape
    paths, scores = fastctc.forced_align(X.to("meta"), TARGETS.to("meta"), [6, 6], [2, 2], time_major=True)
    assert paths.shape == scores.shape == (2, 6)
    assert fastctc.ctc_posteriors(X.to("meta"), TARGETS.to("meta"), [6, 6], [2, 2]).shape == X.shape


class Subclass(torch.Tensor):
    """A tensor of another class, as libraries of named or tracked tensors have."""


def test_subclasses_of_tensors() -> None:
    x = X.detach().clone().as_subclass(Subclass).requires_grad_()
    loss = fastctc.ctc_loss(x, TARGETS.as_subclass(Subclass), torch.tensor([6, 6]), [2, 2])
    loss.backward()
    expected = X.detach().clone().requires_grad_()
    fastctc.ctc_loss(expected, TARGETS, [6, 6], [2, 2]).backward()
    assert x.grad is not None and expected.grad is not None
    torch.testing.assert_close(torch.Tensor(x.grad), expected.grad, rtol=0, atol=0)
    paths, _ = fastctc.forced_align(x.detach(), TARGETS, time_major=True)
    assert paths.shape == (2, 6)


# Classes


def test_the_module_is_a_loss_of_pytorch() -> None:
    assert isinstance(fastctc.CTCLoss(), torch.nn.modules.loss._Loss)
    assert fastctc.CTCLoss(reduction="sum").reduction == torch.nn.CTCLoss(reduction="sum").reduction
    module = pickle.loads(pickle.dumps(fastctc.CTCLoss(blank=1)))
    assert module.blank == 1
    assert set(torch.nn.CTCLoss().state_dict()) == set(fastctc.CTCLoss().state_dict())


def test_spans_have_the_fields_of_torchaudio() -> None:
    span = fastctc.TokenSpan(3, 1, 4, -0.5)
    assert span == fastctc.TokenSpan(token=3, start=1, end=4, score=-0.5)
    assert (span.token, span.start, span.end, span.score, len(span)) == (3, 1, 4, -0.5, 3)
