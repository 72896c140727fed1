"""The networks: padding does not matter, every head learns, wrong sizes raise."""

import copy
import pickle

import pytest
import torch
from recipes import recipe
from torch import nn

from fastctc.crnn.data import Batch, PreprocessConfig, kind_of, normalize
from fastctc.crnn.model import CRNN, CRNNConfig, MaskedBatchNorm, folded, summarize
from fastctc.crnn.model.masked_norm import pooled
from fastctc.crnn.model.network import ARCHITECTURES
from fastctc.crnn.read.decoding import greedy_texts
from fastctc.crnn.training import ModelConfig, model_config, settled
from fastctc.crnn.training.step import Learner, one_cycle
from fastctc.text import Alphabet

SMALL = {
    "stem": CRNNConfig(7, height=64, stem_stride=2, channels=4, hidden=8, dropout=0.0),
    "conv": CRNNConfig(7, channels=8, hidden=16, dropout=0.0),
    "residual": CRNNConfig(7, height=64, stem_stride=2, channels=4, hidden=8, dropout=0.0, residuals=2),
    "bilstm": CRNNConfig(7, "bilstm", height=64, stem_stride=2, channels=4, hidden=8, dropout=0.0),
    "bigru": CRNNConfig(7, "bigru", channels=4, hidden=8, dropout=0.0),
    "vgg-bilstm": CRNNConfig(7, "vgg-bilstm", channels=4, hidden=8, dropout=0.0),
}
WIDTHS = [96, 50, 37, 1, 93, 4]


def model_with_random_statistics(config: CRNNConfig) -> CRNN:
    torch.manual_seed(0)
    model = CRNN(config)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 2)
            nn.init.normal_(module.bias)
    return model


def padded(images: list[torch.Tensor], width: int) -> torch.Tensor:
    batch = torch.full((len(images), 1, images[0].shape[2], width), 3.0)  # the padding is not even zero
    for n, image in enumerate(images):
        batch[n, :, :, : image.shape[3]] = image[0]
    return batch


@pytest.mark.parametrize("architecture", SMALL)
@pytest.mark.parametrize("width", [96, 99, 160])
def test_padding_and_company_do_not_change_a_result(architecture, width):
    model = model_with_random_statistics(SMALL[architecture]).eval()
    images = [torch.randn(1, 1, model.config.height, w) for w in WIDTHS]
    with torch.no_grad():
        together, lengths = model(padded(images, width), torch.tensor(WIDTHS))
        for n, image in enumerate(images):
            alone, (length,) = model(image)
            assert length == lengths[n] == alone.shape[1]
            torch.testing.assert_close(together[n, :length], alone[0], rtol=0, atol=1e-5)


@pytest.mark.parametrize("architecture", SMALL)
def test_a_folded_model_is_the_model(architecture):
    model = model_with_random_statistics(SMALL[architecture]).eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    images, widths = torch.randn(6, 1, model.config.height, 96), torch.tensor(WIDTHS)
    with torch.no_grad():
        expected, lengths = model(images, widths)
        read, same = folded(model)(images, widths)
    assert torch.equal(lengths, same)
    assert not [each for each in folded(model).modules() if isinstance(each, nn.BatchNorm2d)]
    for n, length in enumerate(lengths):
        torch.testing.assert_close(read[n, :length], expected[n, :length], rtol=0, atol=3e-5)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name


@pytest.mark.parametrize("architecture", SMALL)
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_a_folded_model_has_the_bits_of_its_modules(architecture, precision):
    model = folded(model_with_random_statistics(SMALL[architecture]).eval()).to(
        memory_format=torch.channels_last
    )
    assert (model.direct is not None) == (model.config.architecture == "conv")
    modules = copy.deepcopy(model)
    modules.direct = None
    for widths in ([8], [96], [96] * 3, [90] * 2, [1], [89], [90, 64, 1, 33, 96]):
        images = torch.randn(len(widths), 1, model.config.height, max(widths)).contiguous(
            memory_format=torch.channels_last
        )
        given = None if len(set(widths)) == 1 else torch.tensor(widths)
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16):
            (found, lengths), (expected, same) = model(images, given), modules(images, given)
        assert torch.equal(lengths, same) and torch.equal(found, expected), widths
        assert found.dtype == torch.float32


