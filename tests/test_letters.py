"""What a PNG can write."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlpcli.letters import plain


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("predicted − true", "predicted - true"),
        ("∂loss/∂weights, 2×", "dloss/dweights, 2x"),
        ("Ångström, naïve café", "Angstrom, naive cafe"),
        ("αΣ", "alphaSigma"),
        ("a · b…", "a · b…"),
        ("漢\n\x07", "???"),
    ],
)
def test_letters_that_the_font_lacks_are_written_with_those_that_it_has(text: str, written: str) -> None:
    assert plain(text) == written


@given(st.text())
def test_any_text_becomes_letters_of_the_font(text: str) -> None:
    assert all((letter.isascii() and letter.isprintable()) or letter in "·…" for letter in plain(text))
    assert plain(plain(text)) == plain(text)
