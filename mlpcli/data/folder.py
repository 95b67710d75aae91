"""Your own images: a folder for each class, decoded once, in parallel, into one array a split."""

import json
import logging
import os
import stat
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mlpcli.config.data_schema import ImageFolderData
from mlpcli.config.expected import did_you_mean
from mlpcli.data import cache
from mlpcli.data.dataset import Source
from mlpcli.data.files import absolute, exists, unreadable
from mlpcli.data.workers import for_each
from mlpcli.errors import DataError, StorageError

ENDINGS = (
    ".jpg",
    ".jpeg",
    ".jpe",
    ".jfif",
    ".png",
    ".webp",
    ".gif",
    ".bmp",
    ".dib",
    ".tif",
    ".tiff",
    ".ppm",
    ".pgm",
    ".pbm",
    ".pnm",
)
"""Of the names of image files, in lower case."""
JUNK = {"thumbs.db", "desktop.ini", "__macosx"}
"""What systems leave in folders, in lower case; so is everything whose name starts with a dot."""
SPLITS: tuple[Literal["train", "validation", "test"], ...] = ("train", "validation", "test")
MISNAMED = {"training": "train", "val": "validation", "valid": "validation", "testing": "test"}
"""What others call these folders."""
DECODING = 1
"""Another number where `images.decode` gives other pixels."""
PIECE = 64
"""Images that a worker process takes at a time."""
SHOWN = 10
"""Files that a message names; how many there are it says too."""

log = logging.getLogger("mlpcli")


@dataclass
class Listing:
    """The files of a split, in the order of the classes and below that in torchvision's: by folder, then by name.

    Attributes:
        folder: of the split.
        classes: the names of its class folders, sorted.
        files: the path of each file and the index of its class in `classes`.
        stray: images beside the class folders.
        stats: what changes with any of them.
    """

    folder: Path
    classes: list[str]
    files: list[tuple[str, int]] = field(default_factory=list)
    stray: list[str] = field(default_factory=list)
    stats: list[str] = field(default_factory=list)


def read(section: ImageFolderData) -> Source:
    """The images of the folder `data.path`: uint8 (samples, channels * height * width), mapped from the cache.

    The classes are the sorted names of the class folders of the training data. Folders within a class folder count
    for its class. What starts with a dot, and what systems leave in folders, is ignored. A bad file is one in a
    class folder that is no image or a damaged one, or an image beside the class folders. Those that are left out
    are named in a warning, also when the rest comes from the cache.

    Raises:
        DataError: the folders are not as `data.path` is described, there are bad files and `data.on_bad_file` is
            `error`, or all files of a class or a split are bad.
        FailedError: a worker process died.
        StorageError: there is room for the pixels neither in the cache nor in the temporary folder.
    """
    root = absolute(section.path)
    listings = {split: _list(folder) for split, folder in _splits(root).items()}
    classes = listings["train"].classes
    _check(listings)
    digest = sha256()
    for split, listing in listings.items():
        digest.update(os.fsencode("\n".join([split, *listing.classes, *listing.stats, ""])))
    try:
        entry = cache.stored(
            "image_folder",
            [str(root), section.input_shape],
            [digest.hexdigest(), DECODING, f"Pillow {version('pillow')}"],
            lambda new: _decode(new, listings, section),
        )
    except OSError as error:
        size = sum(len(listing.files) for listing in listings.values()) * int(np.prod(section.input_shape))
        raise StorageError(
            f"data.path: the decoded images take {size / 1e6:,.0f} MB, which can be stored neither in the cache "
            f"({cache.folder()}) nor in {tempfile.gettempdir()}: {error.strerror or error}\n"
            "  Name a folder that has room: MLPCLI_CACHE=FOLDER"
        ) from error
    if entry.problem:
        log.warning(
            "the decoded images are not kept in the cache (%s: %s), so that they are decoded again next time\n"
            "    name another folder for it: MLPCLI_CACHE=FOLDER",
            cache.folder(),
            entry.problem,
        )
    bad = entry.value["bad"]
    if bad and section.on_bad_file == "error":
        raise _bad_files(root, bad, listings, skipped=False)
    if bad:
        log.warning("%s", _listed(f"{root}: {_count(bad, listings)} are left out:", bad))
        for line in bad[SHOWN:]:
            log.debug("  %s", line)
    for split, listing in listings.items():
        counts = np.bincount(entry.arrays[f"{split}-targets"], minlength=len(classes))
        absent = [name for name, count in zip(classes, counts, strict=True) if not count]
        if absent:
            log.warning("%s: no images of %s", listing.folder, _names(absent))
    return cache.source_of(entry)


# --- what is there --------------------------------------------------------------------------------------------


