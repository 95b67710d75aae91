"""`autodiff check` and `autodiff model`: against derivatives made here, broken engines, and every starter."""

import copy
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from command import mlpcli, succeeds
from stored_sets import write_cifar, write_folder, write_idx
from torch import Tensor, nn
from torchvision import datasets

from mlpcli import explicit, starters
from mlpcli.autodiff import gradient_check, network_graph
from mlpcli.autodiff.gradient_check import DIFFERENCES, EXACT, Report, Row
from mlpcli.autodiff.network_graph import NetworkGraph, Node, trace
from mlpcli.autodiff.scalar_graph import not_covered, scalar_graph
from mlpcli.autodiff.wiring import deterministic, open_objective
from mlpcli.config import load_config
from mlpcli.embedding import InputEmbedding, quantile_edges
from mlpcli.errors import FailedError
from mlpcli.explicit import Activation
from mlpcli.layers import Front
from mlpcli.model import ACTIVATIONS, build_mlp
from mlpcli.objective import Loss

N, FEATURES, CLASSES = 12, 5, 3
GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(N, FEATURES, generator=GENERATOR, dtype=torch.float64)
CLASS = torch.arange(N) % CLASSES
NUMBERS = torch.randn(N, CLASSES, generator=GENERATOR, dtype=torch.float64)


def network(**options: Any) -> nn.Sequential:
    options = {"depth": 3, "width": 6, "activation": "tanh", "seed": 0} | options
    return deterministic(build_mlp(FEATURES, CLASSES, **options))


def check(model: nn.Sequential, loss: Loss | None = None, targets: Tensor = CLASS, **options: Any) -> Report:
    return gradient_check.check(model, loss or Loss("cross_entropy"), X, targets, **options)


def rms(tensor: Tensor) -> float:
    return float(tensor.square().mean().sqrt())


def named(graph: NetworkGraph, name: str) -> Node:
    (node,) = (node for node in graph.nodes if node.name == name)
    return node


# --- check: what agrees -------------------------------------------------------------------------------------


def agrees(report: Report, methods: set[str]) -> None:
    assert not report.wrong, report.complaint()
    for row in report.rows:
        assert set(row.differences) - {"symbolic"} == methods
        for method, difference in row.differences.items():
            assert difference is not None
            assert difference <= (DIFFERENCES if method in ("differences",) else EXACT) or method in row.drowned


WITH_ENGINE = {"explicit", "forward", "differences"}
WITHOUT = {"forward", "differences"}


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("normalization", ["none", "batch", "layer"])
def test_the_methods_agree_for_every_activation_and_normalization(activation: str, normalization: str) -> None:
    report = check(network(activation=activation, normalization=normalization, dropout=0.3), limit=60)
    agrees(report, WITH_ENGINE if normalization == "none" else WITHOUT)


@pytest.mark.parametrize(
    ("loss", "targets"),
    [
        (Loss("cross_entropy", label_smoothing=0.2), CLASS),
        (Loss("cross_entropy", class_weights=torch.tensor([0.2, 1.0, 3.0], dtype=torch.float64)), CLASS),
        (
            Loss("cross_entropy", 0.1, class_weights=torch.tensor([0.0, 1.0, 3.0], dtype=torch.float64)),
            NUMBERS.softmax(1),
        ),
        *((Loss(name), targets) for name in ("mse", "mae", "huber") for targets in (CLASS, NUMBERS)),
        (Loss("huber", delta=0.2), NUMBERS),
    ],
)
@pytest.mark.parametrize("bias", [True, False])
def test_the_methods_agree_for_every_loss(loss: Loss, targets: Tensor, bias: bool) -> None:
    agrees(check(network(bias=bias), loss, targets, limit=60), WITH_ENGINE)


