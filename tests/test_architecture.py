"""The arrows: who may import whom, and which commands answer without torch."""

import ast
import graphlib
import json
import os
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest
from stored_sets import write_idx

import mlpcli
from mlpcli.runs import Run

ROOT = Path(mlpcli.__file__).parent

ARROWS: dict[str, set[str]] = {
    # what stands on nothing, or only on what cannot be carried out
    "errors": set(),
    "arithmetic": set(),
    "seeds": set(),
    "layers": set(),
    "letters": set(),
    "axes": set(),
    "parts": set(),
    "progress": set(),
    "environment": set(),
    "config": {"errors"},
    "runs": {"errors"},
    "starters": {"errors"},
    "options": {"errors"},
    "jobs": {"errors"},
    "seed_runs": {"config", "errors", "report", "runs"},
    "checkpoints": {"errors", "runs", "sharding"},
    # the core: plain arguments, never a config
    "augmentation": {"seeds"},
    "embedding": {"layers"},
    "model": {"embedding", "layers", "parts"},
    "objective": set(),
    "optim": set(),
    "batches": {"parts", "seeds"},
    "sums": set(),
    "sharding": set(),
    "launch": {"errors"},
    "ranks": {"errors", "launch", "sums"},
    "batch_norm": {"ranks"},
    "training": {"batches", "objective", "parts", "progress", "ranks", "sharding"},
    "autograd": {"errors", "model", "objective", "parts", "ranks", "sharding", "sums"},
    "explicit": {"embedding", "model", "objective", "parts", "ranks", "sums"},
    "cuda_graph": {"explicit", "parts"},
    "diagnostics": {"objective"},
    "threads": {"training"},
    "evaluation": {"batches", "embedding", "model", "objective", "ranks", "sharding"},
    "scores": set(),
    # what turns a config into those
    "data": {"arithmetic", "config", "errors", "seeds"},
    "network": {
        "augmentation",
        "batches",
        "checkpoints",
        "config",
        "data",
        "embedding",
        "errors",
        "evaluation",
        "layers",
        "model",
        "objective",
        "ranks",
        "runs",
        "seeds",
    },
    "predictor": {"data", "evaluation", "network"},
    "predicting": {"config", "data", "errors", "network", "predictor"},
    "prediction_files": {"data", "errors", "predicting", "runs"},
    "program": {"data", "evaluation", "network"},
    "export_formats": {"config", "errors", "network", "predictor", "program"},
    "exporting": {"config", "data", "errors", "export_formats", "network", "program", "runs"},
    "experiment": {
        "autograd",
        "batch_norm",
        "checkpoints",
        "config",
        "cuda_graph",
        "data",
        "diagnostics",
        "environment",
        "errors",
        "explicit",
        "network",
        "optim",
        "parts",
        "predictor",
        "progress",
        "ranks",
        "runs",
        "scores",
        "seeds",
        "sharding",
        "targets",
        "threads",
        "training",
    },
    "resuming": {
        "checkpoints",
        "config",
        "environment",
        "errors",
        "experiment",
        "launch",
        "network",
        "progress",
        "ranks",
        "runs",
        "threads",
        "training",
    },
    "together": {"errors", "ranks"},
    # what a person sees
    "tables": {"config"},
    "sparkline": {"tables"},
    "listing": {"config", "errors", "progress", "runs"},
    "tensorboard": {"errors", "runs"},
    "console": {"config", "errors", "runs", "sparkline", "tensorboard", "training"},
    "checking": {"config", "data", "environment", "layers", "starters"},
    "pictures": {"letters", "runs"},
    "plots": {"axes", "errors", "letters", "runs"},
    "looking": {"checking", "config", "data", "errors", "network", "pictures"},
    "starter_tables": set(),
    "targets": {"config", "data", "errors", "network", "starters"},
    "autodiff": {
        "arithmetic",
        "config",
        "console",
        "embedding",
        "errors",
        "explicit",
        "letters",
        "model",
        "objective",
        "options",
        "plots",
        "runs",
        "seeds",
        "starters",
        "tables",
        "targets",
    },
    "regions": {
        "axes",
        "console",
        "data",
        "embedding",
        "errors",
        "letters",
        "network",
        "options",
        "plots",
        "runs",
        "tables",
        "targets",
    },
    "report": {
        "axes",
        "checking",
        "checkpoints",
        "config",
        "console",
        "data",
        "errors",
        "letters",
        "network",
        "options",
        "plots",
        "predictor",
        "progress",
        "runs",
        "tables",
        "targets",
        "threads",
    },
    "sweeping": {"axes", "plots", "report"},
    "verbs": {
        "checking",
        "config",
        "console",
        "errors",
        "data",
        "experiment",
        "exporting",
        "jobs",
        "launch",
        "listing",
        "looking",
        "network",
        "options",
        "predicting",
        "prediction_files",
        "report",
        "resuming",
        "runs",
        "seed_runs",
        "starter_tables",
        "starters",
        "tables",
        "tensorboard",
        "threads",
        "together",
    },
    "cli": {"autodiff", "errors", "launch", "options", "regions", "report", "verbs"},
    "__main__": {"cli"},
    "__init__": set(),
}
"""For each module or package: the others of mlpcli that it imports, anywhere in its files."""

