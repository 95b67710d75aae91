"""What is inside the network: layers, weights, activations, gradients."""

import math
from collections.abc import Callable, Sequence

import numpy as np
from torch import nn

from mlpcli.axes import Scale
from mlpcli.checking import layers_of
from mlpcli.config.data_schema import ImageSection
from mlpcli.network import Network
from mlpcli.report.blocks import Block, Charts, Gallery, Picture, Section, Table, Text
from mlpcli.report.charts import Series, curves, histogram, short
from mlpcli.report.drawing import Chart
from mlpcli.report.gathering import Gathered, number
from mlpcli.report.images import encoded, shown_size, weight_grid
from mlpcli.report.probes import Bins, Probe, ProbedLayer

MOST_LAYERS = 5
"""Layers of which there are curves and histograms: as many as there are colours that one can tell apart."""
MOST_UNITS = 64
"""Of the first layer whose weights are shown."""
COLUMNS = 16
BINS = 40


def section(run: Gathered) -> Section:
    """The network of the best checkpoint, and how it came to be."""
    blocks: list[Block] = []
    if run.network is not None and run.config is not None:
        blocks.append(_layers(run, run.network))
        blocks += _first_weights(run, run.network)
    if run.probes:
        blocks += _initial_loss(run)
        blocks += _over_time(run.probes)
        blocks += _histograms(run.probes)
        blocks.append(_last_probe(run.probes[-1]))
    else:
        blocks.append(
            Text(
                "Activations, dead units, gradient norms and update ratios are not known: the run has no "
                "diagnostics.jsonl (training.diagnostics writes it).",
                "note",
            )
        )
        if run.network is not None:
            blocks.append(Charts(_weight_histograms(run.network)))
    return Section("network", "Network", blocks)


def _layers(run: Gathered, network: Network) -> Table:
    assert run.config is not None
    about = network.description
    layers = layers_of(run.config, about.features, about.outputs, network.front)
    rows = [
        [str(i), each.kind, f"{each.inputs:,} → {each.outputs:,}", f"{each.parameters:,}", f"{each.flops:,}"]
        for i, each in enumerate(layers)
    ]
    total = [sum(each.parameters for each in layers), sum(each.flops for each in layers)]
    rows.append(["", "sum", "", *(f"{each:,}" for each in total)])
    head = ["layer", "kind", "in → out", "parameters", "FLOPs a sample"]
    return Table("Layers", head, rows, (0, 1), caption=f"Of {run.network_of}.", more=40)


def _linears(network: Network) -> list[nn.Linear]:
    return [module for module in network.model if isinstance(module, nn.Linear)]