@pytest.mark.parametrize(
    ("front", "methods"),
    [
        (Front(5, 5, "periodic", frequencies=3, size=2), WITHOUT),
        (Front(5, 4, "periodic", frequencies=3, size=2, categories=(2,)), WITHOUT),
        (Front(5, 3, categories=(2, 2)), WITHOUT),
        (Front(5, 5, "piecewise_linear"), WITH_ENGINE),
    ],
)
def test_the_methods_agree_behind_embeddings(front: Front, methods: set[str]) -> None:
    edges = quantile_edges(X, 4) if front.numeric == "piecewise_linear" else None
    if edges is not None:
        front = Front(5, 5, "piecewise_linear", components=4 * FEATURES)
    inputs = X.clone()
    for place in range(5 - len(front.categories), 5):
        inputs[:, place] = torch.arange(N) % 3  # 0 is a missing category, whose embedding is no variable
    model = network(front=lambda: InputEmbedding(front, sigma=0.3, edges=edges))
    report = gradient_check.check(model, Loss("cross_entropy"), inputs, CLASS)
    agrees(report, methods)
    for row in report.rows:
        fixed = row.numbers - row.compared
        assert fixed == (row.numbers // 3 if "categories" in row.name else 0)


def test_the_gradient_that_all_are_compared_to_is_that_of_the_objective() -> None:
    model = network(activation="tanh", depth=2)
    report = check(model)
    W, b, V, c = (p.detach().clone().requires_grad_() for p in model.parameters())
    outputs = torch.tanh(X @ W.t() + b) @ V.t() + c
    objective = -outputs.log_softmax(1)[torch.arange(N), CLASS].mean()
    objective.backward()
    assert report.objective == pytest.approx(objective.item(), abs=1e-14)
    scales = [float(max(w.grad.abs().max(), v.grad.abs().max())) for w, v in ((W, b), (V, c))]  # type: ignore[union-attr]
    assert [row.scale for row in report.rows] == pytest.approx([scales[0]] * 2 + [scales[1]] * 2, rel=1e-12)


def test_the_error_of_finite_differences_is_that_of_the_theory() -> None:
    """h²f‴/6 + u·f/h with h = (3u)^(1/3): about 1e-10, and never the 1e-16 of the others."""
    report = check(network(activation="tanh"))
    errors = [row.differences["differences"] or 0.0 for row in report.rows]
    assert 1e-12 < max(errors) < 1e-8
    exact = [row.differences[name] or 0.0 for row in report.rows for name in ("explicit", "forward")]
    assert max(exact) < 1e-13


def test_it_changes_neither_the_model_nor_torchs_generator() -> None:
    model = network(normalization="batch")
    before, state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    check(model, limit=20)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    assert torch.equal(torch.get_rng_state(), state)


def test_passes_and_evaluations_are_counted() -> None:
    report = check(network())
    count = sum(row.numbers for row in report.rows)
    assert [(each.name, each.samples, each.compared, each.evaluations) for each in report.methods] == [
        ("autograd", N, count, 1),
        ("explicit", N, count, 1),
        ("forward", N, count, count),
        ("differences", N, count, 2 * count + 1),
        ("symbolic", 0, 0, 0),
    ]
    assert report.methods[-1].because == "the formulas would be too long, with 99 parameters"


def test_a_limit_is_shared_by_the_parameters() -> None:
    report = check(network(width=20), limit=60)
    # 5·20 + 20 + 20·20 + 20 + 20·3 + 3: the last has its 3, the others an equal share and a direction of all
    compared = {row.name: row.compared for row in report.rows}
    assert compared["4.bias"] == 3
    assert all(10 < count <= 13 for name, count in compared.items() if name != "4.bias")
    assert sum(compared.values()) == 60 + 5
    again = check(network(width=20), limit=60)
    assert [row.differences for row in again.rows] == [row.differences for row in report.rows]


# --- check: formulas ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("loss", "targets"),
    [
        (Loss("cross_entropy", 0.1, class_weights=torch.tensor([0.0, 1.0, 3.0], dtype=torch.float64)), CLASS),
        *((Loss(name, delta=0.3), targets) for name in ("mse", "mae", "huber") for targets in (CLASS, NUMBERS)),
    ],
)
def test_a_tiny_network_is_differentiated_by_sympy_too(loss: Loss, targets: Tensor) -> None:
    report = gradient_check.check(network(depth=2, width=1), loss, X[:3], targets[:3], limit=10)
    assert not report.wrong, report.complaint()
    assert report.methods[-1].samples >= 2 and report.methods[-1].compared == 12
    assert all((row.differences["symbolic"] or 0.0) < 1e-12 for row in report.rows)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_the_graph_of_scalars_computes_the_objective(activation: str) -> None:
    model = network(activation=activation, width=4)
    loss = Loss("cross_entropy")
    if activation == "gelu":
        assert not_covered(model) == "GELU is none of a graph's operations"
        assert check(model, limit=10).methods[-1].because == not_covered(model)
        return
    assert not not_covered(model)
    graph, at = scalar_graph(model, loss, X, CLASS)
    values = graph.forward(at)
    assert values[graph.leaf] == pytest.approx(loss(model(X), CLASS).item(), rel=1e-13)
    adjoints = graph.backward(graph.local_derivatives(values))
    gradient = torch.autograd.grad(loss(model(X), CLASS), list(model.parameters()))
    found = torch.tensor([adjoints[place] for place in graph.inputs.values()], dtype=torch.float64)
    torch.testing.assert_close(found, torch.cat([each.reshape(-1) for each in gradient]), rtol=1e-12, atol=1e-16)