THIRD_PARTY: dict[str, set[str]] = {
    "arithmetic": {"torch"},
    "augmentation": {"torch"},
    "autodiff": {"PIL", "mpmath", "numpy", "sympy", "torch", "typer"},
    "autograd": {"torch"},
    "batch_norm": {"torch"},
    "batches": {"torch"},
    "checkpoints": {"torch"},
    "checking": {"torch"},
    "cli": {"typer"},
    "verbs": {"torch", "tqdm", "typer"},
    "config": {"pydantic", "pydantic_core", "yaml"},
    "console": {"tqdm"},
    "data": {"PIL", "numpy", "pyarrow", "scipy", "sklearn", "torch", "torchvision", "tqdm"},
    "embedding": {"torch"},
    "export_formats": {"onnx", "onnxruntime", "safetensors", "torch"},
    "exporting": {"torch"},
    "cuda_graph": {"torch"},
    "diagnostics": {"torch"},
    "environment": {"torch"},
    "evaluation": {"torch"},
    "experiment": {"torch"},
    "explicit": {"torch"},
    "looking": {"torch"},
    "model": {"torch"},
    "network": {"torch"},
    "objective": {"torch"},
    "optim": {"torch"},
    "options": {"typer"},
    "pictures": {"PIL", "torch"},
    "plots": {"PIL"},
    "predicting": {"numpy", "torch"},
    "prediction_files": {"pyarrow", "torch"},
    "predictor": {"torch"},
    "program": {"torch"},
    "regions": {"PIL", "numpy", "scipy", "torch", "typer"},
    "report": {"PIL", "jinja2", "markupsafe", "numpy", "scipy", "torch", "typer"},
    "ranks": {"torch"},
    "scores": {"numpy", "sklearn"},
    "sharding": {"torch"},
    "starter_tables": {"sklearn"},
    "sums": {"torch"},
    "tensorboard": {"tensorboard", "torch"},
    "threads": {"torch"},
    "training": {"torch"},
}
"""Likewise, the packages that are not Python's own."""

CORE = (
    "augmentation",
    "embedding",
    "model",
    "objective",
    "optim",
    "batches",
    "autograd",
    "explicit",
    "cuda_graph",
    "threads",
    "training",
    "evaluation",
    "diagnostics",
    "ranks",
    "batch_norm",
    "sharding",
    "sums",
)


def unit(module: str) -> str:
    return module.split(".")[1]


def imports() -> tuple[dict[str, set[str]], dict[str, set[str]]]:
    """For each unit, the other units and the third-party packages that its files import."""
    inside: dict[str, set[str]] = defaultdict(set)
    outside: dict[str, set[str]] = defaultdict(set)
    for file in ROOT.rglob("*.py"):
        here = unit(".".join(file.relative_to(ROOT.parent).with_suffix("").parts))
        inside[here], outside[here] = inside[here], outside[here]
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                assert node.module is not None and node.level == 0, f"{file}: relative import"
                bare = node.module == "mlpcli"
                names = [f"mlpcli.{alias.name}" for alias in node.names] if bare else [node.module]
                names = [name for name in names if name != "mlpcli.__version__"]
            else:
                continue
            for name in names:
                package = name.partition(".")[0]
                if package == "mlpcli":
                    inside[here] |= {unit(name)} - {here}
                elif package not in sys.stdlib_module_names:
                    outside[here].add(package)
    return inside, outside


def test_imports_are_those_of_the_table() -> None:
    """A new arrow belongs in ARROWS only if `docs/architecture.md` can say why it points that way."""
    inside, outside = imports()
    assert inside == ARROWS
    assert {name: packages for name, packages in outside.items() if packages} == THIRD_PARTY