@pytest.mark.parametrize("pool", [(2, 2), (2, 1)])
@pytest.mark.parametrize("shape", [(2, 8, 8, 12), (1, 3, 5, 7), (1, 3, 4, 7)])
def test_pooling_without_a_gradient_is_max_pooling(shape, pool):
    x = torch.randn(shape)
    with torch.no_grad():
        assert torch.equal(pooled(x, pool), torch.nn.functional.max_pool2d(x, pool))


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("width", [40, 96, 640])
def test_a_folded_model_has_the_same_bits_on_any_number_of_threads(count, width):
    """PyTorch's own convolution of one image depends on it."""
    model = folded(model_with_random_statistics(CRNNConfig(8)).eval()).to(memory_format=torch.channels_last)
    images = torch.randn(count, 1, model.config.height, width).contiguous(memory_format=torch.channels_last)
    threads, results = torch.get_num_threads(), []
    try:
        for number in (1, 2, 4):
            torch.set_num_threads(number)
            with torch.no_grad():
                results.append(model(images)[0])
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(results[0], results[1]) and torch.equal(results[0], results[2])


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_a_folded_model_has_the_same_bits_in_any_order_of_widths(precision):
    """Narrow and wide images have their own copies of the weights."""
    original = model_with_random_statistics(CRNNConfig(8, residuals=1)).eval()
    images = [
        torch.randn(1, 1, 32, width).contiguous(memory_format=torch.channels_last) for width in (16, 44, 400)
    ]
    results = []
    for order in (images, images[::-1]):
        model = folded(original).to(memory_format=torch.channels_last)
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16):
            results.append([model(each)[0] for each in order])
    for first, second in zip(results[0], results[1][::-1], strict=True):
        assert torch.equal(first, second)


def test_a_folded_model_is_copied_after_it_has_read():
    original = CRNN(SMALL["conv"]).eval()
    model = folded(original)
    images = torch.randn(1, 1, model.config.height, 96)
    with torch.no_grad():
        expected = model(images)[0]
        for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            assert torch.equal(other(images)[0], expected)
    shapes, expected_shapes = ([layer.shape for layer in summarize(m).layers] for m in (model, original))
    assert shapes == expected_shapes
    assert model(images)[0].requires_grad  # as an explanation of a reading may need it
    torch.testing.assert_close(model(images)[0].detach(), expected, rtol=0, atol=3e-5)


@pytest.mark.parametrize("architecture", SMALL)
def test_padding_does_not_change_training(architecture):
    gradients = []
    height = SMALL[architecture].height
    images = [torch.randn(1, 1, height, w, generator=torch.Generator().manual_seed(w)) for w in WIDTHS]
    for width in (96, 160):
        model = model_with_random_statistics(SMALL[architecture]).train().double()
        log_probs, lengths = model(padded(images, width).double(), torch.tensor(WIDTHS))
        sum(log_probs[n, :length].square().sum() for n, length in enumerate(lengths)).backward()
        gradients.append({name: p.grad for name, p in model.named_parameters()})
        gradients[-1] |= {name: b for name, b in model.named_buffers() if "running" in name}
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-3, atol=1e-3, msg=name)


def test_masked_norm_is_the_norm_of_what_is_inside():
    x = torch.randn(2, 3, 4, 6)
    widths = torch.tensor([6, 2])
    inside = (torch.arange(6) < widths[:, None])[:, None, None, :]
    masked, plain = MaskedBatchNorm(3), nn.BatchNorm2d(3)
    columns = torch.cat([x[0], x[1, :, :, :2]], dim=2)[None]  # (1, 3, 4, 8)
    expected = plain(columns).relu()
    result = masked(x, inside)
    torch.testing.assert_close(torch.cat([result[0], result[1, :, :, :2]], dim=2)[None], expected)
    torch.testing.assert_close(masked.running_mean, plain.running_mean)
    torch.testing.assert_close(masked.running_var, plain.running_var)


