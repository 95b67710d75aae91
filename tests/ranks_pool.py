"""Processes that stand ready to train together, so that each test need not import torch anew in each of them."""

import multiprocessing
import os
import pickle
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any

RANKS = 3
SECONDS = 120


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def serve(tasks: Connection) -> None:
    """Carries out what it is given: the variables that torchrun would set, a function and its arguments."""
    while (task := pickle.loads(tasks.recv_bytes())) is not None:
        environ, folder, function, arguments = task
        os.environ.update(environ)
        os.chdir(folder)
        try:
            done = True, function(*arguments)
        except BaseException as error:
            done = False, f"{type(error).__name__}: {error}"
        tasks.send_bytes(
            pickle.dumps(done)
        )  # whole: a tensor that is sent otherwise stays in this process's memory
        for name in environ:
            del os.environ[name]


class Pool:
    def __init__(self, workers: list[Connection]) -> None:
        self.workers = workers

    def run(self, size: int, folder: Any, function: Callable[..., Any], *arguments: Any) -> list[Any]:
        """What `function(*arguments)` gives on each of so many ranks, in a folder."""
        common = {"WORLD_SIZE": str(size), "LOCAL_WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1"}
        common |= {
            "MASTER_PORT": str(free_port()),
            "TORCHELASTIC_RUN_ID": "none",
            "TORCHELASTIC_RESTART_COUNT": "0",
        }
        for rank, worker in enumerate(self.workers[:size]):
            mine = common | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
            worker.send_bytes(pickle.dumps((mine, str(folder), function, arguments)))
        done = []
        for rank, worker in enumerate(self.workers[:size]):
            assert worker.poll(SECONDS), f"rank {rank} does not end"
            done.append(pickle.loads(worker.recv_bytes()))
        assert all(good for good, _ in done), done
        return [result for _, result in done]


@contextmanager
def pool() -> Iterator[Pool]:
    context = multiprocessing.get_context("spawn")
    ours, processes = [], []
    for _ in range(RANKS):
        mine, theirs = context.Pipe()
        process = context.Process(target=serve, args=(theirs,), daemon=True)
        process.start()
        ours.append(mine)
        processes.append(process)
    try:
        yield Pool(ours)
    finally:
        for connection, process in zip(ours, processes, strict=True):
            if process.is_alive():
                connection.send_bytes(pickle.dumps(None))
            process.join(10)
            process.kill()
