"""The processes that train one run together: who they are, and what they tell each other.

They are started by torchrun, a rank each, and do the same at the same time, each on its part of every batch. Sums
over all of them are equal to the bit on each, and so stay θ and whatever is decided by it. What only one of them
can know (a signal, the time, what is on its disk) is told to the others.
"""

import os
import pickle
import signal
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import (  # type: ignore[attr-defined]  # public, but not in torch's __all__
    PrefixStore,
    Store,
    TCPStore,
)

from mlpcli.errors import DeviceError, FailedError, PeerFailed
from mlpcli.launch import launch, launched
from mlpcli.sums import GroupSums, Meeting, SharedSums, Sums, map_shared, new_folder, remove_folder, share_memory

T = TypeVar("T")

AGREE_SECONDS = 0.25
"""How often the ranks ask each other whether to stop or to save."""

OF_OTHERS = ("onnection", "another process", "imed out", "imeout", "NCCL", "gloo", "peer", "ocket")
"""What torch says where another process does not answer, and not where this one fails by itself."""

START_SECONDS = 600.0
"""So long ranks wait for each other before the config says how long."""

LAST_WORDS = 5.0
"""Seconds in which a rank that fails says so, before the others take it for dead or hung."""


class Ranks:
    """A process among those that train a run; alone unless `join` made it.

    Attributes:
        rank, size: which one, of how many; rank 0 writes the run and speaks.
        local_rank, local_size: likewise, on this host.
        timeout: seconds after which a rank that does not answer counts as hung.
        group: of all, once `settle` has made it.
    """

    def __init__(
        self,
        rank: int = 0,
        size: int = 1,
        local_rank: int = 0,
        local_size: int = 1,
        timeout: float = 600.0,
        store: Store | None = None,
    ) -> None:
        self.rank, self.size = rank, size
        self.local_rank, self.local_size = local_rank, local_size
        self.timeout = timeout
        self._store = store
        self.group: Any = None
        self._meeting: Meeting | None = None
        self._shares = 0
        self._left = self._pace = 1
        self._agreed = time.monotonic()

    @property
    def first(self) -> bool:
        """Whether this is rank 0."""
        return self.rank == 0

    @property
    def several(self) -> bool:
        """Whether there are others."""
        return self.size > 1

    def device(self, name: str) -> str:
        """`training.device` for this rank: the CUDA devices of a host go to its ranks in turn.

        Raises:
            DeviceError: ranks of a host would share a device.
        """
        count = torch.cuda.device_count()
        if not self.several or name == "cpu" or (name == "auto" and not count):
            return name
        if name.startswith("cuda:"):
            raise DeviceError(
                f"training.device: {name} is one device, but {self.size} processes train\n"
                "    use training.device=cuda: each process takes one of its own"
            )
        if self.local_size > count > 0:
            raise DeviceError(
                f"{self.local_size} processes, but {count} CUDA devices on this host\n"
                "    start one for each: torchrun --nproc-per-node gpu; or use training.device=cpu"
            )
        return f"cuda:{self.local_rank}"

    def settle(self, timeout: float) -> None:
        """From now on, a rank that does not answer for so many seconds counts as hung."""
        if self.several:
            self.timeout = timeout
            with self.answers("the start"):
                self.group = dist.new_group(timeout=timedelta(seconds=timeout))

    @property
    def restarted(self) -> bool:
        """Whether torchrun may have started these processes before."""
        return "TORCHELASTIC_RUN_ID" in os.environ

    def described(self, asked: str = "") -> dict[str, Any]:
        """What environment.json says of them: how many, and which start of torchrun, with which config, it was."""
        return {"processes": self.size, "torchrun": launch(asked)} if launched() else {}

    # --- numbers

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over all ranks, in place; equal to the bit on each."""
        if self.several:
            with self.answers("a sum"):
                dist.all_reduce(tensor, group=self.group)
        return tensor

    def sums(self, like: Tensor) -> Sums:
        """A buffer of zeros, as long as the flat tensor `like` and of its type, that can be summed over all ranks.

        All ranks must ask for the same.
        """
        if like.device.type == "cpu" and self.several and self.local_size == self.size:
            with self.answers("memory to share"):
                shared = self._shared_sums(len(like), like.dtype)
            if shared is not None:
                return shared
        return GroupSums(torch.zeros_like(like), self.group, self.answers)

    def _shared_sums(self, numbers: int, dtype: torch.dtype) -> Sums | None:
        folder = Path(self.share(lambda: str(new_folder() or "")))
        if not folder.name:
            return None
        try:
            mine = share_memory(folder, self.rank, numbers, dtype)
            if not self.all(mine is not None):
                return None
            if self._meeting is None:
                self._meeting = Meeting(folder, self.rank, self.size, self.timeout)
            buffers = [map_shared(folder, rank, numbers, dtype) for rank in range(self.size)]
            self.all(True)  # all have them open
        finally:
            if self.first:
                remove_folder(folder)
        return SharedSums(buffers, self.rank, self._meeting, self.answers)

    def copy_from_first(self, tensors: Iterable[Tensor]) -> None:
        """Rank 0's numbers, into the tensors of all."""
        if self.several:
            with self.answers("the weights"):
                for tensor in tensors:
                    dist.broadcast(tensor, 0, group=self.group)

    def gather(self, tensor: Tensor) -> list[Tensor]:
        """The tensors of all ranks, which have one shape, in their order."""
        if not self.several:
            return [tensor]
        tensors = [torch.empty_like(tensor) for _ in range(self.size)]
        with self.answers("what others computed"):
            dist.all_gather(tensors, tensor.contiguous(), group=self.group)
        return tensors

    def all(self, truth: bool) -> bool:
        """Whether it is true on every rank."""
        return truth if not self.several else bool(self._told([int(truth)], dist.ReduceOp.MIN)[0])

    def agree(self, signal_: int, save: bool) -> tuple[int, bool]:
        """Called after every step; every `AGREE_SECONDS` or so, in the same step on all ranks, they agree.

        Args:
            signal_: that this rank got; 0 for none.
            save: whether it is time to save; rank 0 decides.

        Returns:
            The largest signal of all ranks, and rank 0's `save`; 0 and False between.
        """
        if not self.several:
            return signal_, save
        self._left -= 1
        if self._left > 0:
            return 0, False
        seconds = max(1e-6, (time.monotonic() - self._agreed) / self._pace)
        pace = max(1, min(10_000, 2 * self._pace, int(AGREE_SECONDS / seconds)))
        told = self._told([signal_, int(save and self.first), pace if self.first else 0], dist.ReduceOp.MAX)
        self._left = self._pace = told[2]
        self._agreed = time.monotonic()
        return told[0], bool(told[1])

    def _told(self, numbers: list[int], operation: Any) -> list[int]:
        tensor = torch.tensor(numbers)
        with self.answers("a decision"):
            dist.all_reduce(tensor, operation, group=self.group)
        return [int(number) for number in tensor]

    # --- values

    def share(self, make: Callable[[], T]) -> T:
        """What `make` gives on rank 0, where alone it is called, however long it takes."""
        if not self.several:
            return make()
        assert self._store is not None
        self._shares += 1
        key = f"share {self._shares}"
        if self.first:
            value = make()
            self._store.set(key, "done")
            self._broadcast(pickle.dumps(value))
            return value
        self._wait(key)
        return pickle.loads(self._broadcast(b""))  # type: ignore[no-any-return]  # of rank 0's T

    def _broadcast(self, content: bytes) -> memoryview:
        """Rank 0's bytes."""
        length = torch.tensor([len(content)])
        with self.answers("what rank 0 read"):
            dist.broadcast(length, 0, group=self.group)
            block = torch.frombuffer(bytearray(content), dtype=torch.uint8) if content else None
            if block is None:
                block = torch.empty(int(length), dtype=torch.uint8)
            dist.broadcast(block, 0, group=self.group)
        return block.numpy().data

    def gather_values(self, value: T) -> list[T]:
        """The plain values of all ranks, in their order."""
        if not self.several:
            return [value]
        values: list[Any] = [None] * self.size
        with self.answers("a state"):
            dist.all_gather_object(values, value, group=self.group)
        return values

    @contextmanager
    def one_by_one(self) -> Iterator[None]:
        """What is inside is done by the first rank of each host before the others: it makes files that all use."""
        if not self.several:
            yield
            return
        assert self._store is not None
        host = socket.gethostname()
        self._shares += 1
        key = f"files {self._shares} of host {host}"
        if self.local_rank:
            self._wait(key)
        yield
        if not self.local_rank:
            self._store.set(key, "done")

    def _wait(self, key: str) -> None:
        """Until another rank has set the key, or has failed; the work may take any time."""
        assert self._store is not None
        while not self._store.check([key]):
            failed = self._failure()
            if failed is not None:
                raise PeerFailed(failed)
            time.sleep(0.02)

    # --- the end

    def leave(self) -> None:
        """Called by all ranks at a good end."""
        if self.several:
            dist.destroy_process_group()

    def failed(self, error: BaseException, code: int, say: Callable[[], None]) -> None:
        """Tell the others that this rank fails, with an exit code. The first to fail says why; the others wait
        until it has."""
        if self._store is None:
            return
        mine = f"{self.rank} {code}".encode()
        with suppress(dist.DistError):  # the store may be gone with its host
            if isinstance(error, PeerFailed) or self._store.compare_set("failed", "", mine.decode()) != mine:
                self._store.wait(["said"], timedelta(seconds=LAST_WORDS))
                return
        say()
        with suppress(dist.DistError):
            self._store.set("said", "")

    def _failure(self) -> int | None:
        """The exit code of the rank that failed first; None where none did."""
        assert self._store is not None
        if not self._store.check(["failed"]):
            return None
        return int(self._store.get("failed").decode().split()[1])

    @contextmanager
    def answers(self, what: str) -> Iterator[None]:
        """Tells why what is asked of all ranks has failed: one failed, died or hangs."""
        try:
            yield
        except (RuntimeError, OSError) as error:
            if not any(word in str(error) for word in OF_OTHERS):
                raise
            self._lost(what, error)

    def _lost(self, what: str, error: Exception) -> NoReturn:
        assert self._store is not None
        text = str(error)
        hung = "imed out" in text or "imeout" in text
        until = time.monotonic() + LAST_WORDS
        with suppress(dist.DistError, dist.DistStoreError):
            self._store.set(f"waits {self.rank}", what)
            while time.monotonic() < until:
                code = self._failure()
                if code is not None:
                    raise PeerFailed(code) from error
                time.sleep(0.05)
                if not hung and time.monotonic() > until - LAST_WORDS / 2:
                    break
            silent = [rank for rank in range(self.size) if not self._store.check([f"waits {rank}"])]
            who = (
                f"rank{'s' if len(silent) > 1 else ''} {', '.join(map(str, silent))}" if silent else "another rank"
            )
            if hung:
                raise FailedError(
                    f"{who} of {self.size} did not answer within {self.timeout:g} s (training.timeout), as rank "
                    f"{self.rank} waited for {what}\n"
                    "    it hangs, or is that much slower; what it does shows: py-spy dump --pid PID"
                ) from error
            raise FailedError(
                f"{who} of {self.size} died or lost the connection, as rank {self.rank} waited for {what}\n"
                "    torchrun names its signal below; --max-restarts 3 lets it go on from the last checkpoint"
            ) from error
        raise FailedError(
            f"the other ranks cannot be reached, as rank {self.rank} waited for {what}: {text.splitlines()[0]}"
        ) from error