def test_a_wrong_formula_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    right = gradient_check.formula_gradient
    monkeypatch.setattr(
        gradient_check, "formula_gradient", lambda graph, at: [1.001 * each for each in right(graph, at)]
    )
    report = gradient_check.check(network(depth=1), Loss("mse"), X[:2], NUMBERS[:2])
    assert wrong_rows(report) == {"0.weight": ["symbolic"], "0.bias": ["symbolic"]}


# --- check: kinks and round-off -----------------------------------------------------------------------------


def relu_unit(bias: float) -> nn.Sequential:
    """y = relu(w·x + b) with w = 1, at x = 0 for every sample."""
    model = deterministic(nn.Sequential(nn.Linear(1, 1), nn.ReLU(), nn.Linear(1, 1)))
    with torch.no_grad():
        for parameter, value in zip(model.parameters(), (1.0, bias, 1.0, 0.5), strict=True):
            parameter.fill_(value)
    return model


def at_zero(model: nn.Sequential) -> Report:
    zero = torch.zeros(4, 1, dtype=torch.float64)
    return gradient_check.check(model, Loss("mse"), zero, torch.ones_like(zero))


def test_a_kink_at_the_point_itself_is_skipped_and_counted() -> None:
    report = at_zero(relu_unit(0.0))
    assert {row.name: row.skipped for row in report.rows} == {
        "0.weight": 0,
        "0.bias": 1,
        "2.weight": 0,
        "2.bias": 0,
    }
    assert not report.wrong
    assert report.methods[-1].because == "the objective has a kink here"


def test_a_kink_nearby_takes_a_smaller_step() -> None:
    report = at_zero(relu_unit(2e-7))
    assert not report.wrong and not any(row.skipped for row in report.rows)
    (differences,) = (each for each in report.methods if each.name == "differences")
    assert differences.evaluations == 1 + 2 * 4 + 2 * 2  # the bias, at h, h/10 and h/100


def test_gradients_below_the_round_off_of_differences_are_marked_and_compared_by_the_others() -> None:
    report = check(network(activation="sigmoid", depth=20), limit=100)
    first = report.rows[0]
    assert first.scale < 1e-12
    assert first.drowned == ["differences"] and not report.wrong
    assert (first.differences["explicit"] or 0.0) < 1e-12


# --- check: what is broken ----------------------------------------------------------------------------------


def broken(monkeypatch: pytest.MonkeyPatch) -> None:
    right = explicit.ACTIVATIONS[nn.Tanh]
    wrong = Activation(right.forward, lambda d, z, h: d.mul_(1 - h))  # for 1 − h²
    monkeypatch.setitem(explicit.ACTIVATIONS, nn.Tanh, wrong)


def wrong_rows(report: Report) -> dict[str, list[str]]:
    return {row.name: row.wrong for row in report.wrong}


def test_a_wrong_derivative_of_our_engine_is_found_in_its_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    broken(monkeypatch)
    assert wrong_rows(check(network(depth=2))) == {"0.weight": ["explicit"], "0.bias": ["explicit"]}


def test_a_broken_engine_exits_with_1_and_names_the_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    assert mlpcli("autodiff", "check", "iris").code == 0
    broken(monkeypatch)
    done = mlpcli("autodiff", "check", "iris")
    assert done.code == 1
    assert "explicit disagrees with autograd" in done.err
    assert "0.weight" in done.err and "Linear(in_features=4, out_features=16" in done.err
    assert "2.weight" not in done.err
    assert "all methods agree" not in done.out and "!" in done.out
    as_json = mlpcli("autodiff", "check", "iris", "--json")
    assert as_json.code == 1 and as_json.json["agree"] is False
    assert [row["wrong"] for row in as_json.json["rows"]] == [["explicit"], ["explicit"], [], []]


