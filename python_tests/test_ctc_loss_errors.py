"""Every wrong argument of fastctc.ctc_loss and its error.

On the CPU it is an exception that names the argument, what was expected, the value and where it is. The CUDA
kernels check values on the device, where nothing can be raised without waiting for them. There the sample at
fault gets a NaN loss and gradient 0, and the other samples do not change.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from conftest import Device
from tolerances import assert_same
from torch import Tensor

import fastctc

T, N, C, S = 50, 5, 37, 8
Arguments = dict[str, Any]


def valid() -> Arguments:
    generator = torch.Generator().manual_seed(0)
    return {
        "log_probs": torch.randn(T, N, C, generator=generator).log_softmax(2),
        "targets": torch.randint(1, C, (N, S), generator=generator),
        "input_lengths": torch.tensor([50, 50, 40, 45, 50]),
        "target_lengths": torch.tensor([8, 5, 6, 8, 0]),
    }


def concatenated() -> Arguments:
    arguments = valid()
    inside = torch.arange(S) < arguments["target_lengths"][:, None]
    return arguments | {"targets": arguments["targets"][inside]}


def unbatched() -> Arguments:
    arguments = valid()
    return {name: each[:, 0] if name == "log_probs" else each[0] for name, each in arguments.items()}


def with_value(
    name: str, index: int | tuple[int, int], value: int, base: Callable[[], Arguments] = valid
) -> Arguments:
    arguments = base()
    arguments[name][index] = value
    return arguments


# Wrong values inside of tensors: an exception on the CPU, found on the device by the CUDA kernels.
# Name: arguments, message, the sample at fault.
WRONG_VALUES = {
    "target too large": (
        lambda: with_value("targets", (3, 7), 41),
        r"targets\[3, 7\] is 41, but log_probs has 37 classes",
        3,
    ),
    "target one too large": (
        lambda: with_value("targets", (0, 0), 37),
        r"targets\[0, 0\] is 37, but log_probs has 37 classes",
        0,
    ),
    "target negative": (lambda: with_value("targets", (2, 5), -1), r"targets\[2, 5\] is -1", 2),
    "target beyond int32": (
        lambda: with_value("targets", (2, 5), 2**32 + 1),
        r"targets\[2, 5\] is 4294967297",
        2,
    ),
    "concatenated target too large": (
        lambda: with_value("targets", 12, 41, concatenated),
        r"targets\[12\] \(sample 1\) is 41, but log_probs has 37 classes",
        1,
    ),
    "concatenated target negative": (
        lambda: with_value("targets", 26, -7, concatenated),
        r"targets\[26\] \(sample 3\) is -7",
        3,
    ),
    "input length too large": (
        lambda: with_value("input_lengths", 2, 51),
        r"input_lengths\[2\] is 51, but log_probs has 50 frames",
        2,
    ),
    "input length negative": (lambda: with_value("input_lengths", 1, -1), r"input_lengths\[1\] is -1", 1),
    "target length too large": (
        lambda: with_value("target_lengths", 1, 9),
        r"target_lengths\[1\] is 9, but targets has 8 columns",
        1,
    ),
    "target length negative": (lambda: with_value("target_lengths", 4, -3), r"target_lengths\[4\] is -3", 4),
}

# Wrong values that concern the whole batch: the CUDA kernels have no sample to blame.
WRONG_SUMS = {
    "concatenated targets too short": (
        lambda: with_value("target_lengths", 4, 4, concatenated),
        r"target_lengths\[4\] is 4, but targets has only 27 elements",
    ),
    "concatenated targets too long": (
        lambda: with_value("target_lengths", 0, 7, concatenated),
        r"target_lengths add up to 26, but targets has 27 elements",
    ),
    "concatenated target length negative": (
        lambda: with_value("target_lengths", 4, -3, concatenated),
        r"target_lengths\[4\] is -3",
    ),
}

# Wrong shapes, dtypes and options: an exception on every device, without a look at values.
WRONG_FORMS = {
    "blank too large": (
        lambda: valid() | {"blank": 37},
        ValueError,
        r"blank is 37, but log_probs has 37 classes",
    ),
    "blank negative": (lambda: valid() | {"blank": -1}, ValueError, r"blank is -1"),
    "reduction unknown": (
        lambda: valid() | {"reduction": "median"},
        ValueError,
        r"reduction must be .*median",
    ),
    "log_probs of one dimension": (
        lambda: valid() | {"log_probs": torch.zeros(5)},
        ValueError,
        r"log_probs must have 2 or 3 dimensions.* 1",
    ),
    "log_probs of four dimensions": (
        lambda: valid() | {"log_probs": torch.zeros(5, 1, 2, 3)},
        ValueError,
        r"log_probs must have 2 or 3 dimensions.* 4",
    ),
    "log_probs of integers": (
        lambda: valid() | {"log_probs": torch.zeros(T, N, C, dtype=torch.int64)},
        TypeError,
        r"log_probs must be .*float.* torch\.int64",
    ),
    "log_probs complex": (
        lambda: valid() | {"log_probs": torch.zeros(T, N, C, dtype=torch.complex64)},
        TypeError,
        r"log_probs must be .*float.* torch\.complex64",
    ),
    "log_probs not a tensor": (
        lambda: valid() | {"log_probs": [[0.0]]},
        TypeError,
        r"log_probs must be a .*tensor.*list",
    ),
    "targets float": (
        lambda: valid() | {"targets": torch.ones(N, S)},
        TypeError,
        r"targets must be an integer tensor, got torch\.float32",
    ),
    "targets not a tensor": (
        lambda: valid() | {"targets": [[1] * S] * N},
        TypeError,
        r"targets must be an integer tensor, got .*list",
    ),
    "targets of three dimensions": (
        lambda: valid() | {"targets": torch.ones(N, S, 1, dtype=torch.int64)},
        ValueError,
        r"targets must have shape \(N, S\) with N = 5, .*got \(5, 8, 1\)",
    ),
    "targets of another batch": (
        lambda: valid() | {"targets": torch.ones(N + 1, S, dtype=torch.int64)},
        ValueError,
        r"targets must have shape \(N, S\) with N = 5, .*got \(6, 8\)",
    ),
    "input lengths float": (
        lambda: valid() | {"input_lengths": torch.full((N,), 50.0)},
        TypeError,
        r"input_lengths must be .*integer.* torch\.float32",
    ),
    "target lengths float": (
        lambda: valid() | {"target_lengths": torch.full((N,), 5.0)},
        TypeError,
        r"target_lengths must be .*integer.* torch\.float32",
    ),
    "input lengths a list of floats": (
        lambda: valid() | {"input_lengths": [50.0] * N},
        TypeError,
        r"input_lengths\[0\] must be an int, got float",
    ),
    "too few input lengths": (
        lambda: valid() | {"input_lengths": [50] * (N - 1)},
        ValueError,
        r"input_lengths has 4 values, but .* 5",
    ),
    "too many target lengths": (
        lambda: valid() | {"target_lengths": torch.ones(N + 1, dtype=torch.int64)},
        ValueError,
        r"target_lengths has 6 values, but .* 5",
    ),
    "input lengths of two dimensions": (
        lambda: valid() | {"input_lengths": torch.full((N, 1), 50)},
        ValueError,
        r"input_lengths must have one dimension, got shape \(5, 1\)",
    ),
    "unbatched with two input lengths": (
        lambda: unbatched() | {"input_lengths": [50, 50]},
        ValueError,
        r"input_lengths has 2 values, but .* 1",
    ),
    "unbatched with padded targets": (
        lambda: unbatched() | {"targets": torch.ones(2, S, dtype=torch.int64)},
        ValueError,
        r"targets must have shape \(N, S\) with N = 1, .*got \(2, 8\)",
    ),
}


def call(arguments: Arguments, device: Device | None = None) -> Tensor:
    options = {"blank": 0, "reduction": "none"} | arguments
    if device is not None:
        options = {k: v.to(device.torch) if isinstance(v, Tensor) else v for k, v in options.items()}
    return fastctc.ctc_loss(**options)


def values_raise(device: Device) -> bool:
    """Return True if wrong values raise, as on the CPU. The emulated kernels check them as CUDA does."""
    return not device.runs_cuda_kernels


@pytest.mark.parametrize("arguments", [valid, concatenated, unbatched])
def test_valid_arguments_are_valid(device: Device, arguments: Callable[[], Arguments]) -> None:
    assert call(arguments(), device).isfinite().all()


@pytest.mark.parametrize("name", WRONG_VALUES)
@pytest.mark.parametrize("lengths_as", ["tensor", "list"])
def test_wrong_values_raise(name: str, lengths_as: str) -> None:
    build, message, _ = WRONG_VALUES[name]
    arguments = build()
    if lengths_as == "list":
        for key in ("input_lengths", "target_lengths"):
            arguments[key] = arguments[key].tolist()
    with pytest.raises(ValueError, match=message):
        call(arguments)


@pytest.mark.parametrize("name", WRONG_VALUES)
@pytest.mark.parametrize("from_logits", [False, True], ids=["log_probs", "logits"])
def test_wrong_values_stay_in_their_sample(device: Device, name: str, from_logits: bool) -> None:
    if values_raise(device):
        pytest.skip("raises")
    build, _, sample = WRONG_VALUES[name]
    arguments = build()
    base = concatenated if arguments["targets"].dim() == 1 else valid
    expected = base() | {"blank": arguments.get("blank", 0)}
    others = [n for n in range(N) if n != sample]
    results = []
    for each in (arguments, expected):
        x = each["log_probs"].to(device.torch).requires_grad_()
        loss = call(each | {"log_probs": x, "from_logits": from_logits}, device)
        results.append((loss.detach(), torch.autograd.grad(loss[others].sum() + loss[sample], x)[0]))
    (loss, grad), (expected_loss, expected_grad) = results
    assert loss[sample].isnan()
    assert (grad[:, sample] == 0).all()
    assert_same(loss[others], expected_loss[others])
    assert_same(grad[:, others], expected_grad[:, others])


@pytest.mark.parametrize("name", WRONG_SUMS)
def test_wrong_sums_raise(name: str) -> None:
    build, message = WRONG_SUMS[name]
    with pytest.raises(ValueError, match=message):
        call(build())


@pytest.mark.parametrize("name", WRONG_SUMS)
def test_wrong_sums_read_nothing_out_of_bounds(device: Device, name: str) -> None:
    """There is no value to compare with. The sanitizers check the accesses."""
    if values_raise(device):
        pytest.skip("raises")
    arguments = WRONG_SUMS[name][0]()
    arguments["log_probs"] = arguments["log_probs"].to(device.torch).requires_grad_()
    loss = call(arguments, device)
    loss.sum().backward()
    assert loss.shape == (N,)


@pytest.mark.parametrize("name", WRONG_FORMS)
def test_wrong_forms_raise(device: Device, name: str) -> None:
    build, exception, message = WRONG_FORMS[name]
    with pytest.raises(exception, match=message):
        call(build(), device)


@pytest.mark.parametrize("name", ["blank too large", "reduction unknown", "targets float"])
def test_module_says_the_same(name: str) -> None:
    build, exception, message = WRONG_FORMS[name]
    arguments = build()
    options = {key: arguments.pop(key) for key in ("blank", "reduction") if key in arguments}
    with pytest.raises(exception, match=message):
        fastctc.CTCLoss(**options)(**arguments)


def test_values_beyond_the_lengths_are_never_looked_at(device: Device) -> None:
    arguments = valid()
    expected = call(arguments, device)
    beyond = torch.arange(S) >= arguments["target_lengths"][:, None]
    for padding in (-1, 0, C, 2**62):
        padded = arguments | {"targets": arguments["targets"].masked_fill(beyond, padding)}
        assert_same(call(padded, device), expected)
