"""One seed in the config, many independent random streams."""

from hashlib import sha256


def stream_seed(seed: int, stream: str) -> int:
    """The seed of one named random stream: 63 bits, from the SHA-256 of `seed` and `stream`.

    Every use of randomness has a stream of its own ('split', 'init', 'shuffle', 'dropout'), so that changing
    how much one of them draws leaves the others as they were. Streams nest: the seed of a stream is itself a
    seed, as in `stream_seed(stream_seed(seed, "split"), "validation")`.
    """
    return int.from_bytes(sha256(f"{seed}/{stream}".encode()).digest()[:8]) >> 1