def _splits(root: Path) -> dict[str, Path]:
    """The folder that holds the class folders of each split; training first."""
    if not exists(root):
        beside = [each.name for each in _scan(root.parent) if _is_folder(each)] if root.parent.is_dir() else []
        hint = did_you_mean(root.name, beside) or "expected a folder that holds a folder of images for each class"
        raise DataError(f"data.path: {root}: no such folder\n  {hint[0].upper()}{hint[1:]}")
    if not root.is_dir():
        raise DataError(f"data.path: {root} is a file; expected a folder that holds a folder for each class")
    names = [each.name for each in _scan(root) if _is_folder(each)]
    layout = "expected train/ and perhaps validation/ and test/, or a folder for each class"
    meant = {name: MISNAMED.get(name.lower(), name.lower()) for name in names}
    like_splits = {name: split for name, split in meant.items() if split in SPLITS}
    if "train" in like_splits.values() and len(like_splits) > 1:
        for name, split in like_splits.items():
            if split not in names:
                raise DataError(f"data.path: {root / name}: {layout}\n  Rename it to {split}")
    if "train" in names:
        ignored = [name for name in names if name not in SPLITS]
        if ignored:
            log.warning("%s: only train, validation and test are read, not %s", root, _names(ignored))
        return {split: root / split for split in SPLITS if split in names}
    if any(name in SPLITS for name in names):
        there = next(name for name in names if name in SPLITS)
        raise DataError(f"data.path: {root} has {there}/, but no train/; {layout}")
    return {"train": root}


def _list(folder: Path) -> Listing:
    """Everything in the class folders of `folder`."""
    entries = _scan(folder)
    listing = Listing(folder, sorted(each.name for each in entries if _is_folder(each)))
    for entry in entries:
        if not _is_folder(entry) and _ending(entry.name) in ENDINGS:
            listing.stray.append(entry.path)
    for label, name in enumerate(listing.classes):
        found = sorted(_walk(folder / name, ()), key=lambda each: (os.path.dirname(each[0]), each[0]))
        listing.files += [(path, label) for path, _ in found]
        listing.stats += [f"{path}\0{stats}" for path, stats in found]
    listing.stats += listing.stray
    return listing


def images_below(folder: Path) -> list[Path]:
    """The files in a folder and those within it that end as images do, by folder, then by name.

    Raises:
        DataError: a folder cannot be read.
    """
    found = (path for path, _ in _walk(folder, ()) if _ending(path) in ENDINGS)
    return [Path(path) for path in sorted(found, key=lambda each: (os.path.dirname(each), each))]


def _walk(folder: Path | str, above: tuple[tuple[int, int], ...]) -> Iterator[tuple[str, str]]:
    """Path, and size and times as a text, of all files in `folder` and the folders within it."""
    try:
        here = os.stat(folder)
    except OSError as error:
        raise unreadable(Path(folder), error) from error
    above = *above, (here.st_dev, here.st_ino)
    for entry in _scan(folder):
        try:
            # The time of the last change of an inode is the one that nobody can set back.
            stats = entry.stat()
            if entry.is_dir() and (stats.st_dev, stats.st_ino) not in above:
                yield from _walk(entry.path, above)
                continue
            yield entry.path, f"{stats.st_size} {stats.st_mtime_ns} {stats.st_ctime_ns}"
        except OSError as error:  # a link to nowhere, for example
            yield entry.path, str(error.strerror)


def _scan(folder: Path | str) -> list["os.DirEntry[str]"]:
    """What is in a folder, apart from hidden files and junk."""
    try:
        with os.scandir(folder) as entries:
            return [each for each in entries if each.name[0] != "." and each.name.lower() not in JUNK]
    except OSError as error:
        raise unreadable(Path(folder), error) from error


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _ending(path: str) -> str:
    return os.path.splitext(path)[1].lower()


def _check(listings: dict[str, Listing]) -> None:
    """Refuses folders that are not what they should be."""
    train, *others = listings.values()
    classes = train.classes
    if not classes:
        beside = f", but {len(train.stray)} images lie directly in it" if train.stray else ""
        raise DataError(
            f"data.path: {train.folder} holds no folders{beside}\n  Expected a folder of images for each class"
        )
    if len(classes) == 1:
        raise DataError(f"data.path: {train.folder} holds one class folder, {classes[0]}; expected two or more")
    by_lower: dict[str, str] = {}
    for name in classes:
        other = by_lower.setdefault(name.lower(), name)
        if other != name:
            raise DataError(
                f"data.path: {train.folder}: the class folders {other} and {name} differ only in case\n"
                "  Merge them, or rename one"
            )
    full = {label for _, label in train.files}
    empty = [name for label, name in enumerate(classes) if label not in full]
    if empty:
        folders = [str(train.folder / name) for name in empty]
        title = f"data.path: {len(empty)} of {len(classes)} class folders are empty; fill or remove them:"
        raise DataError(_listed(title, folders))
    labels = {name: label for label, name in enumerate(classes)}
    for listing in others:
        for name in listing.classes:
            if name not in labels:
                hint = did_you_mean(name, classes) or f"its classes are {_names(classes)}"
                raise DataError(
                    f"data.path: {listing.folder / name}: {train.folder} has no class of that name\n"
                    f"  {hint[0].upper()}{hint[1:]}"
                )
        # as the training folder numbers them
        places = [labels[name] for name in listing.classes]
        listing.files = [(path, places[label]) for path, label in listing.files]
        if not listing.files:
            raise DataError(f"data.path: {listing.folder} holds no images; remove it, or fill it")