def test_the_gradient_of_the_masked_norm_is_that_of_its_definition():
    torch.manual_seed(0)
    norm = MaskedBatchNorm(5).double()
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    inputs = torch.randn(3, 5, 4, 9, dtype=torch.float64) * 2 + 3
    inside = (torch.arange(9) < torch.tensor([9, 4, 6])[:, None])[:, None, None, :]
    upstream = torch.randn_like(inputs)

    def definition(x: torch.Tensor) -> torch.Tensor:
        columns = torch.cat([x[n, :, :, :width] for n, width in enumerate((9, 4, 6))], dim=2)
        mean, variance = columns.mean((1, 2)), columns.var((1, 2), correction=0)
        scale = norm.weight * torch.rsqrt(variance + norm.eps)
        y = (x - mean.view(1, -1, 1, 1)) * scale.view(1, -1, 1, 1) + norm.bias.view(1, -1, 1, 1)
        return y.relu() * inside

    found = []
    for apply in (lambda x: norm(x, inside), definition):
        x = inputs.clone().requires_grad_()
        y = apply(x * 1.0)  # the input of a norm is the result of a convolution, which the norm may change
        found.append([y, *torch.autograd.grad((y * upstream).sum(), [x, norm.weight, norm.bias])])
    for got, expected in zip(*found, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-10)


def test_sizes():
    assert sum(p.numel() for p in CRNN(CRNNConfig(17)).parameters()) == 555_249
    assert 8e6 < sum(p.numel() for p in CRNN(CRNNConfig.paper(37)).parameters()) < 9e6
    assert [SMALL["conv"].frames(w) for w in (1, 4, 5, 96)] == [1, 1, 2, 24]
    assert [SMALL["stem"].frames(w) for w in (1, 8, 9, 192)] == [1, 1, 2, 24]


@pytest.mark.parametrize(
    "architecture", [ARCHITECTURES[0], *(pytest.param(a, marks=pytest.mark.slow) for a in ARCHITECTURES[1:])]
)
def test_every_head_learns_images_of_mixed_widths(architecture):
    torch.manual_seed(0)
    sizes = {"channels": 8, "hidden": 32} if architecture != "vgg-bilstm" else {"channels": 16, "hidden": 32}
    model = CRNN(CRNNConfig(4, architecture, dropout=0.0, **sizes)).train()
    learner = Learner(model, recipe(weight_decay=0.0, precision="fp32"), Alphabet("abc"))
    widths, texts = torch.tensor([32, 20, 9, 28]), ["abca", "cc", "b", "bca"]
    targets = torch.tensor(["-abc".index(character) for character in "".join(texts)])
    lengths = torch.tensor([len(text) for text in texts])
    batch = Batch(torch.randint(0, 256, (4, 1, 32, 32), dtype=torch.uint8), widths, targets, lengths)
    losses = []
    while len(losses) < 400 and (not losses or losses[-1] >= 0.1):
        step = len(losses)
        losses.append(learner.step([batch], step, one_cycle(step, 400, 3e-3, 0.15)).loss)
    assert losses[-1] < 0.1 < losses[0]
    log_probs, frames = model(normalize(batch.images, widths, PreprocessConfig()), widths)
    assert greedy_texts(log_probs, frames, Alphabet("abc")) == texts


def test_training_knows_the_architectures():
    assert kind_of(ModelConfig, "architecture")[2] == ARCHITECTURES
    for architecture, height, stem_stride, channels, hidden in (
        ("conv", 64, 2, 32, 128),
        ("bilstm", 64, 2, 32, 128),
        ("bigru", 64, 2, 32, 128),
        ("vgg-bilstm", 32, 1, 64, 256),
    ):
        config = model_config(settled(recipe(architecture=architecture)), Alphabet("ab"))
        assert config.architecture == architecture
        assert (config.height, config.stem_stride) == (height, stem_stride)
        assert (config.channels, config.hidden) == (channels, hidden)