def test_the_table_has_no_circle_and_the_core_stands_alone() -> None:
    order = list(graphlib.TopologicalSorter(ARROWS).static_order())
    assert order[-1] == "__main__"

    def reached(name: str) -> set[str]:
        return ARROWS[name] | {further for each in ARROWS[name] for further in reached(each)}

    for name in CORE:
        assert reached(name) <= {*CORE, "errors", "launch", "layers", "parts", "progress", "seeds"}
    assert [name for name, used in ARROWS.items() if "cli" in used] == ["__main__"]
    assert [name for name, used in ARROWS.items() if "experiment" in used] == ["resuming", "verbs"]
    assert "torch" not in {
        package for each in (*reached("config"), "config") for package in THIRD_PARTY.get(each, ())
    }


# --- what is not imported -----------------------------------------------------------------------------------

HEAVY = {"torch", "torchvision", "numpy", "scipy", "sklearn"}

REFUSED = [
    ["regions", "digits", "--plane", "0,1"],
    ["regions", "digits", "-o", "plane.gif"],
    ["compare", "runs/digits"],
    ["compare", "runs/digits", "runs/digits", "--fail-on-regression", "accuracy"],
    ["compare", "runs/digits", "runs/absent"],
    [],
    ["check", "digits", "optimizer.lr=fast"],
    ["train", "digits", "model.depth=0"],
    ["train", "no such starter"],
    ["train", "digits", "model.depth=0", "--seeds", "2"],
    ["train", "digits", "--jobs", "2"],
    ["report", "no such run"],
]

WITHOUT_TORCH = [
    *REFUSED,
    ["--help"],
    ["autodiff", "--help"],
    *(["autodiff", command, "--help"] for command in ("graph", "model", "check", "error", "cost")),
    ["regions", "--help"],
    ["report", "--help"],
    ["compare", "--help"],
    ["--version"],
    *(
        [command, "--help"]
        for command in ("train", "eval", "predict", "export", "check", "init", "schema", "runs", "info")
    ),
    ["check", "digits"],
    ["check", "mnist", "model.width=[64, 32]", "~scheduler", "--json"],
    ["init", "--list"],
    ["init", "new.yaml", "--dataset", "wine"],
    ["schema"],
    ["runs"],
    ["runs", "--json"],
    ["runs", "--sort", "accuracy", "--where", "optimizer.name=sgd"],
]

LOADED = f"""
import contextlib, io, json, sys
from mlpcli.cli import main
for arguments in json.loads(sys.argv[1]):
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        try:
            main(arguments)
            code = 0
        except SystemExit as end:
            code = end.code or 0
    print(json.dumps([arguments, code, sorted({HEAVY!r} & sys.modules.keys())]))
"""


def loaded(*commands: list[str]) -> list[tuple[list[str], int, list[str]]]:
    """Each command with its exit code, and what of HEAVY was in memory after it and those before it."""
    done = subprocess.run(
        [sys.executable, "-c", LOADED, json.dumps(commands)], capture_output=True, text=True, check=True
    )
    return [tuple(json.loads(line)) for line in done.stdout.splitlines()]


def test_commands_that_need_no_torch_do_not_import_it() -> None:
    Run.create(None, "digits", "data: {dataset: digits}", {}).close()
    *light, info = loaded(*WITHOUT_TORCH, ["info"])
    assert [heavy for _, _, heavy in light] == [[]] * len(WITHOUT_TORCH)
    assert [code for _, code, _ in light] == [2 if arguments in REFUSED else 0 for arguments in WITHOUT_TORCH]
    assert "torch" in info[2], "or this test sees nothing"


@pytest.mark.parametrize(("words", "expected"), [("mlpcli che", "check"), ("mlpcli train --re", "--resume")])
def test_completion_needs_no_torch(words: str, expected: str) -> None:
    script = Path(sys.executable).with_name("mlpcli")
    environment = {
        "_MLPCLI_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(words.count(" ")),
        "PYTHONPROFILEIMPORTTIME": "1",
    }
    done = subprocess.run([script], env={**os.environ, **environment}, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [expected]
    modules = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
    assert "typer" in modules and not modules & HEAVY


def test_training_imports_only_what_its_data_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLPCLI_CACHE", "cache")  # an empty one
    ((_, code, heavy),) = loaded(["train", "iris", "training.epochs=1"])
    assert code == 0
    assert "sklearn" in heavy and "torchvision" not in heavy
    write_idx(Path("data"))
    ((_, code, heavy),) = loaded(["train", "mnist", "training.epochs=1"])
    assert code == 0
    assert "torch" in heavy and "sklearn" not in heavy