def join() -> Ranks:
    """This process among those that torchrun started; alone where it did not.

    Raises:
        FailedError: the others are not there.
    """
    if not launched():
        return Ranks()
    environ: Mapping[str, str] = os.environ
    rank, size = int(environ["RANK"]), int(environ["WORLD_SIZE"])
    if size == 1:
        return Ranks()
    timeout = timedelta(seconds=START_SECONDS)
    try:
        with _ended_by_signals():
            store = TCPStore(
                environ["MASTER_ADDR"],
                int(environ["MASTER_PORT"]),
                # torchrun's agent serves the store itself, so that it outlives the ranks
                is_master=rank == 0 and environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True",
                timeout=timeout,
                multi_tenant=True,
            )
            attempt = PrefixStore(f"mlpcli {environ['TORCHELASTIC_RESTART_COUNT']}", store)
            dist.init_process_group(
                "cpu:gloo,cuda:nccl" if torch.cuda.device_count() else "gloo",
                store=PrefixStore("group", attempt),
                rank=rank,
                world_size=size,
                timeout=timeout,
            )
    except RuntimeError as error:
        address, reason = f"{environ['MASTER_ADDR']}:{environ['MASTER_PORT']}", str(error).partition("\n")[0]
        raise FailedError(f"rank {rank} of {size} does not find the others at {address}: {reason}") from error
    return Ranks(rank, size, int(environ["LOCAL_RANK"]), int(environ["LOCAL_WORLD_SIZE"]), START_SECONDS, attempt)


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Ctrl-C and SIGTERM end the process at once: while torch waits for others, no handler in Python could run."""
    before = {number: signal.signal(number, signal.SIG_DFL) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
