"""Programs of assignments, read with Python's `ast` into a graph; nothing of them is ever run as Python.

Equal expressions of the same nodes are one node. A name that is assigned again stands for its new value from there
on, and one that is read before it is assigned is an input. The leaf is what `out` stands for in the end, else what
was assigned last; a bare expression on the last line is assigned to `out`.
"""

import ast
import math
import re
import warnings
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from itertools import count, pairwise
from typing import NoReturn

from mlpcli.autodiff.graph import Graph, Node
from mlpcli.autodiff.operations import CONSTANTS, OPERATIONS
from mlpcli.autodiff.wide_sums import Signs, cut_sums
from mlpcli.config.text import Finding, Span, Text, quoted
from mlpcli.errors import ProgramError

BINARY: dict[type[ast.operator], str] = {
    ast.Add: "add",
    ast.Sub: "sub",
    ast.Mult: "mul",
    ast.Div: "div",
    ast.Pow: "pow",
}
FUNCTIONS = {operation.symbol: operation for operation in OPERATIONS.values() if operation.symbol.isalpha()}
OTHER_NAMES = {
    "ln": "log",
    "fabs": "abs",
    "logistic": "sigmoid",
    "maximum": "max",
    "minimum": "min",
    "arctan": "tan",
}
ADVICE: dict[type[ast.AST], str] = {
    ast.BitXor: "a power is written **",
    ast.FloorDiv: "a quotient is written /",
    ast.Attribute: "functions have no module before them: exp(x), not math.exp(x)",
}
ALLOWED = f"a program has numbers, names, + - * / ** ( ) and {' '.join(FUNCTIONS)}"
TOO_DEEP = "give parts of it names of their own: assignments may be as many as you like"
MOST_CHARACTERS, MOST_IN_A_LINE, LONGEST_NAME = 20_000_000, 1_000_000, 100
FEW = 5
"""Names that are listed in passing."""


@dataclass(frozen=True)
class Literal:
    """A constant, which becomes a node of its own for each operation that uses it."""

    name: str
    value: float


Operand = int | Literal
"""The position of a node, or a constant."""


def parse(text: str, filename: str, given: Collection[str] | None = None) -> Graph:
    """The graph of a program.

    Args:
        text: an expression, or a line for each assignment; names that are not assigned are inputs.
        filename: opens the place of each error.
        given: the inputs that have values; None does not ask.

    Raises:
        ProgramError: it cannot be read, with line, column and caret; or the inputs that it needs are not those
            that are given.
    """
    reader = _Reader(Text(filename, text))
    reader.read()
    if given is not None:
        reader.check_given(given)
    return reader.graph()


