"""Embeddings of numbers and categories against the formulas of Gorishniy, Rubachev & Babenko (2022)."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from mlpcli import embedding
from mlpcli.autograd import Autograd
from mlpcli.embedding import InputEmbedding, PiecewiseLinear, components_of, quantile_edges
from mlpcli.evaluation import CHUNK_NUMBERS, Inference, chunk_rows
from mlpcli.explicit import Explicit
from mlpcli.layers import Front, embedding_size, mlp_layers, step_cost
from mlpcli.model import build_mlp, flatten, forward
from mlpcli.objective import Loss

EDGES = [[-1.0, 0.25, 2.0, 5.0], [0.5, 1.5], [3.0], [-2.0, -1.0, 7.0]]


def piecewise_linear(x, edges):
    """Equation 1 of the paper for one number."""
    if len(edges) == 1:
        return [x - edges[0]]
    parts, last = [], len(edges) - 1
    for t in range(1, last + 1):
        low, high = edges[t - 1], edges[t]
        if x < low and t > 1:
            parts.append(0.0)
        elif x >= high and t < last:
            parts.append(1.0)
        else:
            parts.append((x - low) / (high - low))
    return parts


def periodic(x, layer, number):
    """Section 3.3 of the paper for one number, with a ReLU after its affine map."""
    frequencies, weight, bias = (p[number].tolist() for p in (layer.frequencies, layer.weight, layer.bias))
    v = [math.sin(2 * math.pi * c * x) for c in frequencies] + [math.cos(2 * math.pi * c * x) for c in frequencies]
    affine = [bias[j] + sum(v[i] * weight[i][j] for i in range(len(v))) for j in range(len(bias))]
    return [max(0.0, each) for each in affine]


def by_hand(module, row, edges):
    """The embedded row, a number at a time."""
    front, embedded = module.front, []
    codes = front.features - len(front.categories)
    for place, x in enumerate(row):
        if place >= codes:
            embedded += module.categories[place - codes].weight[int(x)].tolist()
        elif place >= front.numbers or module.numeric is None:
            embedded.append(x)
        elif front.numeric == "periodic":
            embedded += periodic(x, module.numeric, place)
        else:
            embedded += piecewise_linear(x, edges[place])
    return embedded


@st.composite
def modules(draw):
    """A module in float64, the edges of its numbers, and rows for it."""
    numeric = draw(st.sampled_from(["none", "periodic", "piecewise_linear"]))
    numbers, others = draw(st.integers(0, 4)), draw(st.integers(0, 2))
    categories = tuple(draw(st.lists(st.integers(0, 5), min_size=0 if numbers + others else 1, max_size=3)))
    values = st.floats(-8, 8, width=32)
    drawn = [sorted(draw(st.lists(values, min_size=1, max_size=5, unique=True))) for _ in range(numbers)]
    # of edges that are closer, no number would be so many widths away that float32 can hold it
    edges = [[x for x, before in zip(each, [-9.0, *each], strict=False) if x - before > 1e-30] for each in drawn]
    tensors = [torch.tensor(each, dtype=torch.float64) for each in edges]
    periodic = numeric == "periodic"
    front = Front(
        features=numbers + others + len(categories),
        numbers=numbers,
        numeric=numeric,
        frequencies=draw(st.integers(1, 4)) if periodic else 0,
        size=draw(st.integers(1, 4)) if periodic else 0,
        components=components_of(tensors) if numeric == "piecewise_linear" else 0,
        categories=categories,
    )
    torch.manual_seed(draw(st.integers(0, 99)))
    module = InputEmbedding(front, sigma=0.5, edges=tensors).double()
    at_edges = [st.sampled_from(each) | values for each in edges]
    row = [*at_edges, *[values] * others, *[st.integers(0, count) for count in categories]]
    rows = draw(st.lists(st.tuples(*row), min_size=1, max_size=4))
    return module, edges, [[float(x) for x in each] for each in rows]


@settings(max_examples=150, deadline=None)
@given(modules())
def test_rows_are_embedded_as_the_paper_has_it(case):
    module, edges, rows = case
    front = module.front
    embedded = module(torch.tensor(rows, dtype=torch.float64))
    assert embedded.shape == (len(rows), front.outputs)
    expected = torch.tensor([by_hand(module, row, edges) for row in rows], dtype=torch.float64)
    # a bin may be as narrow as two neighbouring float32 numbers
    torch.testing.assert_close(embedded, expected, rtol=1e-9, atol=1e-9)
    assert front.layer.parameters == sum(p.numel() for p in module.parameters())
    assert (front.layer.inputs, front.layer.outputs) == (front.features, front.outputs)


@pytest.mark.parametrize("x", [-3.0, -1.0, 0.0, 0.25, 1.0, 2.0, 4.0, 5.0, 9.0])
def test_the_ends_of_piecewise_linear_are_open(x):
    row = PiecewiseLinear(3, [torch.tensor(EDGES[0])])(torch.tensor([[x]]))[0].tolist()
    # from the training range outwards the encoding stays one-to-one, and within it runs from 0 to 1
    assert row == pytest.approx(piecewise_linear(x, EDGES[0]), rel=1e-6)
    assert (row[0] < 0) == (x < -1) and (row[-1] > 1) == (x > 5)
    assert all(0 <= each <= 1 for each in row) or x in (-3.0, 9.0)


def front_of(numeric, categories=()):
    """Four numbers with `EDGES`, two inputs that pass through, and the codes; and what makes its module."""
    edges = [torch.tensor(each) for each in EDGES]
    front = Front(
        features=6 + len(categories),
        numbers=4,
        numeric=numeric,
        frequencies=3 if numeric == "periodic" else 0,
        size=2 if numeric == "periodic" else 0,
        components=components_of(edges) if numeric == "piecewise_linear" else 0,
        categories=categories,
    )
    return front, lambda: InputEmbedding(front, sigma=0.5, edges=edges)


def rows_of(front, n, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    numbers = 2 * torch.randn(n, front.features - len(front.categories), generator=generator, dtype=dtype)
    codes = [torch.randint(count + 1, (n, 1), generator=generator).to(dtype) for count in front.categories]
    return torch.cat([numbers, *codes], dim=1)


KINDS = {
    ("none", (3, 8)): "embedding",
    ("periodic", ()): "periodic",
    ("periodic", (3, 8)): "periodic + embedding",
    ("piecewise_linear", ()): "piecewise_linear",
    ("piecewise_linear", (3, 8)): "piecewise_linear + embedding",
}
FRONTS = list(KINDS)


@pytest.mark.parametrize(("numeric", "categories"), FRONTS)
def test_gradients_are_the_finite_differences(numeric, categories):
    front, make = front_of(numeric, categories)
    torch.manual_seed(1)
    module = make().double()
    rows = rows_of(front, 5)
    rows[:, 6:].clamp_(min=1)  # code 0 is a constant, whose gradient is not that of its zeros
    numbers, codes = rows[:, :6].requires_grad_(), rows[:, 6:]
    names, values = [n for n, _ in module.named_parameters()], list(module.parameters())

    def embedded(numbers, *values):
        parameters = dict(zip(names, values, strict=True))
        return torch.func.functional_call(module, parameters, (torch.cat([numbers, codes], dim=1),))

    if numeric == "periodic":
        waves = embedded(numbers, *values)[:, :8]
        assert (waves > 0).any() and (waves == 0).any()  # both sides of the ReLU
    assert torch.autograd.gradcheck(embedded, (numbers, *values))


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_missing_and_unseen_categories_are_zeros_and_stay_so(optimizer):
    front, make = front_of("none", (3, 8))
    model = build_mlp(front.features, 2, depth=2, width=5, seed=1, front=make)
    sizes = [embedding_size(3), embedding_size(8)]
    rows = rows_of(front, 12, dtype=torch.float32)
    rows[:4, 6], rows[2:6, 7] = 0, 0
    options = {"lr": 0.1, "weight_decay": 0.1}
    updates = torch.optim.SGD if optimizer == "sgd" else torch.optim.AdamW
    engine = Autograd(model, Loss("mse"), updates(model.parameters(), **options))
    before = [table.weight.detach().clone() for table in model[0].categories]
    for _ in range(3):
        engine.step(rows, torch.randn(12, 2), 0.1)
    for place, table in enumerate(model[0].categories):
        assert not table.weight.grad[0].any() and not table.weight[0].any()
        for code in range(1, front.categories[place] + 1):
            assert table.weight.grad[code].any() == (rows[:, 6 + place] == code).any()
            assert not torch.equal(table.weight[code], before[place][code])
    embedded = model[0](rows)[:, 6:].split(sizes, dim=1)
    assert not embedded[0][:4].any() and not embedded[1][2:6].any()
    assert embedded[0][4:][rows[4:, 6] > 0].all()


@pytest.mark.parametrize(("categories", "size"), [(0, 1), (1, 2), (2, 2), (10, 6), (1000, 77), (50_000, 600)])
def test_size_of_a_category(categories, size):
    assert embedding_size(categories) == size  # 1.6 n^0.56: 1.6, 2.36, 5.81, 76.6, 683


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=40),
    st.integers(2, 12),
    st.sampled_from([torch.float32, torch.float64]),
)
def test_edges_are_the_quantiles_each_once(values, bins, dtype):
    column = torch.tensor(values, dtype=dtype)
    edges = quantile_edges(torch.stack([column, torch.full_like(column, 7.5)], dim=1), bins)
    assert edges[1].tolist() == [7.5]
    found = edges[0].numpy()
    tiny = np.finfo(np.float32).tiny  # edges that are closer are one
    assert found.dtype == column.numpy().dtype
    assert found[0] == column.min() and 0 <= column.max() - found[-1] <= tiny
    expected = np.quantile(column.numpy().astype(np.float64), np.linspace(0, 1, bins + 1))
    scale = max(1.0, np.abs(expected).max())
    near = np.abs(found[:, None].astype(np.float64) - expected) <= 1e-6 * scale
    assert near.any(0).all() and near.any(1).all()
    assert len(found) <= bins + 1 and (np.diff(found) > 0).all()
    # whatever the type of the model, no component is 0/0
    for model_dtype in (torch.float32, torch.float64):
        encoding = PiecewiseLinear(components_of(edges[:1]), edges[:1]).to(model_dtype)
        assert encoding(column.to(model_dtype)[:, None]).isfinite().all()


def test_edges_of_a_training_split():
    column = torch.randn(999, 2, generator=torch.Generator().manual_seed(0))
    column[:300, 1] = 0.0  # three tenths of the samples in one value: quantiles coincide
    edges = quantile_edges(column, 10)
    for number in range(2):
        expected = np.unique(np.quantile(column[:, number].double().numpy(), np.linspace(0, 1, 11)))
        np.testing.assert_allclose(edges[number].numpy(), expected, rtol=1e-6)
    assert [len(each) for each in edges] == [11, 9]


def test_edges_of_many_rows_come_from_a_sample_and_the_extremes(monkeypatch):
    column = torch.rand(20_000, 1, generator=torch.Generator().manual_seed(0))
    column[7777], column[3] = 50.0, -50.0
    monkeypatch.setattr(embedding, "QUANTILE_ROWS", 5000)
    (edges,) = quantile_edges(column, 4)
    assert (edges[0], edges[-1]) == (-50, 50)
    # four standard deviations of a quantile of 5,000 uniform numbers
    np.testing.assert_allclose(edges[1:-1].numpy(), [0.25, 0.5, 0.75], atol=4 * 0.5 / math.sqrt(5000))
    assert torch.equal(edges, quantile_edges(column, 4)[0])


def test_initial_weights_are_those_of_the_paper_and_of_torch():
    front = Front(features=300, numbers=300, numeric="periodic", frequencies=24, size=16)
    torch.manual_seed(0)
    layer = InputEmbedding(front, sigma=0.3).numeric
    assert layer.frequencies.std().item() == pytest.approx(0.3, rel=0.03)
    assert layer.frequencies.mean().item() == pytest.approx(0, abs=0.02)
    linear = nn.Linear(48, 16 * 300)  # as many weights of torch's own
    for ours, torchs in ((layer.weight, linear.weight), (layer.bias, linear.bias)):
        assert ours.std().item() == pytest.approx(torchs.std().item(), rel=0.03)
        assert ours.abs().max().item() == pytest.approx(torchs.abs().max().item(), rel=0.01)


# --- in the network -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("numeric", "categories"), FRONTS)
def test_the_front_is_the_first_layer_of_the_model(numeric, categories):
    front, make = front_of(numeric, categories)
    options = {"depth": 3, "width": 5, "normalization": "layer"}
    model = build_mlp(front.features, 2, **options, init="kaiming", seed=1, front=make)
    layers = mlp_layers(front.features, 2, **options, front=front)
    assert [sum(p.numel() for p in m.parameters()) for m in model] == [layer.parameters for layer in layers]
    value = rows_of(front, 3, dtype=torch.float32)
    for module, layer in zip(model, layers, strict=True):
        assert value.shape[1] == layer.inputs
        value = module(value)
        assert value.shape[1] == layer.outputs
    assert layers[0].kind == KINDS[numeric, categories]
    # the seed decides its weights, whatever is drawn elsewhere, and `init` is of the affine layers
    torch.manual_seed(99)
    again = build_mlp(front.features, 2, **options, init="orthogonal", seed=1, front=make)
    for name, parameter in model[0].state_dict().items():
        assert torch.equal(parameter, again[0].state_dict()[name])


@pytest.mark.parametrize(("numeric", "categories"), FRONTS)
def test_flops_of_a_step_are_those_that_torch_counts(numeric, categories):
    from torch.utils.flop_counter import FlopCounterMode

    front, make = front_of(numeric, categories)
    model = build_mlp(front.features, 2, depth=2, width=5, front=make)
    with FlopCounterMode(display=False) as counter:
        model(rows_of(front, 16, dtype=torch.float32)).sum().backward()
    layers = mlp_layers(front.features, 2, depth=2, width=5, front=front)
    cost = step_cost(layers, samples=16, in_memory=16, bytes_per_number=4, optimizer_copies=0)
    assert cost.flops == counter.get_total_flops()


@pytest.mark.parametrize(("numeric", "categories"), FRONTS)
def test_a_state_dict_is_loaded_without_the_data(numeric, categories):
    front, make = front_of(numeric, categories)
    model = build_mlp(front.features, 2, depth=2, width=5, seed=1, front=make)
    state = model.state_dict()
    other = build_mlp(front.features, 2, depth=2, width=5, seed=2, front=lambda: InputEmbedding(front))
    other.load_state_dict(state)
    rows = rows_of(front, 9, dtype=torch.float32)
    assert torch.equal(other(rows), model(rows))


@pytest.mark.parametrize(("numeric", "categories"), FRONTS)
@pytest.mark.parametrize("flat", [False, True])
def test_inference_is_the_model(numeric, categories, flat):
    front, make = front_of(numeric, categories)
    model = build_mlp(front.features, 2, depth=2, width=5, activation="silu", seed=1, front=make).double().eval()
    rows = rows_of(front, 9)
    expected = model(rows).detach()
    if flat:
        flatten(model)
    kept = rows.clone()
    outputs_of = Inference(model, 9)
    torch.testing.assert_close(outputs_of(rows), expected, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(outputs_of(rows[:4]), expected[:4], rtol=1e-12, atol=1e-14)
    assert torch.equal(rows, kept)


def test_the_widest_layer_may_be_in_the_front():
    wide = Front(features=1, numbers=1, numeric="periodic", frequencies=500, size=2)
    model = build_mlp(1, 2, depth=2, width=5, front=lambda: InputEmbedding(wide))
    assert chunk_rows(model) == CHUNK_NUMBERS // 1000
    many = Front(features=1, categories=(5000,))
    model = build_mlp(1, 2, depth=2, width=5, front=lambda: InputEmbedding(many))
    assert chunk_rows(model) == CHUNK_NUMBERS // embedding_size(5000)


# --- the engines --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("activation", ["relu", "silu"])
@pytest.mark.parametrize("depth", [1, 3])
def test_explicit_is_autograd_on_piecewise_linear_numbers(activation, depth):
    front, make = front_of("piecewise_linear")
    options = {"depth": depth, "width": 5, "activation": activation, "seed": 1, "front": make}
    ours, reference = (build_mlp(front.features, 3, **options).double() for _ in range(2))
    loss = Loss("cross_entropy")
    engine = Explicit(ours, loss, torch.optim.SGD(ours.parameters(), lr=0.1, momentum=0.9), 8)
    other = Autograd(reference, loss, torch.optim.SGD(reference.parameters(), lr=0.1, momentum=0.9))
    buffers = {name: value.clone() for name, value in ours[0].state_dict().items()}
    for step, n in enumerate((8, 8, 3)):
        rows, targets = rows_of(front, n, seed=step), torch.arange(n) % 3
        torch.testing.assert_close(engine.step(rows, targets, 0.1), other.step(rows, targets, 0.1))
    for a, b in zip(ours.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-14)
    assert all(torch.equal(value, buffers[name]) for name, value in ours[0].state_dict().items())


@pytest.mark.parametrize(("numeric", "categories"), [each for each in FRONTS if each != ("piecewise_linear", ())])
def test_explicit_refuses_a_front_that_learns(numeric, categories):
    front, make = front_of(numeric, categories)
    model = build_mlp(front.features, 3, depth=2, width=5, front=make)
    with pytest.raises(TypeError, match="no explicit derivative for InputEmbedding"):
        Explicit(model, Loss("cross_entropy"), torch.optim.SGD(model.parameters(), lr=0.1), 8)


def test_bfloat16_rounds_products_alone():
    front = Front(features=3, numbers=1, numeric="periodic", frequencies=4, size=2, categories=(1000,))
    model = build_mlp(3, 2, depth=2, width=5, seed=1, front=lambda: InputEmbedding(front, sigma=1.0))
    seen = []
    hooks = [module.register_forward_hook(lambda m, i, o: seen.append((m, i[0], o))) for module in model.modules()]
    # bfloat16 has 8 bits of mantissa: 999 would become 1000, and an angle of 100 turns would be off by half a turn
    rows = torch.tensor([[100.3, 1.2345678, 999.0], [-0.4, 0.0, 1.0]])
    forward(model, rows, bfloat16=True)
    for hook in hooks:
        hook.remove()
    outputs = {id(module): output for module, _, output in seen}
    table = model[0].categories[0]
    assert torch.equal(outputs[id(table)], table.weight[[999, 1]])
    first = outputs[id(model[0])]
    assert torch.equal(first[:, 2], rows[:, 1])
    exact = model.double()[0](rows.double())
    torch.testing.assert_close(first[:, :2].double(), exact[:, :2], rtol=0, atol=0.02)


def test_explicit_in_mixed_precision_encodes_before_it_rounds():
    front = Front(features=1, numbers=1, numeric="piecewise_linear", components=2)
    edges = [torch.tensor([1000.0, 1000.5, 1001.0])]  # one number in bfloat16
    model = build_mlp(1, 3, depth=2, width=64, seed=1, front=lambda: InputEmbedding(front, edges=edges))
    rows, targets = torch.linspace(1000, 1001, 64)[:, None], torch.arange(64) % 3
    expected = model(rows).detach()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    outputs = Explicit(model, Loss("cross_entropy"), optimizer, 64, bfloat16=True).gradient(rows, targets)
    assert (expected[0] - expected[-1]).abs().min() > 0.05
    torch.testing.assert_close(outputs, expected, rtol=0.02, atol=0.01)


@pytest.mark.parametrize(("numeric", "categories"), FRONTS)
def test_the_front_can_be_exported(numeric, categories):
    front, make = front_of(numeric, categories)
    model = build_mlp(front.features, 2, depth=2, width=5, seed=1, front=make).eval()
    rows = rows_of(front, 7, dtype=torch.float32)
    batch = {0: torch.export.Dim("batch")}
    program = torch.export.export(model, (rows[:2],), dynamic_shapes=(batch,))
    torch.testing.assert_close(program.module()(rows), model(rows))