# --- decoding -------------------------------------------------------------------------------------------------


def _decode(new: Path, listings: dict[str, Listing], section: ImageFolderData) -> dict[str, Any]:
    """Writes pixels and targets of all splits into the folder `new`; returns what a source has besides those."""
    from mlpcli.data import images  # Pillow, which a warm start does without

    shape = section.input_shape
    features = int(np.prod(shape))
    arrays = {
        name: cache.reserve(new / f"{name}-inputs.npy", np.uint8, (len(each.files), features))
        for name, each in listings.items()
    }
    pieces = [(name, at) for name, each in listings.items() for at in range(0, len(each.files), PIECE)]

    def work(piece: int) -> None:
        name, start = pieces[piece]
        bad = []
        for row, (path, _) in enumerate(listings[name].files[start : start + PIECE], start):
            reason = _no_image(path)
            try:
                if reason is None:
                    arrays[name][row] = images.decode(Path(path), shape).reshape(-1)
                    continue
            except DataError as error:
                reason = str(error)
            bad.append((row, reason))
        if bad:
            (new / f"{piece}.bad").write_text(json.dumps(bad))

    for_each(len(pieces), work, "decoding images")
    bad = [f"{path}: in no class folder" for each in listings.values() for path in each.stray]
    rows: dict[str, list[int]] = {name: [] for name in listings}
    for piece, (name, _) in enumerate(pieces):
        with suppress(FileNotFoundError):
            for row, reason in json.loads((new / f"{piece}.bad").read_bytes()):
                rows[name].append(row)
                bad.append(reason)
            (new / f"{piece}.bad").unlink()
    for name, listing in listings.items():
        targets = np.delete(np.array([label for _, label in listing.files], dtype=np.int64), rows[name])
        if len(set(targets.tolist())) < (len(listing.classes) if name == "train" else 1):
            # an error either way: skipping them would leave nothing of a class
            raise _bad_files(listing.folder, bad, listings, section.on_bad_file == "skip")
        np.save(new / f"{name}-targets.npy", targets)
        if rows[name]:
            _leave_out(new / f"{name}-inputs.npy", arrays[name], rows[name])
    return {"classes": listings["train"].classes, "target_names": [], "columns": [], "bad": bad}


def _no_image(path: str) -> str | None:
    """Why there is no need to look into a file; None where there is."""
    try:
        found = os.stat(path)
    except OSError as error:
        return f"{path}: cannot be read: {'a link to nowhere' if os.path.islink(path) else error.strerror}"
    if stat.S_ISDIR(found.st_mode):
        return f"{path}: a link to a folder that it is in"
    if not stat.S_ISREG(found.st_mode):
        return f"{path}: not a file"
    if _ending(path) not in ENDINGS:
        return f"{path}: no image by its ending; expected {', '.join(ENDINGS)}"
    return None if found.st_size else f"{path}: empty"


def _leave_out(path: Path, array: NDArray[np.uint8], rows: Sequence[int]) -> None:
    """Cuts `rows` out of an array that is mapped from a file."""
    assert isinstance(array, np.memmap)
    kept = np.delete(np.arange(len(array)), rows)
    for start in range(0, len(kept), PIECE):
        moved = kept[start : start + PIECE]  # each towards the front, so that none is lost
        array[start : start + len(moved)] = array[moved]
    array.flush()
    with open(path, "r+b") as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": (len(kept), array.shape[1])}
        np.lib.format.write_array_header_1_0(file, header)  # numpy leaves room for any number of rows
        assert file.tell() == array.offset
        file.truncate(array.offset + len(kept) * array.shape[1])


# --- messages -------------------------------------------------------------------------------------------------


def _bad_files(folder: Path, bad: list[str], listings: dict[str, Listing], skipped: bool) -> DataError:
    """What is wrong with the files, and what to do."""
    remedy = "Repair or remove them, or leave them out: data.on_bad_file: skip"
    if skipped:
        remedy = "With them left out, nothing is left of a class. Repair them, or remove its folder"
    return DataError(
        f"data.path: {_listed(f'{folder}: {_count(bad, listings)} cannot be used:', bad)}\n  {remedy}"
    )


def _count(bad: list[str], listings: dict[str, Listing]) -> str:
    total = sum(len(listing.files) + len(listing.stray) for listing in listings.values())
    return f"{len(bad):,} of {total:,} files"


def _listed(title: str, lines: list[str]) -> str:
    """A title, and the first of the lines below it."""
    more = [f"… and {len(lines) - SHOWN:,} more"] if len(lines) > SHOWN else []
    return "\n  ".join([title, *lines[:SHOWN], *more])


def _names(names: list[str]) -> str:
    """The first of the names, and how many more there are."""
    more = f" and {len(names) - SHOWN:,} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