def test_a_wrong_derivative_of_the_loss_is_found_in_every_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    right = Loss.derivative

    def wrong(self: Loss, outputs: Tensor, targets: Tensor, out: Tensor) -> None:
        right(self, outputs, targets, out)
        out.mul_(1 + 1e-7)

    monkeypatch.setattr(Loss, "derivative", wrong)
    assert set(wrong_rows(check(network()))) == {row.name for row in check(network()).rows}


class Square(torch.autograd.Function):
    """x², with factors on its derivatives: in both directions, and of one entry backwards."""

    backward_factor, forward_factor = 1.0, 1.0
    entry: int | None = None

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x * x

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        (x,) = ctx.saved_tensors
        result = 2 * x * gradient * Square.backward_factor
        if Square.entry is not None:
            result = result.clone()
            result.view(-1)[Square.entry] *= 2
        return result

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor) -> Tensor:  # type: ignore[override]
        (x,) = ctx.saved_tensors
        return 2 * x * tangent * Square.forward_factor


class Squared(nn.Module):
    """A layer with the squares of its weights on the diagonal."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.linspace(0.5, 1.5, size))

    def forward(self, x: Tensor) -> Tensor:
        return x * Square.apply(self.weight)


def squared() -> nn.Sequential:
    return deterministic(nn.Sequential(nn.Linear(FEATURES, 50), Squared(50), nn.Linear(50, CLASSES)))


@pytest.mark.parametrize(
    ("attribute", "methods"),
    [("forward_factor", ["forward"]), ("backward_factor", ["forward", "differences"])],
)
def test_a_wrong_derivative_in_torch_is_found(
    attribute: str, methods: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    model = squared()
    assert not check(model, limit=100).wrong
    monkeypatch.setattr(Square, attribute, 1.001)
    assert wrong_rows(check(model, limit=100)) == {"1.weight": methods}


def test_a_coordinate_that_was_not_drawn_is_not_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model = squared()
    monkeypatch.setattr(Square, "entry", 17)
    found = [check(model, limit=5, seed=seed) for seed in range(5)]
    assert all(row.compared == 2 for report in found for row in report.rows)
    assert all(wrong_rows(report) == {"1.weight": ["forward", "differences"]} for report in found)


def test_what_is_not_a_number_is_wrong() -> None:
    row = Row("w", "layer", 1, 1.0)
    row.add("explicit", math.nan, EXACT)
    row.add("explicit", 0.0, EXACT)
    assert row.wrong == ["explicit"] and row.differences == {"explicit": None}


# --- check: starters, runs, checkpoints ---------------------------------------------------------------------


def write_data(name: str, dataset: str, monkeypatch: pytest.MonkeyPatch) -> None:
    root = Path("data")
    writers: dict[str, Callable[[], object]] = {
        "mnist": lambda: write_idx(root),
        "fashion_mnist": lambda: write_idx(root, "FashionMNIST"),
        "cifar10": lambda: write_cifar(root, monkeypatch, datasets.CIFAR10),
        "image_folder": lambda: write_folder(root / "cats-dogs"),
        "csv": lambda: succeeds("init", "elsewhere.yaml", "--dataset", name),
    }
    writers.get(dataset, lambda: None)()


@pytest.mark.parametrize("name", starters.names())
def test_every_starter_is_checked_and_shown(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    write_data(name, load_config(starters.find(name)).data.dataset, monkeypatch)
    report = succeeds("autodiff", "check", name, "--samples", "6", "--limit", "12", "--json").json
    assert report["agree"] and report["of"].startswith(f"{name} at its initial weights, 6 of ")
    assert all(row["compared"] for row in report["rows"])
    shown = succeeds("autodiff", "model", name, "--samples", "6", "--json").json
    assert shown["objective"] == pytest.approx(report["objective"], rel=1e-12)
    parameters = [node["name"] for node in shown["nodes"] if node["operation"] == "parameter"]
    assert parameters == [row["name"] for row in report["rows"]]


@pytest.mark.parametrize(
    "overrides",
    [
        ["loss.class_weights=balanced", "loss.name=cross_entropy", "model.activation=gelu"],
        ["model.normalization=batch", "training.precision=bfloat16"],
        ["model.numeric_embedding=periodic"],
        ["model.numeric_embedding=piecewise_linear"],
        ["loss={name: huber, delta: 0.3}", "model.width=20", "model.bias=false"],
    ],
)
def test_overrides_change_what_is_checked(overrides: list[str]) -> None:
    succeeds("autodiff", "check", "iris", *overrides, "--limit", "40")


def test_a_table_with_categories_that_are_missing_is_checked() -> None:
    rows = [f"{'' if i % 7 == 0 else 'rgb'[i % 3]},{i % 5},{'yes' if i % 2 else 'no'}" for i in range(60)]
    Path("t.csv").write_text("colour,size,bought\n" + "\n".join(rows) + "\n", encoding="utf-8")
    Path("t.yaml").write_text(
        "data: {dataset: csv, path: t.csv, target: bought, categorical: embedding}\n"
        "model: {numeric_embedding: periodic, width: 8}\n",
        encoding="utf-8",
    )
    report = succeeds("autodiff", "check", "t.yaml", "--limit", "200", "--json").json
    assert any("categories" in row["name"] for row in report["rows"])


def test_a_run_and_a_checkpoint_are_checked_at_their_weights() -> None:
    succeeds("train", "iris", "training.epochs=3", "-q")
    run = Path("runs/iris")
    objectives = {}
    for target in ("iris", "runs/iris", "runs/iris/checkpoints/best.pt", "runs/iris/checkpoints/last.pt"):
        objectives[target] = succeeds("autodiff", "check", target, "--limit", "20", "--json").json["objective"]
    assert (
        len(set(objectives.values()))
        == len({(run / "checkpoints" / f"{w}.pt").read_bytes() for w in ("best", "last")}) + 1
    )
    assert objectives["runs/iris"] == objectives["runs/iris/checkpoints/best.pt"] < objectives["iris"]
    last = succeeds("autodiff", "model", "runs/iris", "--checkpoint", "last", "--json").json
    assert last["objective"] == objectives["runs/iris/checkpoints/last.pt"]
    state = torch.load(run / "checkpoints/last.pt", weights_only=True)["model"]
    weight = next(node for node in last["nodes"] if node["name"] == "0.weight")
    assert weight["value"] == pytest.approx(rms(state["0.weight"].double()), rel=1e-12)


def test_a_starter_comes_before_a_directory_of_its_name() -> None:
    succeeds("train", "iris", "training.epochs=1", "-o", "iris", "-q")
    assert "initial" in succeeds("autodiff", "check", "iris", "--limit", "5").out
    assert "checkpoints" in succeeds("autodiff", "check", "./iris", "--limit", "5").out


@pytest.mark.parametrize("command", ["check", "model"])
@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["digts"], "did you mean digits"),
        (["gone.pt"], "gone.pt"),
        (["iris", "model.wdth=3"], "did you mean"),
        (["iris", "--checkpoint", "worst"], "--checkpoint"),
        (["iris", "--samples", "0"], "samples"),
    ],
)
def test_what_is_no_network_is_refused(command: str, arguments: list[str], says: str) -> None:
    done = mlpcli("autodiff", command, *arguments)
    assert done.code == 2 and says in done.err and not done.out


# --- model: numbers -----------------------------------------------------------------------------------------


def test_values_and_adjoints_are_those_of_the_chain_rule() -> None:
    model = network(activation="tanh", depth=2)
    graph = trace(model, Loss("cross_entropy"), X, CLASS)
    W, b, V, c = (p.detach() for p in model.parameters())
    z1 = X @ W.t() + b
    h = torch.tanh(z1)
    z2 = h @ V.t() + c
    # δ = (softmax − one-hot)/n at the outputs, then back through V, tanh′ and W
    d2 = (z2.softmax(1) - torch.eye(CLASSES, dtype=torch.float64)[CLASS]) / N
    dh = d2 @ V
    d1 = dh * (1 - h**2)
    expected = {
        "x": (X, d1 @ W),
        "0.weight": (W, d1.t() @ X),
        "0.bias": (b, d1.sum(0)),
        "0": (z1, d1),
        "1": (h, dh),
        "2.weight": (V, d2.t() @ h),
        "2.bias": (c, d2.sum(0)),
        "2": (z2, d2),
    }
    for name, (value, adjoint) in expected.items():
        node = named(graph, name)
        assert node.shape == tuple(value.shape)
        assert (node.value, node.adjoint) == pytest.approx((rms(value), rms(adjoint)), rel=1e-12)
        if node.operation == "parameter":
            assert node.ratio == pytest.approx(float(adjoint.norm() / value.norm()), rel=1e-12)
    assert named(graph, "y").adjoint is None
    leaf = graph.nodes[-1]
    assert (leaf.name, leaf.operation, leaf.adjoint) == ("objective", "cross_entropy", 1.0)
    objective = -z2.log_softmax(1)[torch.arange(N), CLASS].mean()
    assert graph.objective == leaf.value == pytest.approx(float(objective), rel=1e-12)


def test_the_graph_is_that_of_the_layers() -> None:
    model = build_mlp(
        FEATURES, CLASSES, depth=3, width=4, dropout=0.5, normalization="batch", activation="sigmoid", seed=0
    )
    graph = trace(deterministic(model), Loss("mse"), X, NUMBERS)
    words = [node.operation for node in graph.nodes if node.parents]
    hidden = ["affine", "batch normalization", "sigmoid", "dropout, off"]
    assert words == [*hidden, *hidden, "affine", "mse"]
    assert all(parent < place for place, node in enumerate(graph.nodes) for parent in node.parents)
    used = {parent for node in graph.nodes for parent in node.parents}
    assert used == set(range(len(graph.nodes) - 1)), "every node but the leaf leads somewhere"
    assert {node.operation for node in graph.nodes if not node.parents} == {"data", "parameter"}
    assert [graph.nodes[place].name for place in graph.hidden] == ["0", "4"]


def chain(factor: float, hidden: int, size: int = 5) -> nn.Sequential:
    """Orthogonal square matrices times a factor, and nothing else: every adjoint is `factor` times the next."""
    model = build_mlp(
        FEATURES, size, depth=hidden + 1, width=size, activation="identity", init="orthogonal", bias=False, seed=0
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(factor)
    return deterministic(model)


@pytest.mark.parametrize(
    ("factor", "hidden", "verdict"),
    [(10.0, 5, "explodes"), (9.0, 4, "steady"), (0.1, 5, "vanishes"), (0.11, 4, "steady"), (1.0, 5, "steady")],
)
def test_it_says_where_a_gradient_vanishes_or_explodes(factor: float, hidden: int, verdict: str) -> None:
    graph = trace(chain(factor, hidden), Loss("mse"), X, torch.ones(N, 5, dtype=torch.float64))
    assert graph.verdict == verdict
    assert graph.ratio == pytest.approx(factor ** (hidden - 1), rel=1e-6)  # the weights were drawn in float32
    assert graph.factors == pytest.approx([factor] * (hidden - 1), rel=1e-6)
    assert ("neither" if verdict == "steady" else verdict) in graph.findings()[0]


def test_a_deep_sigmoid_network_has_a_vanishing_gradient() -> None:
    done = succeeds("autodiff", "model", "digits", "model.activation=sigmoid", "model.depth=30", "model.width=16")
    assert "the gradient vanishes: the RMS adjoint of 0 is" in done.out


@pytest.mark.parametrize(("depth", "verdict"), [(1, "too shallow"), (2, "too shallow"), (3, "steady")])
def test_shallow_networks_have_nothing_to_compare(depth: int, verdict: str) -> None:
    assert trace(network(depth=depth), Loss("cross_entropy"), X, CLASS).verdict == verdict


def test_a_last_layer_of_zeros_lets_no_gradient_through() -> None:
    graph = trace(network(init="zeros"), Loss("cross_entropy"), X, CLASS)
    assert graph.verdict == "zero" and graph.ratio is None and "no gradient reaches" in graph.findings()[0]
    json.dumps(graph.to_plain(), allow_nan=False)


def test_an_objective_that_is_not_finite_is_refused() -> None:
    with pytest.raises(FailedError, match=r"the objective is (inf|nan)"):
        trace(chain(1e200, 2), Loss("mse"), X, torch.ones(N, 5, dtype=torch.float64))
    with pytest.raises(FailedError, match=r"the derivative by 0\.weight is not finite"):
        check(chain(1e200, 2), Loss("mse"), torch.ones(N, 5, dtype=torch.float64))


def with_biases(activation: str, biases: list[float]) -> nn.Sequential:
    model = network(activation=activation, depth=2, width=len(biases))
    with torch.no_grad():
        model[0].bias.copy_(torch.tensor(biases))  # type: ignore[operator, union-attr]
    return model


def test_dead_and_saturated_units_are_counted() -> None:
    biases = [-100.0, 100.0, -100.0, 100.0, 100.0, 0.0, 0.0, 100.0]
    relu = trace(with_biases("relu", biases), Loss("cross_entropy"), X, CLASS)
    assert named(relu, "1").dead == 2 / 8 and named(relu, "1").saturated is None
    assert named(relu, "0").dead is None
    assert relu.findings()[1:] == ["1 relu: 25.0% of the units are dead"]
    for activation in ("tanh", "sigmoid"):
        flat = trace(with_biases(activation, biases), Loss("cross_entropy"), X, CLASS)
        assert named(flat, "1").saturated == 6 / 8 and named(flat, "1").dead is None
    for activation in ("leaky_relu", "gelu", "silu", "identity"):
        node = named(trace(with_biases(activation, biases), Loss("cross_entropy"), X, CLASS), "1")
        assert node.dead is None and node.saturated is None


def test_tiny_and_huge_numbers_keep_their_rms() -> None:
    huge = torch.full((3,), 1e300, dtype=torch.float64)
    assert network_graph._rms(huge) == pytest.approx(1e300)
    assert network_graph._rms(huge * 1e-300 * 1e-300) == pytest.approx(1e-300)


# --- model: the command -------------------------------------------------------------------------------------


def test_batch_normalization_uses_what_training_uses() -> None:
    config = ["iris", "model.normalization=batch", "training.batch_size=32"]
    shown = succeeds("autodiff", "model", *config, "--samples", "20", "--json").json
    assert any("of these samples" in note for note in shown["notes"])
    it = open_objective("iris", config[1:], samples=20)
    trained = build_mlp(4, 3, depth=2, width=16, activation="tanh", normalization="batch").double().train()
    trained.load_state_dict(it.model.state_dict(), strict=False)  # without running statistics
    assert shown["objective"] == pytest.approx(float(it.loss(trained(it.inputs), it.targets).detach()), rel=1e-12)
    one = succeeds("autodiff", "model", *config, "--sample", "3", "--json").json
    assert any("running" in note for note in one["notes"])


def test_one_sample_is_the_one_that_was_asked_for() -> None:
    whole = open_objective("iris", samples=10_000)
    for sample in (0, 17):
        shown = succeeds("autodiff", "model", "iris", "--sample", str(sample), "--json").json
        x, y = whole.inputs[sample : sample + 1], whole.targets[sample : sample + 1]
        assert shown["objective"] == pytest.approx(float(whole.loss(whole.model(x), y).detach()), rel=1e-12)
        assert shown["nodes"][0]["shape"] == [1, 4]
    outside = mlpcli("autodiff", "model", "iris", "--sample", str(len(whole.inputs)))
    assert outside.code == 2 and f"from 0 to {len(whole.inputs) - 1}" in outside.err


def test_the_samples_are_drawn_by_the_seed() -> None:
    first, again, other = (open_objective("iris", [f"seed={seed}"], samples=8) for seed in (0, 0, 1))
    assert torch.equal(first.inputs, again.inputs) and not torch.equal(first.inputs, other.inputs)
    assert first.inputs.dtype == torch.float64
    assert all(p.dtype == torch.float64 for p in first.model.parameters())


@pytest.mark.parametrize("ending", ["svg", "png", "dot", "mmd"])
def test_it_is_drawn(ending: str) -> None:
    done = succeeds("autodiff", "model", "iris", "-o", f"graph.{ending}", "--json")
    assert done.json["nodes"]
    content = Path(f"graph.{ending}").read_bytes()
    if ending != "png":
        for text in ("affine", "tanh", "0.weight", "cross_entropy"):
            assert text in content.decode().replace("#95;", "_")


def test_another_ending_is_refused_before_the_data_is_read() -> None:
    done = mlpcli("autodiff", "model", "mnist", "data.root=nowhere", "-o", "graph.gif")
    assert done.code == 2 and "graph.gif" in done.err


def test_tables_show_every_row() -> None:
    checked = succeeds("autodiff", "check", "digits", "--limit", "10").out
    assert all(
        text in checked for text in ("0.weight", "6.bias", "explicit", "forward", "evaluations", "dropout off")
    )
    without = succeeds("autodiff", "check", "iris", "model.normalization=layer", "--limit", "10").out
    assert "no explicit: no explicit derivative for LayerNorm" in without
    shown = succeeds("autodiff", "model", "digits").out
    assert all(text in shown for text in ("x 0.weight 0.bias", "64×256", "gradient/weight", "dead"))