@dataclass
class _Reader:
    """Builds the nodes of a program, statement by statement.

    Attributes:
        text: the program.
        nodes: all of them; operations have no names yet.
        names: those that assignments give; the second one of a name x is `x.2`.
        bound: what each name stands for now.
        inputs: where each input was first read: the line that its statement starts on, and the place in there.
        known: each operation of certain operands, and its node.
        signs: where a sum was cut to be read, and at which sign; see `wide_sums`.
        versions: how many values each name has had.
        line: line that the statement being read starts on, from 0.
        last: the name that was assigned last.
        bare: the line and the place of a bare expression.
    """

    text: Text
    nodes: list[Node] = field(default_factory=list)
    names: dict[int, str] = field(default_factory=dict)
    bound: dict[str, int] = field(default_factory=dict)
    inputs: dict[str, tuple[int, ast.AST]] = field(default_factory=dict)
    known: dict[tuple[str, tuple[Operand, ...]], int] = field(default_factory=dict)
    versions: dict[str, int] = field(default_factory=dict)
    signs: Signs | None = None
    line: int = 0
    last: str = ""
    bare: tuple[int, ast.AST] | None = None

    # --- statements -----------------------------------------------------------------------------------------

    def read(self) -> None:
        if len(self.text.content) > MOST_CHARACTERS:
            raise ProgramError(f"{self.text.name}: the program has more than {MOST_CHARACTERS:,} characters")
        for line, source in self._statements():
            self.line = line
            for statement in self._parsed(source):
                if self.bare is not None:
                    self.line, place = self.bare
                    self._fail(place, "this value has no name", "only the last line may be a bare expression")
                self._read(statement)
        if not self.last:
            raise ProgramError(
                f"{self.text.name}: the program is empty\n    write an expression, or NAME = EXPRESSION"
            )

    def _statements(self) -> Iterator[tuple[int, str]]:
        """Lines, and lines up to a closing bracket; one by one, since `ast` takes 300 times their size."""
        starts = [*self.text.line_starts, len(self.text.content)]
        first = depth = 0
        for line, (start, end) in enumerate(pairwise(starts)):
            code = self.text.content[start:end].partition("#")[0].rstrip("\r\n")
            depth += sum(map(code.count, "([{")) - sum(map(code.count, ")]}"))
            if (depth <= 0 and not code.endswith("\\")) or end == starts[-1]:
                if end - starts[first] >= MOST_IN_A_LINE:
                    where = f"{self.text.name}:{first + 1}:1"
                    raise ProgramError(f"{where}: {MOST_IN_A_LINE:,} characters or more at once\n    {TOO_DEEP}")
                yield first, self.text.content[starts[first] : end]
                first, depth = line + 1, 0

    def _parsed(self, source: str) -> list[ast.stmt]:
        self.signs = None
        try:
            return _ast(source)
        except (RecursionError, MemoryError):
            pass
        except SyntaxError as error:
            self._fail_syntax(error)
        try:
            flat, self.signs = cut_sums(source)
            return _ast(flat)
        except (RecursionError, MemoryError, SyntaxError):
            place = ast.Pass(lineno=1, col_offset=0, end_lineno=1, end_col_offset=1)
            self._fail(place, "this is nested too deeply to be read", TOO_DEEP)

    def _read(self, statement: ast.stmt) -> None:
        match statement:
            case ast.Assign(targets=targets, value=expression):
                value = self._evaluate([expression])
                for target in targets:
                    self._bind(target, value)
            case ast.AugAssign(target=target, op=operator, value=expression):
                if not isinstance(target, ast.Name):
                    self._fail(target, "only a name can be assigned")
                self._bind(target, self._evaluate([target, expression, self._binary(statement, operator)]))
            case ast.Expr(value=expression):
                self.bare = self.line, expression
                self._bind(ast.Name("out"), self._evaluate([expression]))
            case _:
                self._fail(statement, "only assignments are allowed here", "write NAME = EXPRESSION")

    def _bind(self, target: ast.AST, value: Operand) -> None:
        if not isinstance(target, ast.Name):
            self._fail(target, "only a name can be assigned")
        name = target.id
        if name in FUNCTIONS:
            self._fail(target, f"{name} is a function, so nothing else can have its name")
        self._check_length(target)
        if isinstance(value, Literal):
            value = self._append("constant", (), value.value)
        self.bound[name] = value
        self.last = name
        if value not in self.names and self.nodes[value].operation != "input":
            self.versions[name] = self.versions.get(name, int(name in self.inputs)) + 1
            version = self.versions[name]
            self.names[value] = name if version == 1 else f"{name}.{version}"

    # --- expressions ----------------------------------------------------------------------------------------

    def _evaluate(self, postfix: Sequence[ast.AST | str]) -> Operand:
        """The value of expressions and, after their operands, names of operations; without recursion."""
        todo, done = list(reversed(postfix)), list[Operand]()
        while todo:
            each = todo.pop()
            match each:
                case str():
                    arity = OPERATIONS[each].arity
                    operands = tuple(done[-arity:])
                    done[-arity:] = [self._operation(each, operands)]
                case ast.BinOp(left=left, op=operator, right=right):
                    todo += [self._binary(each, operator), right, left]
                case ast.UnaryOp(op=ast.UAdd(), operand=operand):
                    todo.append(operand)
                case ast.UnaryOp(op=ast.USub(), operand=ast.Constant() as constant):
                    done.append(self._constant(constant, -1))
                case ast.UnaryOp(op=ast.USub(), operand=operand):
                    todo += ["neg", operand]
                case ast.Constant():
                    done.append(self._constant(each))
                case ast.Name():
                    done.append(self._look_up(each))
                case ast.Call():
                    todo += reversed(self._call(each))
                case ast.Tuple(elts=elements) if self.signs is not None:
                    (run,) = self.signs.runs(elements)
                    todo += reversed(run)
                case _:
                    self._refuse(each, each)
        (value,) = done
        return value

    def _binary(self, whole: ast.AST, operator: ast.operator) -> str:
        if type(operator) not in BINARY:
            self._refuse(whole, operator)
        return BINARY[type(operator)]

    def _call(self, call: ast.Call) -> list[ast.AST | str]:
        """Its arguments and then its operation; `max` of k arguments is k - 1 operations."""
        if not isinstance(call.func, ast.Name):
            if isinstance(call.func, ast.Attribute):
                self._refuse(call.func, call.func)
            self._fail(call.func, "only a function can be called", "a product is written with *, as in 2*(x + 1)")
        name = call.func.id
        if name not in FUNCTIONS:
            close = OTHER_NAMES.get(name) or close_to(name, FUNCTIONS)
            hint = f"did you mean {close}?" if close else f"the functions are {', '.join(FUNCTIONS)}"
            if name in self.bound or name in self.inputs or name in CONSTANTS:
                hint = f"a product is written with *, as in {name}*(...)"
            self._fail(call.func, f"{quoted(name)} is not a function", hint)
        arity = FUNCTIONS[name].arity
        runs = self.signs.runs(call.args) if self.signs is not None else [[each] for each in call.args]
        if call.keywords:
            self._fail(call.keywords[0], "an argument has no name here", f"write {name}(x)")
        if len(runs) != 1 if arity == 1 else len(runs) < 2:
            wanted = "one argument" if arity == 1 else "at least two arguments"
            self._fail(call, f"{name} takes {wanted}, but it is given {len(runs)}")
        if arity == 1:
            return [*runs[0], name]
        return [*runs[0], *(each for run in runs[1:] for each in (*run, name))]

    def _constant(self, constant: ast.Constant, sign: int = 1) -> Literal:
        if type(constant.value) not in (int, float):
            self._refuse(constant, constant)
        try:
            value = sign * float(constant.value)  # type: ignore[arg-type]  # checked above
        except OverflowError:
            value = math.inf
        if math.isinf(value):
            self._fail(constant, "this number is too large for a float64")
        return Literal(repr(value).removesuffix(".0"), value)

    def _look_up(self, name: ast.Name) -> Operand:
        if name.id in self.bound:
            return self.bound[name.id]
        if name.id in CONSTANTS:
            return Literal(name.id, CONSTANTS[name.id])
        if name.id in FUNCTIONS:
            self._fail(name, f"{name.id} is a function", f"give it an argument: {name.id}(x)")
        self._check_length(name)
        self.inputs[name.id] = self.line, name
        self.bound[name.id] = self._append("input", name=name.id)
        return self.bound[name.id]

    def _operation(self, operation: str, operands: tuple[Operand, ...]) -> int:
        """The node of an operation, which is the earlier one where there is one already."""
        key = operation, operands
        if key not in self.known:
            self.known[key] = self._append(operation, tuple([self._root(operand) for operand in operands]))
        return self.known[key]

    def _root(self, operand: Operand) -> int:
        if isinstance(operand, int):
            return operand
        return self._append("constant", (), operand.value, operand.name)

    def _append(
        self, operation: str, parents: tuple[int, ...] = (), constant: float | None = None, name: str = ""
    ) -> int:
        self.nodes.append(Node(name, operation, parents, constant))
        return len(self.nodes) - 1

    # --- the graph ------------------------------------------------------------------------------------------

    def graph(self) -> Graph:
        """What leads to the leaf, inputs first; nodes without a name become z1, z2, ..."""
        leaf = self._leaf()
        needed = self._needed()
        order = sorted(needed, key=lambda i: (self.nodes[i].operation != "input", i))
        new = {old: position for position, old in enumerate(order)}
        taken = {*self.bound, *self.inputs}
        free = (name for name in map("z{}".format, count(1)) if name not in taken)
        nodes = []
        for i in order:
            node = self.nodes[i]
            name = self.names.get(i) or node.name or next(free)
            nodes.append(Node(name, node.operation, tuple([new[p] for p in node.parents]), node.constant))
        return Graph(nodes, new[leaf], self._notes(needed))

    def _leaf(self) -> int:
        name = "out" if "out" in self.bound and "out" not in self.inputs else self.last
        return self.bound[name]

    def _needed(self) -> list[int]:
        """The leaf and its ancestors, in order."""
        leaf = self._leaf()
        is_needed = [False] * len(self.nodes)
        is_needed[leaf] = True
        for i in range(leaf, -1, -1):
            if is_needed[i]:
                for parent in self.nodes[i].parents:
                    is_needed[parent] = True
        return [i for i, needed in enumerate(is_needed) if needed]

    def _notes(self, needed: Collection[int]) -> list[str]:
        kept = {self.names.get(i, self.nodes[i].name) for i in needed}
        unused = [name for name in (*self.inputs, *self.names.values()) if name not in kept]
        if not unused:
            return []
        return [f"left out, since the leaf does not need it: {_listed(unused)}"]

    def check_given(self, given: Collection[str]) -> None:
        """Raises ProgramError unless the inputs that the leaf needs, and no other names, are given."""
        needed = {self.nodes[i].name for i in self._needed() if self.nodes[i].operation == "input"}
        missing = [name for name in self.inputs if name in needed and name not in given]
        if missing:
            known = [*given, *(name for name in self.bound if name not in missing), *CONSTANTS]
            close = close_to(missing[0], known)
            hint = (
                f"did you mean {close}?"
                if close
                else "add " + " ".join(f"--at {name}=…" for name in missing[:FEW])
            )
            self.line, place = self.inputs[missing[0]]
            self._fail(place, f"no value is given for {_listed(missing)}", hint)
        for name in given:
            if name in self.inputs:
                continue
            close = close_to(name, self.inputs)
            hint = f"did you mean {close}?" if close else f"its inputs: {_listed(list(self.inputs)) or 'none'}"
            if name in self.bound:
                hint = "the program assigns it"
            elif name in CONSTANTS:
                hint = f"{name} is the constant {CONSTANTS[name]:.6f}: name the input otherwise"
            raise ProgramError(f"--at {name}: the program has no such input\n    {hint}")

    # --- errors ---------------------------------------------------------------------------------------------

    def _check_length(self, name: ast.Name) -> None:
        if len(name.id) > LONGEST_NAME:
            self._fail(name, f"this name has more than {LONGEST_NAME} characters")

    def _refuse(self, whole: ast.AST, what: ast.AST) -> NoReturn:
        span = self._span(whole)
        shown = quoted(self.text.content[span.start : span.end])
        self._fail(whole, f"{shown} is none of the allowed operations", ADVICE.get(type(what), ALLOWED))

    def _fail_syntax(self, error: SyntaxError) -> NoReturn:
        line = min(self.line + (error.lineno or 1), len(self.text.line_starts))
        start = self.text.line_starts[line - 1] + max(0, (error.offset or 1) - 1)
        message = re.split(r"[.:;] (?:Maybe|Perhaps|value has|Did)|, perhaps", error.msg)[0].rstrip("?")
        hint = ""
        if "too many nested" in message:
            message, hint = "this is nested too deeply to be read", TOO_DEEP
        elif "integer string conversion" in message:
            message = "this number is too large for a float64"
        elif "indented block" in message:
            message, hint = "only assignments are allowed here", "write NAME = EXPRESSION"
        elif "decimal literal" in message:
            hint = "a product is written with *, as in 2*x"
        else:
            message = f"syntax error: {message.removeprefix('invalid syntax')}".removesuffix(": ")
        raise ProgramError(str(Finding(Span(self.text, start, start + 1), message, hint).problem()))

    def _fail(self, place: ast.AST, message: str, hint: str = "") -> NoReturn:
        raise ProgramError(str(Finding(self._span(place), message, hint).problem()))

    def _span(self, place: ast.AST) -> Span:
        """Where it stands; `ast` counts bytes of UTF-8 within a line of the statement."""

        def offset(line: int, column: int) -> int:
            start = self.text.line_starts[self.line + line - 1]
            before = self.text.content[start : start + column].encode()[:column]
            return start + len(before.decode(errors="ignore"))

        start = offset(place.lineno, place.col_offset)  # type: ignore[attr-defined]  # all that come have places
        end = offset(place.end_lineno, place.end_col_offset)  # type: ignore[attr-defined]  # likewise
        return Span(self.text, start, max(end, start + 1))


def _ast(source: str) -> list[ast.stmt]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return ast.parse(source).body
        except ValueError as error:  # a NUL, half of a surrogate pair
            raise SyntaxError(str(error), ("", 1, 1, "")) from None


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:FEW]) + (f" and {len(names) - FEW} more" if len(names) > FEW else "")


def close_to(name: str, known: Collection[str]) -> str:
    """The one of the known names that was meant, or an empty string."""
    few = list(known)[:1000] if len(name) <= LONGEST_NAME else []
    same = [each for each in few if each.lower() == name.lower()]
    return next(iter(same or get_close_matches(name, few, n=1)), "")
