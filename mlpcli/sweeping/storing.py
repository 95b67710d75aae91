"""Opens where a sweep's trials are counted, by optuna: a journal in its directory, or a database."""

import importlib.util
import re
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from mlpcli.errors import FailedError, UsageError
from mlpcli.sweeping.directory import JOURNAL, Place, without_password

if TYPE_CHECKING:
    from optuna.storages import BaseStorage, RDBStorage

DATABASES = ("sqlite", "postgresql", "mysql", "mariadb")
ATTEMPTS = 5
"""To open a database: two that make its tables at once get into each other's way."""


def check_installed(url: str | None) -> None:
    """Raises UsageError unless optuna is there, and `url` is one of a database that it knows."""
    if importlib.util.find_spec("optuna") is None:
        raise UsageError("sweep needs the package optuna\n    pip install 'mlpcli[sweep]'")
    if url is not None and re.split(r"[:+]", url)[0] not in DATABASES:
        raise UsageError(
            f"--storage {without_password(url)}: expected the URL of a database: {', '.join(DATABASES)}\n"
            "    for example postgresql+psycopg://user@host/database, or sqlite:///sweep.db"
        )


@contextmanager
def quiet() -> Iterator[None]:
    """Inside, optuna says nothing: what it has to say is about its own interfaces."""
    import optuna

    optuna.logging.disable_default_handler()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", category=optuna.exceptions.ExperimentalWarning)
        warnings.simplefilter("ignore", category=FutureWarning)
        yield


@contextmanager
def opened(place: Place, directory: Path) -> "Iterator[BaseStorage]":
    """The storage; what goes wrong with it inside is a FailedError that names it, without its password.

    Raises:
        UsageError: the driver of the database is not installed, or the URL is none.
        FailedError: it cannot be reached, or is lost.
    """
    if place.url is None:
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend

        from mlpcli.sweeping.journal import JournalLock

        file = directory / JOURNAL
        with quiet():
            yield JournalStorage(JournalFileBackend(str(file), JournalLock(file)))
        return
    from optuna.exceptions import StorageInternalError
    from optuna.storages import get_storage
    from sqlalchemy.exc import SQLAlchemyError

    with quiet():
        try:
            database = _connected(place.url)
            try:
                yield get_storage(database)  # with a cache, one for all studies that are loaded from it
            finally:
                database.remove_session()
                database.engine.dispose()
        except (SQLAlchemyError, StorageInternalError) as error:
            raise FailedError(f"{without_password(place.url)}: {_reason(error, place.url)}") from error


def _connected(url: str) -> "RDBStorage":
    from optuna.storages import RDBStorage
    from sqlalchemy.exc import ArgumentError, NoSuchModuleError, OperationalError, SQLAlchemyError

    shown = without_password(url)
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return RDBStorage(url, engine_kwargs={"pool_pre_ping": True})
        except ImportError as error:
            missing = re.search(r"No module named '([\w.]+)'", f"{error} {error.__cause__}")
            name = missing[1] if missing else "its driver"
            driver = (
                "postgresql+psycopg: pip install 'psycopg[binary]'"
                if "postgres" in url
                else "mysql+pymysql: pip install pymysql"
            )
            raise UsageError(
                f"--storage {shown} needs the package {name}\n    install it, or write {driver}"
            ) from None
        except (ArgumentError, NoSuchModuleError) as error:
            raise UsageError(f"--storage {shown}: {_reason(error, url)}") from None
        except SQLAlchemyError as error:
            if (isinstance(error, OperationalError) and "already exists" not in str(error)) or attempt == ATTEMPTS:
                raise
            time.sleep(0.2 * attempt)
    raise AssertionError


def _reason(error: Exception, url: str) -> str:
    """What the database says, on one line, without the password."""
    inner = getattr(error, "orig", None) or error.__cause__ or error
    inner = getattr(inner, "orig", None) or inner
    lines = [line.strip() for line in str(inner).splitlines() if line.strip()]
    text = "; ".join(lines[:2]) or type(inner).__name__
    account = url.partition("://")[2].rpartition("@")[0]
    secret = account.partition(":")[2]
    return text.replace(secret, "***") if secret else text
