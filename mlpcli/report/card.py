"""The model card of a run, README.md in its directory."""

import logging
import math
import re
import shlex
from pathlib import Path

import jinja2
import numpy as np
from torch import nn

from mlpcli.network import Network
from mlpcli.report import classifying
from mlpcli.report.gathering import Gathered
from mlpcli.report.sections.classification import by_class_rows
from mlpcli.report.sections.headline import architecture, metric
from mlpcli.report.sureness import intervals
from mlpcli.runs import BEST, write_whole

log = logging.getLogger("mlpcli")

CARD = "README.md"
STATUS = {
    "finished": "is finished",
    "diverged": "diverged",
    "running": "goes on",
    "interrupted": "was interrupted",
    "unknown": "ended in a way that is not known",
}
MARKER = "<!-- Written by mlpcli report, which replaces it. Take this line out to keep what you write here. -->"


def write_card(run: Gathered) -> None:
    """Write README.md, unless there is one that mlpcli did not write.

    Raises:
        StorageError: it could not be written.
    """
    file = run.path / CARD
    if file.exists() and not file.read_text(encoding="utf-8", errors="replace").startswith(MARKER):
        log.info("%s is not of mlpcli report, so it stays as it is", file)
        return
    if run.network is not None:
        write_whole(file, card(run, run.network).encode(errors="replace"))


