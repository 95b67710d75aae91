"""Text in the letters that Pillow's own font has."""

import unicodedata

LIKE = {"−": "-", "–": "-", "—": "-", "×": "x", "∞": "inf", "∂": "d", "’": "'", "‘": "'", "“": '"', "”": '"'}


def plain(text: str) -> str:
    """`text` without accents, Greek letters by their names, and what has no letter like it as ?."""
    return "".join(_letters(letter) for letter in text)


def _letters(letter: str) -> str:
    if (letter.isascii() and letter.isprintable()) or letter in "·…":
        return letter
    if letter in LIKE:
        return LIKE[letter]
    apart = unicodedata.normalize("NFKD", letter)
    if apart != letter:
        return plain(apart)
    if unicodedata.combining(letter):
        return ""
    name = unicodedata.name(letter, "")
    if name.startswith("GREEK"):
        word = name.rpartition(" LETTER ")[2].partition(" ")[0]
        return word.title() if "CAPITAL" in name else word.lower()
    return "?"
