"""Jobs in processes of their own: how many at once, what they say, how they end; none outlives its starter."""

import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from mlpcli.errors import ConfigError, DivergedError, Interrupted, Problem
from mlpcli.jobs import Ended, Said, run_jobs


def ends(count: int, at_once: int, work: Callable[[int], None]) -> dict[int, Ended]:
    events = run_jobs(deque(range(count)), at_once, work)
    return {event.job: event for event in events if isinstance(event, Ended)}


def note(text: str) -> None:
    """A line that processes add to a file, whole."""
    with open("notes", "a") as file:
        file.write(f"{text}\n")


def notes() -> list[str]:
    return Path("notes").read_text().splitlines() if Path("notes").exists() else []


def until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.parametrize("at_once", [1, 3, 9])
def test_every_job_runs_once_and_never_more_than_so_many(at_once: int) -> None:
    def work(job: int) -> None:
        note("+")
        time.sleep(0.02)
        note(str(job))
        note("-")

    assert ends(7, at_once, work) == {job: Ended(job, 0, "") for job in range(7)}
    lines = notes()
    assert sorted(line for line in lines if line.isdigit()) == [str(job) for job in range(7)]
    running, most = 0, 0
    for line in lines:
        running += {"+": 1, "-": -1}.get(line, 0)
        most = max(most, running)
    assert 1 <= most <= at_once


def test_each_has_a_process_of_its_own() -> None:
    def work(job: int) -> None:
        note(f"{os.getpid()} {os.environ.get('LEFT')}")
        os.environ["LEFT"] = "by another"
        os.chdir("/")

    assert all(end.code == 0 for end in ends(4, 1, work).values())
    assert len({line.split()[0] for line in notes()} - {str(os.getpid())}) == 4
    assert all(line.endswith("None") for line in notes())


def test_how_a_job_ends() -> None:
    def work(job: int) -> None:
        match job:
            case 0:
                return
            case 1:
                raise DivergedError("it diverged")
            case 2:
                raise ConfigError([Problem("there", "is wrong")])
            case 3:
                raise Interrupted("saved", 143)
            case 4:
                os.kill(os.getpid(), signal.SIGKILL)
            case 5:
                raise ZeroDivisionError("a defect")
            case 6:
                raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
            case 7:
                raise FileNotFoundError(2, "No such file or directory", "gone")
            case 8:
                raise KeyboardInterrupt
            case 9:
                raise DivergedError("x" * 1_000_000)

    found = ends(10, 3, work)
    assert [found[job].code for job in range(10)] == [0, 3, 2, 143, -9, 1, 1, 1, 130, 3]
    errors = [found[job].error for job in range(10)]
    assert errors[:6] == ["", "it diverged", "there: is wrong", "saved", "", "ZeroDivisionError: a defect"]
    assert errors[6].startswith("not enough memory\n") and errors[7] == "gone: No such file or directory"
    assert errors[8] == "" and 0 < len(errors[9]) <= 10_000


def test_what_a_job_says_on_stderr_comes_line_by_line() -> None:
    def work(job: int) -> None:
        print(f"ünï {job}", file=sys.stderr)
        os.write(2, b"half ")
        time.sleep(0.15)
        os.write(2, b"a line\n\n\xff\n")
        print("y" * 200_000, file=sys.stderr)
        assert not sys.stderr.isatty()
        print("no end", end="", file=sys.stderr)

    events = list(run_jobs(deque([0, 1]), 2, work))
    for job in (0, 1):
        *said, end = (event for event in events if event.job == job)
        assert end == Ended(job, 0, "")
        lines = [event.line for event in said if isinstance(event, Said)]
        assert lines[:4] == [f"ünï {job}", "half a line", "�", "y" * 200_000]
        assert lines[4:] == ["no end"]


def test_a_defect_shows_its_traceback() -> None:
    def work(job: int) -> None:
        raise ZeroDivisionError

    lines = [event.line for event in run_jobs(deque([0]), 1, work) if isinstance(event, Said)]
    assert lines[0].startswith("Traceback") and lines[-1] == "ZeroDivisionError"


def test_a_job_that_lets_go_of_its_stderr_takes_no_time_of_its_starter() -> None:
    def work(job: int) -> None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        time.sleep(1)

    before = time.process_time()
    assert ends(1, 1, work)[0].code == 0
    assert time.process_time() - before < 0.5


def test_who_waits_may_be_changed() -> None:
    waiting = deque(range(9))
    seen = []
    for event in run_jobs(waiting, 1, lambda job: None):
        seen.append(event.job)
        waiting.clear()
    assert seen == [0]


def test_a_signal_reaches_each_job_once_and_starts_no_other() -> None:
    def work(job: int) -> None:
        signal.signal(signal.SIGTERM, lambda *_: note(f"told {job}"))
        note(f"began {job}")
        time.sleep(1)

    waiting = deque(range(9))
    found = list(run_jobs(waiting, 2, work, lambda: 15 if len(notes()) >= 2 else 0))
    assert sorted(event.job for event in found) == [0, 1] and len(waiting) == 7
    assert sorted(notes()) == ["began 0", "began 1", "told 0", "told 1"]


def test_a_signal_interrupts_a_job_that_has_no_handler() -> None:
    def work(job: int) -> None:
        note("began")
        time.sleep(60)

    (end,) = run_jobs(deque([0]), 1, work, lambda: 15 if notes() else 0)
    assert end == Ended(0, 130, "")


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # one that nobody waited for is dead all the same
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


def test_jobs_that_are_given_up_are_killed() -> None:
    def work(job: int) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        print(os.getpid(), file=sys.stderr)
        time.sleep(60)

    with closing(run_jobs(deque([0, 1]), 2, work)) as events:
        pids = [int(event.line) for _, event in zip(range(2), events, strict=False) if isinstance(event, Said)]
    assert len(pids) == 2 and not any(map(alive, pids))


ORPHANS = """
import os, sys, time
from collections import deque
from mlpcli.jobs import run_jobs

def work(job):
    open("pid", "w").write(str(os.getpid()))
    try:
        time.sleep(60)
    finally:
        open("saved", "w").close()

list(run_jobs(deque([0]), 1, work))
"""


def test_a_job_ends_as_told_by_a_signal_where_its_starter_is_killed() -> None:
    starter = subprocess.Popen([sys.executable, "-c", ORPHANS])
    until(lambda: Path("pid").exists() and Path("pid").read_text() != "")
    starter.kill()
    starter.wait()
    until(Path("saved").exists)
    until(lambda: not alive(int(Path("pid").read_text())))
