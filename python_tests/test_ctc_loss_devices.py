"""fastctc.ctc_loss and the machine: streams, graphs, several GPUs, no waiting, debugging, large offsets."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from batches import Batch, arguments, from_log_probs_and_logits, random_batch
from conftest import Device
from tolerances import assert_same
from torch import Tensor

import fastctc
from fastctc.arguments import check_status, loss_arguments


@pytest.fixture
def cuda(device: Device) -> Device:
    if device.name != "cuda":
        pytest.skip("for a GPU only")
    return device


def on_device(batch: Batch, device: Device | torch.device) -> Batch:
    """Move a batch to a device, with its lengths, so that nothing remains to be copied."""
    place = device.torch if isinstance(device, Device) else device
    labels = (each.to(place) for each in arguments(batch))
    return Batch(batch.x.detach().to(place).requires_grad_(), *labels)


@from_log_probs_and_logits
def test_never_waits_for_the_gpu(cuda: Device, from_logits: bool) -> None:
    batch = on_device(random_batch(40, 5, 12, 17), cuda)
    options = {"star": 12, "delay_penalty": 0.1, "blank_penalty": 0.2, "focal_gamma": 2.0}
    batch.loss(from_logits=from_logits).backward()  # what is set up once may wait
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        batch.loss(from_logits=from_logits).backward()
        batch.loss(from_logits=from_logits, zero_infinity=True, **options).backward()
        for compact in (False, True):
            fastctc.ctc_posteriors(batch.x, *arguments(batch), from_logits=from_logits, compact=compact)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_runs_on_the_current_stream(cuda: Device) -> None:
    """The input is the result of a long kernel on another stream."""
    batch = on_device(random_batch(40, 5, 12, 17), cuda)
    expected = batch.loss_and_gradient(from_logits=True)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        late = torch.full_like(batch.x, torch.nan)
        torch.cuda._sleep(100_000_000)
        late.copy_(batch.x.detach())
        result = Batch(late.requires_grad_(), *arguments(batch)).loss_and_gradient(from_logits=True)
    stream.synchronize()
    for one, other in zip(result, expected, strict=True):
        assert_same(one, other)


@pytest.mark.parametrize("length", [17, 300])
@from_log_probs_and_logits
def test_is_captured_in_a_graph(cuda: Device, from_logits: bool, length: int) -> None:
    """A replay on other logits, targets and lengths gives the result of a call."""
    static = on_device(random_batch(2 * length, 5, 12, length), cuda)
    weights = torch.arange(1.0, 6.0, device=cuda.torch)

    def step() -> tuple[Tensor, Tensor]:
        loss = static.loss(reduction="none", from_logits=from_logits)
        return loss, torch.autograd.grad(loss, static.x, weights)[0]

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()

    for seed in (1, 2):
        other = on_device(random_batch(2 * length, 5, 12, length, seed=seed, std=3.0), cuda)
        other.input_lengths[seed] = length + 5
        other.target_lengths[seed] = length // 2
        with torch.no_grad():
            static.x.copy_(other.x)
        for mine, theirs in zip(arguments(static), arguments(other), strict=True):
            mine.copy_(theirs)
        graph.replay()
        for one, expected in zip(captured, other.loss_and_gradient(from_logits=from_logits), strict=True):
            assert_same(one.detach(), expected)


def test_any_gpu_may_be_used(cuda: Device) -> None:
    """The kernels run on the device of the input, not on the current one."""
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two GPUs")
    first = on_device(random_batch(40, 5, 12, 17), torch.device("cuda", 0))
    second = on_device(random_batch(40, 5, 12, 17), torch.device("cuda", 1))
    assert torch.cuda.current_device() == 0
    expected = first.loss_and_gradient(from_logits=True)
    results = [second.loss_and_gradient(from_logits=True)]
    with torch.cuda.device(1):
        results.append(second.loss_and_gradient(from_logits=True))
    assert torch.cuda.current_device() == 0
    for result in results:
        for one, other in zip(result, expected, strict=True):
            assert one.device == torch.device("cuda", 1)
            assert_same(one.cpu(), other.cpu())


def test_ops_refuse_tensors_of_different_devices(cuda: Device) -> None:
    batch = on_device(random_batch(8, 2, 5, 3), cuda)
    x, *labels = batch.x.detach(), *arguments(batch)
    options = 3, 0, -1, 0.0, False, True
    for i, name in enumerate(("targets", "input_lengths", "target_lengths")):
        mixed = [each.cpu() if i == k else each for k, each in enumerate(labels)]
        with pytest.raises(ValueError, match=rf"{name} is on cpu, but input is on cuda:0"):
            torch.ops.fastctc.ctc_loss(x, *mixed, None, *options)
    with pytest.raises(ValueError, match=r"class_bias is on cpu, but input is on cuda:0"):
        torch.ops.fastctc.ctc_loss(x, *labels, torch.zeros(5), *options)
    with pytest.raises(ValueError, match=r"input_lengths is on cpu, but input is on cuda:0"):
        torch.ops.fastctc.greedy_decode(x.transpose(0, 1), labels[1].cpu(), 0, False)


def test_ops_refuse_what_another_call_returned(device: Device) -> None:
    batch = on_device(random_batch(8, 2, 5, 3), device)
    x, *labels = batch.x.detach(), *arguments(batch)
    loss, *saved = torch.ops.fastctc.ctc_loss(x, *labels, None, 3, 0, -1, 0.0, False, True)
    rest = None, 0, -1, 0.0, False
    wrong = {
        "grad_loss": (loss[:1], *saved),
        "occupancy": (loss, saved[0][:, :5], *saved[1:]),
        "row_statistics": (loss, saved[0], saved[1].double(), saved[2]),
        "status": (loss, *saved[:2], saved[2].long()),
    }
    for name, (grad_loss, *results) in wrong.items():
        with pytest.raises(ValueError, match=rf"{name} is not what fastctc::ctc_loss returned"):
            torch.ops.fastctc.ctc_loss_backward(grad_loss, x, *labels, *results, *rest)
    without, *_ = torch.ops.fastctc.ctc_loss(x, *labels, None, 3, 0, -1, 0.0, False, False)[1:]
    with pytest.raises(ValueError, match="occupancy is not what"):
        torch.ops.fastctc.ctc_loss_backward(loss, x, *labels, without, *saved[1:], *rest)


# Debugging


@pytest.fixture
def debugging() -> Iterator[None]:
    fastctc.debug(True)
    yield
    fastctc.debug(False)


def wrong_batch(device: Device) -> Batch:
    batch = on_device(random_batch(8, 3, 5, 3), device)
    batch.targets[1, 2] = 9
    return batch


@pytest.mark.usefixtures("debugging")
def test_debugging_raises_on_cuda_what_the_cpu_says(cuda: Device) -> None:
    batch = wrong_batch(cuda)
    message = r"targets\[1, 2\] is 9, but log_probs has 5 classes"
    with pytest.raises(ValueError, match=message):
        batch.loss()
    with torch.no_grad(), pytest.raises(ValueError, match=message):
        batch.loss()
    with pytest.raises(ValueError, match=message):
        fastctc.ctc_posteriors(batch.x, *arguments(batch))


@pytest.mark.usefixtures("debugging")
def test_debugging_leaves_valid_batches_alone(device: Device) -> None:
    batch = on_device(random_batch(8, 3, 5, 3), device)
    result = batch.loss_and_gradient()
    fastctc.debug(False)
    for one, other in zip(result, batch.loss_and_gradient(), strict=True):
        assert_same(one, other)


@pytest.mark.usefixtures("debugging")
def test_debugging_asks_the_cpu() -> None:
    """A GPU reports status 3 for sample 1."""
    batch = random_batch(8, 3, 5, 3)
    batch.targets[1, 2] = 9
    checked = loss_arguments(batch.x, *arguments(batch), 0, from_logits=False, star=None)
    with pytest.raises(ValueError, match=r"targets\[1, 2\] is 9, but log_probs has 5 classes"):
        check_status(torch.tensor([0, 3, 0]), checked)
    check_status(torch.tensor([0, 1, 2]), checked)
    fastctc.debug(False)
    check_status(torch.tensor([0, 3, 0]), checked)


def test_without_debugging_a_wrong_label_is_nan_on_cuda(device: Device) -> None:
    if not device.runs_cuda_kernels:
        pytest.skip("raises")
    loss, grad = wrong_batch(device).loss_and_gradient()
    assert loss.isnan().tolist() == [False, True, False]
    assert (grad[:, 1] == 0).all()


# Large tensors


@from_log_probs_and_logits
def test_offsets_beyond_two_to_the_31(device: Device, from_logits: bool) -> None:
    """Three frames, samples or classes that are 2^30 elements apart; the memory between them is never touched."""
    far_apart = 1 << 30
    memory = torch.empty(2 * far_apart + 8, dtype=torch.float16, device=device.torch)
    for shape, strides in (
        ((3, 2, 4), (far_apart, 4, 1)),
        ((1, 3, 4), (4, far_apart, 1)),
        ((1, 2, 3), (4, 4, far_apart)),
    ):
        far = memory.as_strided(shape, strides)
        values = torch.randn(shape, generator=torch.Generator().manual_seed(1)).half().to(device.torch)
        far.copy_(values)
        targets = torch.ones(shape[1], 1, dtype=torch.int64, device=device.torch)
        lengths = [shape[0]] * shape[1], [1] * shape[1]
        results = []
        for x in (far, values):
            x = x.detach().requires_grad_()
            loss = fastctc.ctc_loss(x, targets, *lengths, reduction="none", from_logits=from_logits)
            results.append((loss.detach(), torch.autograd.grad(loss.sum(), x)[0].contiguous()))
        for one, other in zip(*results, strict=True):
            assert_same(one, other)
