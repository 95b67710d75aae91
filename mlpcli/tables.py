"""Results as text for a person: aligned columns, nothing else."""

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from mlpcli.config import Config, dump_config
from mlpcli.config.schema import FULL_BATCH

WIDEST_CONFUSION = 25
"""Classes up to which the confusion matrix is printed; --json has it always."""


def columns(rows: Sequence[Sequence[object]], header: Sequence[str]) -> str:
    """Rows under a header; the first column is left-aligned, the others right-aligned."""
    table = [list(header), *([str(cell) for cell in row] for row in rows)]
    widths = [max(len(row[index]) for row in table) for index in range(len(header))]
    lines = []
    for row in table:
        first, *others = row
        cells = [first.ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(others, widths[1:], strict=True))]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def evaluation(result: Mapping[str, Any]) -> str:
    """What `eval` prints: the metrics, then the confusion matrix with each class's precision and recall."""
    parts = [f"{result['checkpoint']} on {result['split']} ({result['samples']:,} samples)"]
    metrics = result["metrics"] | result.get("scores", {})
    parts.append(columns([(name, f"{value:.6f}") for name, value in metrics.items()], ("metric", "value")))
    if "confusion" in result:
        classes, confusion = result["classes"], result["confusion"]
        shown = len(classes) <= WIDEST_CONFUSION
        header = [
            "true \\ predicted" if shown else "class",
            *(classes if shown else ()),
            "precision",
            "recall",
        ]
        rows = [
            [name, *(counts if shown else ()), _share(row["precision"]), _share(row["recall"])]
            for name, counts, row in zip(classes, confusion, result["per_class"], strict=True)
        ]
        parts.append(columns(rows, header))
    return "\n\n".join(parts)


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def check(config: Config, report: Mapping[str, Any]) -> str:
    """What `check` prints: the resolved config, the layers and the cost of a step."""
    engine, because = report["engine"]["name"], report["engine"]["because"]
    computed = f"engine: {engine}{f', because {because}' if because else ''}"
    if "layers" not in report:
        text = f"{dump_config(config)}\nlayers: the data decides; read it with check --data\n{computed}"
        return "\n\n".join([text, *_sweep(report)])
    step = report["step"]
    each = "the whole training split" if config.optimizer.name in FULL_BATCH else "a mini-batch"
    rows: list[Sequence[object]] = [
        (
            index,
            layer["kind"],
            f"{layer['inputs']} → {layer['outputs']}",
            f"{layer['parameters']:,}",
            si(layer["flops"]),
        )
        for index, layer in enumerate(report["layers"])
    ]
    rows.append(("", "sum", "", f"{report['parameters']:,}", si(sum(x["flops"] for x in report["layers"]))))
    parts = [
        dump_config(config).rstrip(),
        columns(rows, ("layer", "kind", "in → out", "parameters", "FLOPs/sample")),
        f"a step: {each} of {report['training_samples']:,} training samples, "
        f"{si(step['flops'])}FLOP forward and backward\n"
        f"memory: {si(step['bytes'])}B = parameters {si(step['parameter_bytes'])}B + gradient "
        f"{si(step['gradient_bytes'])}B + optimizer {si(step['optimizer_bytes'])}B + activations "
        f"{si(step['activation_bytes'])}B\n"
        f"{computed}",
    ]
    if "data" in report:
        parts.append(_data(report["data"]))
    return "\n\n".join([*parts, *_sweep(report)])


def _sweep(report: Mapping[str, Any]) -> list[str]:
    """What `mlpcli sweep` varies, in paragraphs; none where it varies nothing."""
    if "sweep" not in report:
        return []
    sweep = report["sweep"]
    rows: list[Sequence[object]] = []
    for key, entry in sweep["space"].items():
        kind = next(kind for kind in ("uniform", "log_uniform", "int", "choice") if kind in entry)
        more = [f"{name}: {json.dumps(entry[name])}" for name in ("log", "step", "points") if entry.get(name)]
        rows.append((key, ", ".join([f"{kind}: {json.dumps(entry[kind])}", *more])))
    width = max(len(str(key)) for key, _ in rows)
    pruner = "no" if sweep["pruner"] == "none" else sweep["pruner"]
    how = f"sweep: {sweep['trials']:,} trials, {sweep['sampler']} sampler, {pruner} pruner"
    lines = [f"{how}, best by {sweep['objective']}"]
    return ["\n".join([*lines, *(f"  {key:<{width}}  {text}" for key, text in rows)])]


