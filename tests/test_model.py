import math

import pytest
import torch
from torch import nn

from mlpcli.evaluation import Inference
from mlpcli.layers import mlp_layers, step_cost
from mlpcli.model import ACTIVATIONS, Dropout, DropoutMask, build_mlp, flatten, gain

# σ written out by hand: the oracle for torch's modules and for their place in the model.
BY_HAND = {
    "relu": lambda z: z.clamp(min=0),
    "leaky_relu": lambda z: torch.where(z > 0, z, 0.01 * z),
    "gelu": lambda z: z * 0.5 * (1 + torch.erf(z / math.sqrt(2))),
    "silu": lambda z: z / (1 + torch.exp(-z)),
    "tanh": lambda z: (torch.exp(z) - torch.exp(-z)) / (torch.exp(z) + torch.exp(-z)),
    "sigmoid": lambda z: 1 / (1 + torch.exp(-z)),
    "identity": lambda z: z,
}


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("depth", "width"), [(1, 7), (2, 7), (4, 5), (3, [6, 4])])
def test_forward_is_the_formula(activation, bias, depth, width):
    model = build_mlp(3, 2, depth=depth, width=width, activation=activation, bias=bias, seed=1).double()
    x = torch.randn(11, 3, dtype=torch.float64)
    expected = x
    linears = [m for m in model if isinstance(m, nn.Linear)]
    assert len(linears) == depth
    for index, linear in enumerate(linears):
        expected = expected @ linear.weight.T + (linear.bias if bias else 0)
        if index < depth - 1:
            expected = BY_HAND[activation](expected)
    torch.testing.assert_close(model(x), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("normalization", ["none", "batch", "layer"])
@pytest.mark.parametrize("bias", [True, False])
def test_inference_is_the_model_in_evaluation_mode(activation, normalization, bias):
    for depth, flat in ((1, False), (3, False), (3, True)):
        options = {"activation": activation, "normalization": normalization, "bias": bias, "dropout": 0.5}
        model = build_mlp(6, 4, depth=depth, width=[9, 7][: depth - 1], **options, seed=1).double()
        model(torch.randn(20, 6, dtype=torch.float64))  # moves the running statistics
        model.eval()
        if flat:
            flatten(model)
        before = {name: value.clone() for name, value in model.state_dict().items()}
        outputs_of = Inference(model, 11)
        for n in (11, 1, 5, 11):  # the last batch is smaller, and the next pass is whole again
            x = torch.randn(n, 6, dtype=torch.float64)
            kept = x.clone()
            outputs = outputs_of(x)
            assert not outputs.requires_grad
            torch.testing.assert_close(outputs, model(x).detach(), rtol=1e-12, atol=1e-14)
            assert torch.equal(x, kept)
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_depth_1_is_exactly_the_linear_model():
    model = build_mlp(4, 3, depth=1, width=99, dropout=0.5, normalization="batch")
    assert [type(m) for m in model] == [nn.Linear]


def test_order_of_a_hidden_layer():
    model = build_mlp(4, 3, depth=2, width=5, dropout=0.5, normalization="batch")
    assert [type(m) for m in model] == [nn.Linear, nn.BatchNorm1d, nn.ReLU, Dropout, nn.Linear]
    assert isinstance(build_mlp(4, 3, depth=2, width=5, normalization="layer")[1], nn.LayerNorm)


@pytest.mark.parametrize("normalization", ["none", "batch", "layer"])
@pytest.mark.parametrize("bias", [True, False])
def test_layer_list_agrees_with_the_model(normalization, bias):
    options = {"depth": 4, "width": [9, 8, 7], "normalization": normalization, "bias": bias, "dropout": 0.1}
    model = build_mlp(6, 5, **options)
    layers = mlp_layers(6, 5, **options)
    assert [sum(p.numel() for p in m.parameters()) for m in model] == [layer.parameters for layer in layers]


def test_widths_that_do_not_fit_the_depth():
    with pytest.raises(ValueError, match="depth 3 has 2 hidden layers, but 1 widths"):
        build_mlp(4, 3, depth=3, width=[5])


@pytest.mark.parametrize("init", ["kaiming", "xavier", "orthogonal"])
@pytest.mark.parametrize("activation", ["relu", "tanh", "gelu", "identity"])
def test_scale_of_the_initial_weights(init, activation):
    model = build_mlp(400, 300, depth=2, width=500, activation=activation, init=init, seed=0)
    first, last = model[0].weight, model[-1].weight
    for weight, factor in ((first, gain(activation)), (last, 1.0)):
        fan_out, fan_in = weight.shape
        if init == "orthogonal":
            singular = torch.linalg.svdvals(weight)
            torch.testing.assert_close(singular, torch.full_like(singular, factor), rtol=1e-4, atol=1e-4)
        else:
            expected = factor * math.sqrt(1 / fan_in if init == "kaiming" else 2 / (fan_in + fan_out))
            assert weight.std().item() == pytest.approx(expected, rel=0.02)
    assert not model[0].bias.any() and not model[-1].bias.any()


@pytest.mark.parametrize("activation", ["relu", "gelu", "silu", "leaky_relu"])
def test_gain_keeps_the_second_moment(activation):
    # He et al. (2015): gain² E[σ(z)²] = 1 for z ~ N(0, 1)
    z = torch.randn(2_000_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert gain(activation) ** 2 * BY_HAND[activation](z).square().mean().item() == pytest.approx(1, rel=0.01)


def test_zeros_starts_at_the_constant_zero():
    model = build_mlp(4, 3, depth=3, width=5, init="zeros", seed=0)
    assert not model(torch.randn(8, 4)).any()
    assert model[0].weight.any()


def test_seed_decides_the_weights_and_leaves_the_global_generator_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    one = build_mlp(4, 3, depth=2, width=5, seed=7)
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(one[0].weight, build_mlp(4, 3, depth=2, width=5, seed=7)[0].weight)
    assert not torch.equal(one[0].weight, build_mlp(4, 3, depth=2, width=5, seed=8)[0].weight)


def test_flops_of_a_step_are_those_that_torch_counts():
    from torch.utils.flop_counter import FlopCounterMode

    model = build_mlp(20, 10, depth=3, width=[30, 40])
    with FlopCounterMode(display=False) as counter:
        model(torch.randn(16, 20)).sum().backward()
    cost = step_cost(
        mlp_layers(20, 10, depth=3, width=[30, 40]),
        samples=16,
        in_memory=16,
        bytes_per_number=4,
        optimizer_copies=2,
    )
    assert cost.flops == counter.get_total_flops()
    parameters = sum(p.numel() for p in model.parameters())
    assert (cost.parameter_bytes, cost.optimizer_bytes) == (4 * parameters, 8 * parameters)


@pytest.mark.parametrize("p", [1e-6, 0.1, 0.5, 0.9, 0.99999])
def test_dropout_keeps_the_asked_share_and_the_mean(p):
    torch.manual_seed(0)
    mask = torch.empty(1000, 1001, dtype=torch.float64)
    draw = DropoutMask(mask, p)
    draw.draw()
    kept = max(1, round((1 - p) * 2**16)) / 2**16
    assert kept == pytest.approx(1 - p, abs=2**-17) or p == 0.99999
    assert set(mask.unique().tolist()) <= {0.0, 1 / kept}
    # five standard deviations of a share of a million
    assert (mask > 0).double().mean().item() == pytest.approx(kept, abs=5 * (kept * (1 - kept) / 1_001_000) ** 0.5)
    first = mask.clone()
    draw.draw()
    if 0.01 < p < 0.99:
        both = ((mask > 0) & (first > 0)).double().mean().item()
        assert both == pytest.approx(kept * kept, abs=0.005)  # independent from draw to draw
        neighbours = ((mask[:, 1:] > 0) & (mask[:, :-1] > 0)).double().mean().item()
        assert neighbours == pytest.approx(kept * kept, abs=0.005)  # and within the lanes of a word


def test_dropout_is_off_in_evaluation_and_passes_the_gradient_of_what_it_keeps():
    layer = Dropout(0.25)
    x = torch.ones(40, 30, requires_grad=True)
    assert layer.eval()(x) is x
    y = layer.train()(x)
    y.sum().backward()
    assert torch.equal(x.grad, y.detach()) and 0 < (y == 0).sum() < y.numel()
