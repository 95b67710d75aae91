"""Curves in text: heights that can be checked by hand, and tables that fit a terminal."""

import math

import pytest

from mlpcli.sparkline import ASCII, BLOCKS, WIDTH, encodable, losses, sparkline


def test_heights() -> None:
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7], 0, 7) == BLOCKS
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7], 0, 7, ASCII) == ASCII
    assert sparkline([7, 0], 0, 7) == "█▁"
    assert sparkline([3, 3, 3], 3, 3) == "▁▁▁"
    assert sparkline([1, 2], 0, 16) == "▁▂"  # not stretched: the scale is given


def test_many_values_are_averaged_in_equal_shares() -> None:
    assert sparkline([0, 0, 8, 8, 4, 4], 0, 8, width=3) == "▁█▅"
    assert len(sparkline([float(k) for k in range(1000)], 0, 999)) == WIDTH
    assert sparkline([float(k) for k in range(1000)], 0, 999)[::25] == "▁█"


def line(epoch: int, train: float, validation: float | None = None) -> dict[str, object]:
    plain = {"epoch": epoch, "train": {"loss": train}}
    return plain if validation is None else plain | {"validation": {"loss": validation}}


def test_first_best_and_last_on_a_logarithmic_scale() -> None:
    text = losses([line(1, 100.0, 0.9), line(2, 10.0, 0.01), line(3, 2.0, 0.1)], unicode=True)
    assert text is not None
    assert [row.split() for row in text.splitlines()] == [
        ["loss", "log", "scale", "first", "best", "at", "epoch", "last"],
        ["train", "█▆▅", "100.0000", "2.0000", "3", "2.0000"],  # of four decades
        ["validation", "▄▁▃", "0.9000", "0.0100", "2", "0.1000"],
    ]


def test_a_loss_of_zero_is_shown_on_a_linear_scale() -> None:
    text = losses([line(1, 8.0), line(2, 4.0), line(3, 0.0)], unicode=False)
    assert text is not None and "linear scale" in text and text.splitlines()[1].split()[1] == "#+_"


@pytest.mark.parametrize("lines", [[], [line(1, 1.0, 1.0)], [{"epoch": 1}, {"epoch": 2}]])
def test_there_is_no_curve_of_less_than_two_epochs(lines: list[dict[str, object]]) -> None:
    assert losses(lines, unicode=True) is None


def test_it_fits_eighty_columns() -> None:
    lines = [line(epoch, math.exp(700 - epoch / 2000), 1e-12 * epoch) for epoch in range(1, 1_000_000, 999)]
    for unicode in (True, False):
        text = losses(lines, unicode=unicode)
        assert text is not None and max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize(
    ("encoding", "can"),
    [
        (None, True),
        ("utf-8", True),
        ("UTF-16", True),
        ("ascii", False),
        ("latin-1", False),
        ("no such one", False),
    ],
)
def test_what_an_encoding_can_hold(encoding: str | None, can: bool) -> None:
    assert encodable(encoding) is can