def _data(data: Mapping[str, Any]) -> str:
    rows: list[Sequence[object]] = [
        (name, f"{split['samples']:,}", split["dtype"], *_range(split)) for name, split in data["splits"].items()
    ]
    text = columns(rows, ("split", "samples", "type", *(() if data["columns"] else ("least", "most"))))
    if data["columns"]:
        kinds = [
            (each["name"], f"{each['categories']} categories" if "categories" in each else "numbers", each)
            for each in data["columns"]
        ]
        rows = [(name, kind, each["missing"], *(_range(each) or ("", ""))) for name, kind, each in kinds]
        text += "\n\n" + columns(rows, ("column", "holds", "missing", "least", "most"))
    if data["task"] == "classification" and len(data["classes"]) <= WIDEST_CONFUSION:
        counts = [
            (name, *(split["per_class"][index] for split in data["splits"].values()))
            for index, name in enumerate(data["classes"])
        ]
        text += "\n\n" + columns(counts, ("class", *data["splits"]))
    return f"{text}\n\nfingerprint {data['fingerprint']}"


def _range(values: Mapping[str, Any]) -> tuple[str, ...]:
    return (f"{values['minimum']:g}", f"{values['maximum']:g}") if "minimum" in values else ()


def si(number: float) -> str:
    """A number with its SI prefix: 25,350,000 -> `25.4 M`."""
    for prefix, unit in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(number) >= unit:
            return f"{number / unit:.3g} {prefix}"
    return f"{number:.3g} "


def runs(found: Sequence[Mapping[str, Any]], more: Mapping[str, Sequence[Any]]) -> str:
    """What `runs` prints: a line a run; `more` columns have a value for each run, which may be anything."""
    if not found:
        return "no runs yet"
    rows = [
        (
            run["path"],
            run["status"],
            run["epochs"],
            f"{run['seconds']:.1f}",
            _main_metric(run["validation"]),
            _main_metric(run["test"]),
            *(_short(values[place]) for values in more.values()),
        )
        for place, run in enumerate(found)
    ]
    return columns(rows, ("run", "status", "epochs", "seconds", "validation", "test", *more))


def seeds(directory: str, content: Mapping[str, Any]) -> str:
    """What `train --seeds` prints: the directory, a line for each metric, and what became of the seeds."""
    rows = []
    for name, found in content["metrics"].items():
        half = None if found["interval"] is None else found["interval"][1] - found["mean"]
        digits = _digits(found["mean"], half)
        mean, least, most = (f"{found[key]:,.{digits}f}" for key in ("mean", "min", "max"))
        spread = ("–", "–") if half is None else (f"{half:,.{digits}f}", f"{found['std']:,.{digits}f}")
        rows.append((name.replace(".", " "), mean, f"± {spread[0]}", spread[1], least, most, found["n"]))
    head = ("metric", "mean", "95 % interval", "std", "least", "greatest", "seeds")
    became = Counter(run["status"] for run in content["runs"])
    first, last = content["runs"][0]["seed"], content["runs"][-1]["seed"]
    which = f"seeds {first} to {last}" if first != last else f"seed {first}"
    counted = f"{which}: {', '.join(f'{count} {status}' for status, count in became.items())}"
    return "\n".join([directory, *([columns(rows, head)] if rows else []), counted])


def _digits(value: float, half: float | None) -> int:
    """Decimals of a mean: three digits of half its interval, or four of its own where there is none."""
    size, digits = (half, 3) if half else (abs(value), 4)
    return max(0, min(6, digits - 1 - math.floor(math.log10(size)))) if size else 4


def _short(value: Any) -> str:
    match value:
        case float():
            return f"{value:.6g}"
        case None | bool() | int() | str() | list():
            return json.dumps(value, ensure_ascii=False) if not isinstance(value, str) else value
        case dict():
            return str(value.get("name", value.get("dataset", "…")))
        case _:
            return "-"


def _main_metric(metrics: Mapping[str, float]) -> str:
    for name in ("accuracy", "rmse"):
        if name in metrics:
            return f"{name} {metrics[name]:.4f}"
    return "-"


def facts(values: Mapping[str, Any]) -> str:
    """What `info` prints."""
    rows: list[tuple[str, str]] = []
    for name, value in values.items():
        if isinstance(value, Mapping):
            rows += [(str(key), str(item)) for key, item in value.items()]
        else:
            rows.append((name, ", ".join(map(str, value)) or "none" if isinstance(value, list) else str(value)))
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)