def _first_weights(run: Gathered, network: Network) -> list[Block]:
    """The weights of the first layer as images, where it sees pixels."""
    assert run.config is not None
    data, about = run.config.data, network.description
    if not isinstance(data, ImageSection) or data.features.name != "none" or about.input_shape[0] not in (1, 3):
        return []
    weights = _linears(network)[0].weight.detach().cpu().double().numpy()
    norms = np.linalg.norm(weights, axis=1)
    order = np.argsort(-norms, kind="stable")[:MOST_UNITS]
    columns = min(COLUMNS, len(order))
    if columns > len(order) // 2 and len(order) > 4:
        columns = -(-len(order) // 2)
    grid = weight_grid(weights[order], about.input_shape, columns)
    picture = Picture(encoded(grid), shown_size(grid.height, grid.width, 960), "weights of the first layer")
    colours = "red, green and blue around grey" if about.input_shape[0] == 3 else "blue above 0, orange below"
    units = "The" if len(weights) == len(order) else f"The {len(order)} of {len(weights):,} units with the longest"
    caption = f"{units} weights, each scaled by its largest: {colours}."
    return [Gallery("First-layer weights as images", [picture], caption)]


def _initial_loss(run: Gathered) -> list[Block]:
    """The loss before the first step, beside that of guessing."""
    first = run.probes[0]
    loss = number(run.summary.get("initial_loss"))
    if not math.isfinite(loss):
        if first.step:
            return []
        loss = first.loss
    text = f"Loss at initialisation: {short(loss)}."
    if run.classes and run.config is not None and run.config.loss and run.config.loss.name == "cross_entropy":
        guessing = math.log(len(run.classes))
        text += f" Guessing each of {len(run.classes)} classes alike has ln {len(run.classes)} = {guessing:.4g}"
        text += (
            ", about the same: the network starts without a preference."
            if 0.7 <= loss / guessing <= 1.5
            else ": the network starts far from it, so check model.init and data.standardize."
        )
    return [Text(text)]


def _chosen(layers: Sequence[ProbedLayer]) -> list[int]:
    """The places of the layers that are drawn: first and last, and evenly between them."""
    n = len(layers)
    if n <= MOST_LAYERS:
        return list(range(n))
    return [i * (n - 1) // (MOST_LAYERS - 1) for i in range(MOST_LAYERS)]


def _over_time(probes: Sequence[Probe]) -> list[Block]:
    chosen = _chosen(probes[-1].layers)
    charts = []
    of_step = "length of a step / length of the weights"
    for name, title, y_name, value in (
        ("gradient-norms", "Gradient norm by layer", "2-norm of ∂loss/∂weights", lambda x: x.gradient_norm),
        ("update-ratios", "Update-to-weight ratio by layer", of_step, lambda x: x.update_ratio),
        ("dead-units", "Dead units by layer", "units that are 0 on every sample", _dead),
    ):
        chart = _by_layer(probes, chosen, name, title, y_name, value)
        if chart is not None:
            charts.append(chart)
    note = f"On {probes[-1].samples:,} training samples, at {len(probes)} epoch{'s' * (len(probes) != 1)}."
    if len(probes[-1].layers) > MOST_LAYERS:
        note += f" {MOST_LAYERS} of {len(probes[-1].layers)} affine layers are drawn."
    return [Charts(charts), Text(note)]


def _dead(layer: ProbedLayer) -> float:
    return math.nan if layer.dead is None else float(layer.dead)


def _by_layer(
    probes: Sequence[Probe],
    chosen: Sequence[int],
    name: str,
    title: str,
    y_name: str,
    value: Callable[[ProbedLayer], float],
) -> Chart | None:
    """Curves of a value over the epochs, one a layer; None where no layer has it."""
    epochs = [probe.epoch for probe in probes]
    series = []
    for colour, place in enumerate(chosen):
        values = [value(each.layers[place]) if place < len(each.layers) else math.nan for each in probes]
        if any(map(math.isfinite, values)):
            series.append(Series(f"layer {place + 1}", epochs, values, colour))
    if not series:
        return None
    finite = [each for one in series for each in one.values if math.isfinite(each)]
    scale: Scale = "linear" if name == "dead-units" else "log"
    if not any(finite):
        return None
    caption = "0 has no place on this axis." if scale == "log" and min(finite) <= 0 else ""
    return curves(name, title, y_name, series, scale=scale, caption=caption)


def _histograms(probes: Sequence[Probe]) -> list[Block]:
    """Weights and activations by layer: at the last probe, over those of the first one."""
    first, last = probes[0], probes[-1]
    charts: list[Chart] = []
    for kind, title in (("weight", "Weights"), ("activation", "Activations")):
        for place in _chosen(last.layers):
            now: Bins | None = getattr(last.layers[place], kind)
            if now is None:
                continue
            then: Bins | None = getattr(first.layers[place], kind) if place < len(first.layers) else None
            pieces = [(f"epoch {last.epoch}", now, 0)]
            if then is not None and first is not last:
                pieces.insert(0, (f"epoch {first.epoch}", then, 1))
            charts.append(_over_each_other(f"{kind}s-{place + 1}", f"{title} of layer {place + 1}", kind, pieces))
    return [Charts(charts)]


def _over_each_other(name: str, title: str, x_name: str, pieces: Sequence[tuple[str, Bins, int]]) -> Chart:
    """Histograms on common bins, as shares of their values."""
    low = min(bins.low for _, bins, _ in pieces)
    high = max(bins.high for _, bins, _ in pieces)
    edges = np.linspace(low, high, BINS + 1)
    groups = []
    for label, bins, colour in pieces:
        # what a bin holds is spread evenly over it
        sums = np.concatenate(([0.0], np.cumsum(bins.counts)))
        shares = np.diff(np.interp(edges, bins.edges, sums / max(float(sums[-1]), 1.0)))
        groups.append((label, (100 * shares).tolist(), colour))
    return histogram(name, title, x_name, edges.tolist(), groups, y_name="% of the values")


def _last_probe(probe: Probe) -> Table:
    rows = []
    for each in probe.layers:
        dead = "–" if each.dead is None else f"{each.dead:,} ({each.dead / max(each.units, 1):.0%})"
        ratio = "–" if math.isnan(each.update_ratio) else short(each.update_ratio)
        rows.append([str(each.layer), f"{each.inputs:,} → {each.units:,}", dead, short(each.gradient_norm), ratio])
    head = ["affine layer", "in → out", "dead units", "gradient norm", "update / weight"]
    caption = "A dead unit is 0 on every sample that was looked at, so no gradient reaches its weights."
    return Table(f"Affine layers after epoch {probe.epoch}", head, rows, caption=caption, more=40)


def _weight_histograms(network: Network) -> list[Chart]:
    linears = _linears(network)
    n = len(linears)
    chosen = range(n) if n <= MOST_LAYERS else [i * (n - 1) // (MOST_LAYERS - 1) for i in range(MOST_LAYERS)]
    charts = []
    for place in chosen:
        values = linears[place].weight.detach().cpu().double().numpy().ravel()
        counts, edges = np.histogram(values[np.isfinite(values)], BINS)
        title = f"Weights of layer {place + 1}"
        groups = [("", (100 * counts / max(counts.sum(), 1)).tolist(), 0)]
        charts.append(
            histogram(f"weights-{place + 1}", title, "weight", edges.tolist(), groups, y_name="% of the values")
        )
    return charts
