"""The documents, taken at their word: every command is run, every link followed, every name looked up."""

import importlib.util
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from command import Done, mlpcli, project_files, succeeds
from stored_sets import write_folder
from typer.main import get_command

from mlpcli import resuming
from mlpcli.cli import app
from mlpcli.config import config_schema, parse_config
from mlpcli.config.expected import SchemaTree

ROOT = Path(__file__).parent.parent
DOCUMENTS = ["README.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]

NOT_RUN = {
    "make demo": "test_make.py runs it",
    "make test": "it is what runs this test",
    "make gd-vs-sgd": "test_make.py runs it",
    "pip install .": "it would change the environment that the tests run in",
    "uv pip install .": "it would change the environment that the tests run in",
    "uv pip install torch torchvision --torch-backend cpu": "it would change the environment, and needs a network",
}
"""Commands of the documents that no test can run, or another one does, and why."""

ON_MNIST = re.compile(r"\bmnist\b")
ON_PHOTOS = re.compile(r"\bcats[_-]dogs")
SMALLER = ["data.limit=1000", "training.epochs=1"]
"""What the test adds to a training on MNIST, which takes minutes as it is."""


# --- reading a document ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, the file name that may follow it, its text, and what stands before it."""

    language: str
    name: str
    text: str
    follows: str


@dataclass(frozen=True)
class Command:
    """A line of a `sh` block, and the exit code that the document states."""

    line: str
    code: int


def text_of(document: str) -> str:
    return (ROOT / document).read_text(encoding="utf-8")


def blocks(document: str) -> Iterator[Block]:
    """All blocks in order; `follows` is the language of the block right before, with no words in between."""
    before, end = "", -1
    text = text_of(document)
    for found in re.finditer(r"^```(\w*)(?: +(\S+))?\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        language, name, body = found.groups("")
        yield Block(language, name, body, before if not text[max(end, 0) : found.start()].strip() else "")
        before, end = language, found.end()


def commands(block: Block) -> list[Command]:
    found = []
    for line in block.text.splitlines():
        code = re.search(r"# exits (\d+)$", line)
        bare = re.sub(r"\s+#.*$", "", line).strip()
        if bare:
            found.append(Command(bare, int(code[1]) if code else 0))
    return found


def spans(document: str) -> list[str]:
    """The `code` within the sentences."""
    prose = re.sub(r"^```.*?^```$", "", text_of(document), flags=re.MULTILINE | re.DOTALL)
    return re.findall(r"`([^`\n]+)`", prose)


# --- running it -----------------------------------------------------------------------------------------


def run(line: str, extra: list[str] | None = None) -> Done:
    """`mlpcli …` in this process, with `> FILE` at its end as a shell does it; anything else by itself."""
    unquoted = re.sub(r"'[^']*'|\"[^\"]*\"", "", line)
    assert not re.search(r"[\[\]{}()*?~$&|;<!]", unquoted), f"a shell would read some of this itself: {line}"
    words = shlex.split(line)
    if words[0] == "torchrun":
        words[0] = str(Path(sys.executable).with_name("torchrun"))
    if words[0] != "mlpcli":
        other = subprocess.run(words, capture_output=True, text=True, check=False)
        return Done(other.returncode, other.stdout, other.stderr)
    target = words.pop() if words[-2:-1] == [">"] else None
    arguments = words[1:-1] if target else words[1:]
    done = mlpcli(*arguments, *(extra or []))
    if target is not None:
        Path(target).write_text(done.out, encoding="utf-8")
    return done


@pytest.mark.parametrize("document", DOCUMENTS)
def test_what_a_document_shows_works(document: str) -> None:
    """In order and in one folder: commands, the files that they read, what they print, and Python."""
    printed = ""
    for number, block in enumerate(blocks(document)):
        match block.language:
            case "sh":
                for command in commands(block):
                    if command.line in NOT_RUN or ON_MNIST.search(command.line) or ON_PHOTOS.search(command.line):
                        continue
                    done = run(command.line)
                    assert done.code == command.code, (command.line, done)
                    printed = done.err + done.out
            case "text":
                assert block.follows == "sh", "a text block shows what the commands right above it print"
                assert block.text == printed
            case "yaml" | "csv" if block.name:
                Path(block.name).write_text(block.text, encoding="utf-8")
            case "yaml":
                if re.search("^[^#]", block.text, re.MULTILINE):
                    parse_config(block.text, f"{document}, block {number}")
            case "json":
                json.loads(block.text)
            case "python":
                exec(compile(block.text, document, "exec"), {"__name__": "__main__"})
            case other:
                assert other == "", f"{document}: no test knows what to do with {other}"


def about(data: re.Pattern[str], document: str) -> list[Command]:
    """The commands of a document that are about that data."""
    every = [each for block in blocks(document) if block.language == "sh" for each in commands(block)]
    return [each for each in every if data.search(each.line)]


def run_smaller(found: list[Command]) -> None:
    for command in found:
        extra = SMALLER if command.line.startswith("mlpcli train") else None
        done = run(command.line, extra)
        assert done.code == command.code, (command.line, done)


@pytest.mark.parametrize("document", [name for name in DOCUMENTS if about(ON_MNIST, name)])
def test_commands_on_mnist_work(document: str, real_data: Path) -> None:
    Path("data").symlink_to(real_data)
    run_smaller(about(ON_MNIST, document))


@pytest.mark.parametrize("document", [name for name in DOCUMENTS if about(ON_PHOTOS, name)])
def test_commands_on_photos_work(document: str) -> None:
    write_folder(Path("data/cats-dogs"))
    run_smaller(about(ON_PHOTOS, document))


def test_what_is_not_run_is_still_in_the_documents() -> None:
    lines = {
        each.line
        for name in DOCUMENTS
        for block in blocks(name)
        if block.language == "sh"
        for each in commands(block)
    }
    assert set(NOT_RUN) <= lines


def test_a_model_is_used_without_mlpcli(capsys: pytest.CaptureFixture[str]) -> None:
    """The block of docs/runs.md gives the model that mlpcli means, and knows nothing of mlpcli."""
    (block,) = (block for block in blocks("docs/runs.md") if block.language == "python")
    assert "mlpcli" not in block.text
    succeeds("train", "digits", "model={width: [256, 128]}", "data.validation=0", "-q")
    correct = 0
    for split in ("train", "test"):
        confusion = succeeds("eval", "runs/digits", "--split", split, "--json").json["confusion"]
        correct += sum(row[index] for index, row in enumerate(confusion))
    names: dict[str, Any] = {}
    exec(compile(block.text, "docs/runs.md", "exec"), names)
    assert (names["predicted"].numpy() == names["digits"].target).sum() == correct
    assert f"{correct / len(names['predicted']):.3f}" in capsys.readouterr().out


def test_an_exported_table_answers_as_predict_does() -> None:
    """The table of docs/export.md, with a row of what is hard: missing, unknown, in capitals, with spaces."""
    every = list(blocks("docs/export.md"))
    table, config = (next(block for block in every if block.name == f"houses.{kind}") for kind in ("csv", "yaml"))
    (program,) = (block.text for block in every if "DictReader" in block.text)
    for block in (table, config):
        Path(block.name).write_text(block.text, encoding="utf-8")
    succeeds("train", "houses.yaml", "training.epochs=1", "-o", "runs/houses", "-q")
    succeeds("export", "runs/houses", "-o", "houses.onnx")
    Path("houses.csv").write_text(table.text + "?, castle ,TRUE,\n", encoding="utf-8")
    lines = succeeds("predict", "runs/houses", "houses.csv").out.splitlines()
    expected = [float(line.split(",")[-1]) for line in lines[1:]]
    names: dict[str, Any] = {}
    exec(compile(program, "docs/export.md", "exec"), names)
    assert len(expected) == 9
    assert names["values"][:, 0].tolist() == pytest.approx(expected, rel=1e-5)


# --- what is named exists -------------------------------------------------------------------------------


@cache
def options() -> dict[str, set[str]]:
    """The options of each command."""
    group: Any = get_command(app)
    inner = {f"autodiff {name}": command for name, command in group.commands["autodiff"].commands.items()}
    return {
        name: {option for parameter in command.params for option in parameter.opts} | {"--help", "-h"}
        for name, command in {"": group, **group.commands, **inner}.items()
    }


def unknown(line: str) -> list[str]:
    """The command or the options in `mlpcli …` that do not exist."""
    words = [word for word in shlex.split(line)[1:] if word != "…"]
    command = words.pop(0) if words and not words[0].startswith("-") else ""
    if command == "autodiff" and words and not words[0].startswith("-"):
        command += f" {words.pop(0)}"
    if command not in options():
        return [command]
    return [word for word in words if word.startswith("-") and word.partition("=")[0] not in options()[command]]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_command_and_option_exists(document: str) -> None:
    lines = [each.line for block in blocks(document) if block.language == "sh" for each in commands(block)]
    every = set().union(*options().values())
    for line in [*lines, *spans(document)]:
        if line.split()[0] == "mlpcli":
            assert not unknown(line), line
        elif re.match(r"--?[a-z]", line):
            assert line.split()[0] in every, line


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_key_exists(document: str) -> None:
    tree = SchemaTree(config_schema())
    known = {path for paths in tree.homes.values() for path in paths}
    sections = "|".join(tree.root["properties"])
    for span in spans(document):
        key = re.fullmatch(rf"~?((?:{sections})\.[a-z_.]+)(?:=.*)?", span)
        if key and not key[1].endswith((".py", ".html", ".yaml")):
            assert key[1] in known, span


def test_every_module_is_in_the_architecture() -> None:
    text = text_of("docs/architecture.md")
    parts = re.split(r"^`(mlpcli/.*?)`", text.partition("## Who imports whom")[0], flags=re.MULTILINE)[1:]
    listed = {
        f"{folder}{module}"
        for folder, part in zip(parts[::2], parts[1::2], strict=True)
        for module in re.findall(r"^\| `(\S+\.py)` \|", part, re.MULTILINE)
    }
    found = {str(path.relative_to(ROOT)) for path in (ROOT / "mlpcli").rglob("*.py")}
    assert listed == found - {"mlpcli/__init__.py"}


def test_the_keys_that_may_change_on_resume_are_listed() -> None:
    assert all(f"`{key}`" in text_of("docs/runs.md") for key in resuming.MAY_CHANGE)


def anchors(document: Path) -> set[str]:
    """The anchors that a document's headings get."""
    prose = re.sub(r"^```.*?^```$", "", document.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.*)$", prose, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_somewhere(document: str) -> None:
    for text, target in re.findall(r"\[([^]]*)\]\(([^)\s]+)\)", text_of(document)):
        assert text and target != "#", "an empty link"
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        file = (ROOT / document).parent / path if path else ROOT / document
        assert file.is_file(), target
        assert not anchor or anchor in anchors(file), target


# --- what is written by scripts -------------------------------------------------------------------------


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_reference_of_the_config_is_up_to_date() -> None:
    text = text_of("docs/config.md")
    assert script("make_config_reference").updated(text) == text, "run: python docs/make_config_reference.py"


def mappings(tree: SchemaTree, schema: dict[str, Any], path: str) -> Iterator[str]:
    """The dotted path of every mapping in the schema."""
    for inner in tree.mappings(schema):
        yield path
        for key, value in inner["properties"].items():
            yield from mappings(tree, value, f"{path}.{key}")


def test_every_mapping_of_the_config_has_a_section() -> None:
    tree, text = SchemaTree(config_schema()), text_of("docs/config.md")
    paths = {path for key, schema in tree.root["properties"].items() for path in mappings(tree, schema, key)}
    assert {"data.features", "data.augmentation.elastic", "data.path", "model.numeric_embedding"} <= paths
    assert sorted(re.findall("^### (.*)$", text, re.MULTILINE)) == sorted(paths)
    assert all(f"[{path}](#{path.replace('.', '')})" in text for path in paths)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("width", "an integer ≥ 1 or a list of them"),
        ("threads", "`auto` or an integer ≥ 1 and ≤ 1,024"),
        ("in_memory", "`auto` or true or false"),
        ("class_weights", "`none`, `balanced` or a list of numbers ≥ 0"),
        ("path", "text or a mapping, see [data.path](#datapath)"),
        ("elastic", "a mapping, see [data.augmentation.elastic](#dataaugmentationelastic) or `null`"),
        ("loss", "a name or a mapping, see [loss](#loss) or `null`"),
    ],
)
def test_the_reference_of_the_config_lists_all_alternatives(key: str, value: str) -> None:
    rows = [line for line in text_of("docs/config.md").splitlines() if line.startswith(f"| `{key}` |")]
    assert any(f"| {value} |" in row for row in rows)