@pytest.mark.parametrize("architecture", SMALL)
def test_log_probs_are_normalised_logits(architecture):
    model = CRNN(SMALL[architecture]).eval()
    images = torch.randn(2, 1, model.config.height, 30)
    log_probs, lengths = model(images)
    logits, _ = model.logits(images)
    frames = model.config.frames(30)
    assert log_probs.shape == (2, frames, 7) and lengths.tolist() == [frames] * 2
    torch.testing.assert_close(log_probs.exp().sum(-1), torch.ones(2, frames))
    torch.testing.assert_close(logits.log_softmax(-1), log_probs)


@pytest.mark.parametrize("architecture", SMALL)
def test_channels_last_and_bf16(architecture):
    model = model_with_random_statistics(SMALL[architecture]).eval()
    images, widths = torch.randn(3, 1, model.config.height, 64), torch.tensor([64, 20, 50])
    with torch.no_grad():
        expected, lengths = model(images, widths)
        model.to(memory_format=torch.channels_last)
        log_probs, _ = model(images.contiguous(memory_format=torch.channels_last), widths)
        with torch.autocast("cpu", torch.bfloat16):
            rounded, _ = model(images, widths)
    assert rounded.dtype == torch.float32
    for n, length in enumerate(lengths):
        torch.testing.assert_close(log_probs[n, :length], expected[n, :length], rtol=0, atol=1e-4)
        torch.testing.assert_close(rounded[n, :length], expected[n, :length], rtol=0, atol=0.3)


def test_errors():
    with pytest.raises(
        ValueError, match="architecture is 'rnn', expected one of conv, bilstm, bigru, vgg-bilstm"
    ):
        CRNNConfig(7, "rnn")
    with pytest.raises(ValueError, match="num_classes is 1"):
        CRNNConfig(1)
    with pytest.raises(ValueError, match="height is 30, expected a multiple of 8"):
        CRNNConfig(7, height=30)
    with pytest.raises(ValueError, match="stem_stride is 3"):
        CRNNConfig(7, stem_stride=3)
    with pytest.raises(ValueError, match=r"stem_stride is 2, expected 1$"):
        CRNNConfig(7, "vgg-bilstm", stem_stride=2)
    with pytest.raises(ValueError, match="hidden is 0, expected at least 1"):
        CRNNConfig(7, hidden=0)
    with pytest.raises(ValueError, match="height is 24, expected a multiple of 16"):
        CRNNConfig(7, "vgg-bilstm", height=24)
    model = CRNN(SMALL["conv"])
    with pytest.raises(ValueError, match=r"images has shape \(1, 3, 32, 8\), expected \(N, 1, 32, W\)"):
        model(torch.zeros(1, 3, 32, 8))
    with pytest.raises(ValueError, match="images has width 0"):
        model(torch.zeros(1, 1, 32, 0))
    with pytest.raises(ValueError, match=r"widths is torch.float32 \(1,\), expected integers \(1,\)"):
        model(torch.zeros(1, 1, 32, 8), torch.ones(1))
    with pytest.raises(ValueError, match="widths has 9 to 9, expected 1 to 8"):
        model(torch.zeros(1, 1, 32, 8), torch.tensor([9]))


@pytest.mark.parametrize("architecture", SMALL)
@pytest.mark.parametrize("read", [False, True])
def test_a_last_frame_is_completed_by_the_last_column(architecture, read):
    model = model_with_random_statistics(SMALL[architecture]).eval()
    model = folded(model) if read else model
    step, height = model.config.columns_per_frame, model.config.height
    images = torch.rand(3, 1, height, 10 * step)
    widths = torch.tensor([10 * step, 5 * step + 1, 7 * step - 1])
    whole = images.clone()
    for image, width in zip(whole, widths.tolist(), strict=True):
        image[..., width:] = image[..., width - 1 : width]
    with torch.no_grad():
        log_probs, lengths = model(images, widths)
        same, _ = model(whole, lengths * step)
        alone, _ = model(images[1:2, ..., : 5 * step + 1])
    assert torch.equal(log_probs, same)
    torch.testing.assert_close(alone[0], log_probs[1, : lengths[1]], atol=1e-5, rtol=1e-5)
