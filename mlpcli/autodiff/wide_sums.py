"""Sums of any number of terms in one expression, which `ast` refuses as they are."""

import ast
import re
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

TOKEN = re.compile(rb"#[^\r\n]*|(?:\d[\d_]*\.?|\.\d)[\d_]*(?:[eE][+-]?\d+)?|[\w\x80-\xff]+|\*\*|[-+*/]=|[^\s\\]")
OPERAND_ENDS = re.compile(rb"[\w\x80-\xff.)]")


@dataclass(frozen=True)
class Signs:
    """The `+`, `-` and `,` between operands, which all became commas: their offsets in bytes, and what they were.

    Attributes:
        line_starts: offset of each line.
        offsets: of the signs, ascending.
        were: the signs.
    """

    line_starts: list[int]
    offsets: list[int]
    were: list[str]

    def runs(self, elements: Sequence[ast.expr]) -> list[list[ast.AST | str]]:
        """The sums between real commas, each as its terms with `add` or `sub` after the second and later ones."""
        runs: list[list[ast.AST | str]] = [[each] for each in elements[:1]]
        for before, element in pairwise(elements):
            assert before.end_lineno is not None and before.end_col_offset is not None
            end = self.line_starts[before.end_lineno - 1] + before.end_col_offset
            was = self.were[bisect_left(self.offsets, end)]
            if was == ",":
                runs.append([element])
            else:
                runs[-1] += [element, "add" if was == "+" else "sub"]
        return runs


def cut_sums(source: str) -> tuple[str, Signs]:
    """The source with a comma for each binary + and -, which lays out a sum of any length flat for `ast`.

    To `ast`, x + x + … is as deep as it has terms, and refused at some thousands. A sum binds weaker than all that
    is allowed beside it, so x, x, … has the same terms in the same places.
    """
    text = source.encode()
    flat = bytearray(text)
    offsets, were = [], []
    after_operand = False
    for found in TOKEN.finditer(text):
        token = found[0]
        if token.startswith(b"#"):
            continue
        if token == b"," or (token in (b"+", b"-") and after_operand):
            offsets.append(found.start())
            were.append(token.decode())
            flat[found.start()] = ord(",")
        after_operand = OPERAND_ENDS.match(token[-1:]) is not None
    starts = [0, *(end.end() for end in re.finditer(rb"\r\n|\r|\n", text))]
    return flat.decode(), Signs(starts, offsets, were)