def test_the_picture_shows_what_is_printed() -> None:
    """Its errors are compared in full; of the training, whose times differ, that it is one."""
    picture = script("make_picture")
    again = "run: python docs/make_picture.py"
    svg = picture.FILE.read_text(encoding="utf-8")
    Path("wrong.yaml").write_text(picture.WRONG, encoding="utf-8")
    shown = picture.texts(svg)
    assert {picture.CHECK, picture.TRAIN, picture.EVAL} <= set(shown), again
    start = shown.index(picture.CHECK) + 1
    expected = [line.strip() for line in run(picture.CHECK).err.splitlines()]
    assert shown[start : start + len(expected)] == expected, again
    epochs = parse_config((ROOT / "configs/digits.yaml").read_text(encoding="utf-8"), "digits").training.epochs
    assert any(line.startswith(f"epoch {epochs}/{epochs}  train loss ") for line in shown), again


def test_the_picture_is_small_and_needs_no_network() -> None:
    svg = text_of("docs/terminal.svg")
    assert len(svg.encode()) < 100_000
    assert "@font-face" not in svg and "@import" not in svg
    assert not re.search(r"(?:href|src)=|url\((?!#)", svg)


# --- what must not be written ---------------------------------------------------------------------------

REGISTRIES = [".".join(words) for words in (("pypi", "org"), ("npmjs", "org"), ("deb", "debian", "org"))]
REGISTRIES.append("python" + "hosted.org")


def test_no_file_names_the_host_of_a_package_registry() -> None:
    for name in project_files(ROOT):
        path = ROOT / name
        content = path.read_bytes() if path.is_file() else b""
        assert not [host for host in REGISTRIES if host.encode() in content], name
