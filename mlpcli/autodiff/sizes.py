"""Lists of sizes as the command line has them: `784,512,512,10`."""

from mlpcli.errors import UsageError

MOST = 10**9
"""The largest size, so that costs stay readable."""
MOST_FACTORS = 1000
"""Of a chain of Jacobians: the search for its best order is cubic."""
CHAIN = "list the sizes of the layers, inputs first: --jacobian 784,512,512,10"


def chain_sizes(text: str) -> list[int]:
    """n₀, …, n_L of `--jacobian`.

    Raises:
        UsageError: it is not a list of at least two whole numbers from 1, or too long.
    """
    sizes = _whole_numbers("--jacobian", text, CHAIN)
    if not 2 <= len(sizes) <= MOST_FACTORS + 1:
        raise UsageError(
            f"--jacobian lists {len(sizes):,} size{'s' if len(sizes) > 1 else ''}, but a chain of 1 to "
            f"{MOST_FACTORS:,} Jacobians has 2 to {MOST_FACTORS + 1:,}\n    {CHAIN}"
        )
    return sizes


def sweep_values(name: str, text: str) -> tuple[int, ...]:
    """The values of `--width`, `--depth` or `--inputs`.

    Raises:
        UsageError: it is not a list of at least two different whole numbers from 1.
    """
    remedy = f"list what to compare: --{name} 64,128,256"
    values = _whole_numbers(f"--{name}", text, remedy)
    twice = next((value for value in values if values.count(value) > 1), None)
    if twice is not None:
        raise UsageError(f"--{name}: {twice} is there twice\n    {remedy}")
    if len(values) < 2:
        raise UsageError(f"--{name}: 1 value has no exponent\n    {remedy}")
    return tuple(values)


def _whole_numbers(option: str, text: str, remedy: str) -> list[int]:
    words = [word.strip() for word in text.split(",")]
    for place, word in enumerate(words, 1):
        if not (word.isascii() and word.isdigit() and 1 <= int(word[:30]) <= MOST):
            shown = word if len(word) <= 40 else word[:40] + "…"
            raise UsageError(
                f"{option}: entry {place}, {shown!r}, is not a whole number from 1 to {MOST:,}\n    {remedy}"
            )
    return [int(word) for word in words]