def card(run: Gathered, network: Network) -> str:
    """The text, Markdown."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=False,  # Markdown, with `safe` around every text of the data
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
    )
    sure = intervals(run.test, run.test_metrics) if run.test is not None else {}
    metrics = [
        [name, f"{value:.6f}", f"{sure[name].low:.6f} to {sure[name].high:.6f}" if name in sure else "–"]
        for name, value in run.test_metrics.items()
    ]
    return environment.get_template("card.jinja").render(
        marker=MARKER,
        name=safe(run.name),
        path=shlex.quote(str(run.path)),
        onnx=shlex.quote(f"{run.name}.onnx"),
        what=_what(run, network),
        data=_data(network),
        samples=[(name, f"{count:,}") for name, count in run.samples.items()],
        metrics=metrics,
        unfinished="" if run.status == "finished" else ", of the best epoch so far",
        by_class=_by_class(run),
        which="" if _of_best(run) else " --checkpoint last",
        code=_code(network, "best" if _of_best(run) else "last"),
        no_code="export it; the file has all that becomes of an input before the first layer in it.",
        limits=_limits(run),
    )


def safe(text: str) -> str:
    """A text on one line that Markdown and HTML show as it is."""
    special = r"[\\`*{}\[\]<>()#|!~&]|(?<!\w)_|_(?!\w)"
    return re.sub(special, lambda found: f"&#{ord(found[0])};", " ".join(text.split()))


def _what(run: Gathered, network: Network) -> str:
    about = network.description
    count = sum(each.numel() for each in network.model.parameters())
    does = f"that tells {about.outputs} classes apart" if about.classes else "for regression"
    started = str(run.environment.get("started", ""))[:10]
    version = run.environment.get("versions")
    by = f" {safe(str(version['mlpcli']))}" if isinstance(version, dict) and "mlpcli" in version else ""
    return (
        f"A multi-layer perceptron {does}: {architecture(run)}, {count:,} parameters. Trained by mlpcli{by}"
        f"{f' on {safe(started)}' if started else ''}; the run {STATUS.get(run.status, run.status)}."
    )


def _data(network: Network) -> str:
    about = network.description
    if about.classes:
        shown = [safe(name) for name in about.classes[:20]]
        more = f" and {len(about.classes) - 20:,} more" if len(about.classes) > 20 else ""
        what = f"The classes: {', '.join(shown)}{more}."
    else:
        what = f"What is predicted: {', '.join(safe(name) for name in about.target_names[:20])}."
    return (
        f"{safe(about.name)}: inputs of shape {' × '.join(map(str, about.input_shape))}. {what} "
        f"Fingerprint {about.fingerprint}."
    )


def _by_class(run: Gathered) -> list[list[str]]:
    if run.test is None or not run.test.classifies or not np.isfinite(run.test.outputs).all():
        return []
    counts = classifying.confusion(run.test.predicted, run.test.targets.astype(np.int64), run.test.about.outputs)
    return [[safe(row[0]), *row[1:]] for row in by_class_rows(counts, run.classes)]


def _of_best(run: Gathered) -> bool:
    """Whether the network is that of best.pt; else there is none, or it is damaged, and last.pt has to do."""
    return Path(run.network_of).name == Path(BEST).name


def _code(network: Network, which: str) -> str:
    """Python that answers for raw inputs with torch alone; empty where more comes before the first layer."""
    scaling = network.preprocessing.state_dict()
    if network.extraction is not None or network.front is not None or set(scaling) != {"shift", "scale"}:
        return ""
    layers = "\n".join(f"    {_module(module)}," for module in network.model)
    double = ".double()" if network.precision == "float64" else ""
    kind = "double" if network.precision == "float64" else "float"
    lines = [
        "import torch",
        "from torch import nn",
        "",
        f'checkpoint = torch.load("checkpoints/{which}.pt", weights_only=True)',
        "model = nn.Sequential(",
        layers,
        f"){double}",
        'model.load_state_dict(checkpoint["model"])',
        "model.eval()",
        'data = checkpoint["data"]',
        "",
        "",
        "@torch.no_grad()",
        "def predict(inputs):",
        f'    """{_answers(network)}"""',
        '    scaled = (inputs - data["preprocessing"]["shift"]) * data["preprocessing"]["scale"]',
        f"    outputs = model(scaled.{kind}())",
    ]
    if network.target_scale is not None:
        lines.append('    return outputs * data["target_scale"]["std"] + data["target_scale"]["mean"]')
    else:
        lines.append('    return [data["description"]["classes"][index] for index in outputs.argmax(1)]')
    return "\n".join(lines)


def _answers(network: Network) -> str:
    what = "The values" if network.target_scale is not None else "The class"
    return f"{what} of each row: inputs (n, {network.description.features}), in the units of the data."


def _module(module: nn.Module) -> str:
    match module:
        case nn.Linear():
            bias = "" if module.bias is not None else ", bias=False"
            return f"nn.Linear({module.in_features}, {module.out_features}{bias})"
        case nn.BatchNorm1d():
            return f"nn.BatchNorm1d({module.num_features})"
        case nn.LayerNorm():
            return f"nn.LayerNorm({module.normalized_shape[0]})"
        case nn.Dropout():
            return f"nn.Dropout({module.p})"
    return f"nn.{type(module).__name__}()"


def _limits(run: Gathered) -> list[str]:
    """What a user has to know that the metrics do not say."""
    limits = []
    if run.test_metrics:
        limits.append(
            "It was measured on data from the same source as its training data; on other data it may be worse "
            "without saying so."
        )
    if run.status == "diverged":
        limits.append("The training diverged.")
    elif run.status in ("interrupted", "running"):
        limits.append("The training was not finished.")
    tested = run.samples.get("test", 0)
    if 0 < tested < 1000:
        limits.append(f"The test split has only {tested:,} samples: mind the intervals.")
    if run.test is not None and run.test.classifies and np.isfinite(run.test.outputs).all():
        targets = run.test.targets.astype(np.int64)
        counts = classifying.confusion(run.test.predicted, targets, run.test.about.outputs)
        recalls = [
            (of.recall, name)
            for of, name in zip(classifying.by_class(counts), run.classes, strict=True)
            if not math.isnan(of.recall)
        ]
        if recalls:
            low, name = min(recalls)
            limits.append(f"The class with the lowest recall is {safe(name)}: {metric('accuracy', low)}.")
        error = classifying.calibration(run.test.outputs, targets).error
        limits.append(
            f"Its probabilities are off by {100 * error:.1f} points on average (expected calibration error). An "
            "input of none of the classes gets one of them all the same."
        )
    elif run.test is not None:
        limits.append(
            "It gives a value without an interval, and beyond the range of its training data it extrapolates."
        )
    limits.append("Nobody has looked at whether it treats groups of people alike.")
    return limits
