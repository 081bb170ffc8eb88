"""One process per call: the value, the end of a process without an answer, and no process that remains."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ROOT, heed_interrupts

from sweep.processes import child_process, isolated_call

pytestmark = pytest.mark.slow


# The functions that the children call, by name.
def describe(word: str, report: object) -> dict[str, object]:
    import torch

    report.metrics(1, {"train/loss": 0.5})
    report.progress("working", 1, 2)
    print("hello from the child")
    return {
        "word": word,
        "pid": os.getpid(),
        "transformers": "transformers" in sys.modules,
        "cuda": torch.cuda.is_initialized(),
        "device": os.environ.get("CUDA_VISIBLE_DEVICES"),
    }


def fail(report: object) -> None:
    raise ValueError("as asked")


def kill_itself(report: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def leave(report: object) -> None:
    os._exit(3)


def sleep_long(file: str, report: object) -> None:
    Path(file).write_text(str(os.getpid()))
    time.sleep(120)


def eat(report: object) -> None:
    eaten = []
    while True:
        eaten.append(b"x" * (1 << 24))


HERE = "test_isolated_call"
# A program that makes calls to this module.
PROGRAM = {
    "cwd": Path(__file__).parent,
    "env": {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])},
}
# A fork server without the imports of training.
LIGHT = "from sweep.processes.isolated_call import ForkServer; server = ForkServer('gc:collect')"


def test_a_call_returns_its_value_from_a_fresh_process(tmp_path: Path):
    events = []
    first = isolated_call.call(
        f"{HERE}:describe",
        "one",
        log_file=tmp_path / "log",
        env={"CUDA_VISIBLE_DEVICES": "7"},
        on_event=events.append,
    )
    second = isolated_call.call(f"{HERE}:describe", "two", log_file=tmp_path / "log")
    assert (first["word"], second["word"]) == ("one", "two")
    assert len({first["pid"], second["pid"], os.getpid()}) == 3
    assert first["transformers"]
    assert not first["cuda"]
    assert (first["device"], second["device"]) == ("7", os.environ.get("CUDA_VISIBLE_DEVICES"))
    assert [(event.name, event.arguments) for event in events] == [
        ("metrics", (1, {"train/loss": 0.5})),
        ("progress", ("working", 1, 2)),
    ]
    assert (tmp_path / "log").read_text().count("hello from the child") == 2


def test_an_exception_comes_back_with_its_traceback(tmp_path: Path):
    with pytest.raises(isolated_call.ChildFailed, match="ValueError: as asked") as caught:
        isolated_call.call(f"{HERE}:fail", log_file=tmp_path / "log")
    assert "in fail" in caught.value.traceback


@pytest.mark.parametrize(("target", "words"), [("kill_itself", "by SIGKILL"), ("leave", "with exit code 3")])
def test_an_end_without_an_answer_is_reported(target: str, words: str):
    with pytest.raises(isolated_call.ChildKilled, match=words) as caught:
        isolated_call.call(f"{HERE}:{target}")
    assert not caught.value.host_oom


@pytest.fixture
def small_machine() -> Iterator[Path]:
    """A file: a process that writes its id there has at most 1 GiB of memory, together with its children."""
    version_1 = Path("/sys/fs/cgroup/memory")
    group = (version_1 if version_1.is_dir() else Path("/sys/fs/cgroup")) / f"paretune-test-{os.getpid()}"
    try:
        group.mkdir()
        limit = next(group / name for name in ("memory.limit_in_bytes", "memory.max") if (group / name).exists())
        limit.write_text(str(1 << 30))
    except (OSError, StopIteration) as error:
        pytest.skip(f"no control group of memory can be made here: {error}")
    yield group / "cgroup.procs"
    assert wait_until(lambda: not (group / "cgroup.procs").read_text(), 20)
    group.rmdir()


def test_a_kill_by_the_kernel_s_out_of_memory_killer_is_recognised(small_machine: Path):
    code = f"open({str(small_machine)!r}, 'w').write('0'); {LIGHT}; server.call('{HERE}:eat')"
    done = subprocess.run([sys.executable, "-c", code], **PROGRAM, capture_output=True, text=True, check=False)
    assert "ChildKilled: the process ended by SIGKILL (the host ran out of memory)" in done.stderr


def test_a_context_in_the_server_is_noticed_in_the_child(monkeypatch: pytest.MonkeyPatch):
    """In the child of a process that used CUDA, `torch.cuda.is_initialized()` is False. PyTorch's mark of a bad fork is
    a private name: if this test fails with an AttributeError, PyTorch has renamed it."""
    import torch

    assert child_process.cuda_is_untouched()
    monkeypatch.setattr(torch.cuda, "_is_in_bad_fork", lambda: True)
    assert not child_process.cuda_is_untouched()


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until(condition, seconds: float = 60) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.05)
    return False


@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGINT])
def test_no_child_outlives_its_parent(tmp_path: Path, sign: signal.Signals):
    file = tmp_path / "pid"
    code = f"{LIGHT}; server.call('{HERE}:sleep_long', {str(file)!r})"
    parent = subprocess.Popen(
        [sys.executable, "-c", code],
        **PROGRAM,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=heed_interrupts,
    )
    assert wait_until(lambda: file.exists() and file.read_text())
    child = int(file.read_text())
    server = int(Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[1])
    parent.send_signal(sign)
    parent.wait(timeout=20)
    assert wait_until(lambda: not alive(child) and not alive(server), 20)


def print_secrets(report: object) -> None:
    import ctypes

    print("password=xx-planted-xx")
    os.write(2, b"token=xx-planted")
    os.write(2, b"-xx and more\n")
    print("-----BEGIN RSA PRIVATE KEY-----", flush=True)
    print("xx-planted-xx\n-----END RSA PRIVATE KEY-----", flush=True)
    subprocess.run(["echo", "my secret=xx-planted-xx"], check=True)
    ctypes.CDLL(None).puts(b"api_key=xx-planted-xx from C")
    ctypes.CDLL(None).fflush(None)


def print_and_wait(report: object) -> None:
    print("begun\npassword=xx-planted-xx", flush=True)
    time.sleep(120)


def crash(report: object) -> None:
    import ctypes
    import faulthandler

    faulthandler.enable()
    print("before password=xx-planted-xx", flush=True)
    os.write(2, b"Error out of memory at line 1\nwithout an end of line")
    ctypes.string_at(0)


def print_much(count: int, report: object) -> float:
    begun = time.perf_counter()
    for number in range(count):
        print(f"line {number} {{'loss': 0.1234, 'grad_norm': 1.25}}")
    sys.stdout.flush()
    return time.perf_counter() - begun


def leave_a_child(report: object) -> None:
    subprocess.Popen(["sleep", "60"])
    print("its parent ends first", flush=True)


def test_output_is_masked_whoever_prints_it(tmp_path: Path):
    isolated_call.call(f"{HERE}:print_secrets", log_file=tmp_path / "log")
    written = (tmp_path / "log").read_text()
    assert "planted" not in written
    for words in ("password=***", "token=*** and more\n", "secret=***", "api_key=*** from C"):
        assert words in written
    assert (tmp_path / "log").stat().st_mode & 0o777 == 0o600


def test_a_killed_program_leaves_no_secret_in_the_log(tmp_path: Path):
    """The file never has it, so that it matters neither who is killed nor when."""
    log = tmp_path / "log"
    code = f"from pathlib import Path; {LIGHT}; server.call('{HERE}:print_and_wait', log_file=Path({str(log)!r}))"
    parent = subprocess.Popen([sys.executable, "-c", code], **PROGRAM)
    assert wait_until(lambda: log.exists() and "begun" in log.read_text())
    parent.kill()
    parent.wait(timeout=20)
    assert "planted" not in log.read_text()


def test_what_a_crash_prints_reaches_the_log(tmp_path: Path):
    with pytest.raises(isolated_call.ChildKilled, match="by SIGSEGV"):
        isolated_call.call(f"{HERE}:crash", log_file=tmp_path / "log")
    written = (tmp_path / "log").read_text()
    for words in ("before password=***", "Error out of memory at line 1\nwithout an end of line", "Segmentation fault"):
        assert words in written


def test_all_of_much_output_is_written(tmp_path: Path):
    isolated_call.call(f"{HERE}:print_much", 20_000, log_file=tmp_path / "log")
    lines = (tmp_path / "log").read_text().splitlines()
    assert [line.split()[1] for line in lines] == [str(number) for number in range(20_000)]


def test_a_process_that_the_child_leaves_behind_does_not_hold_the_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("sweep.processes.masked_log._LAST_SECONDS", 0.5)
    isolated_call.call(f"{HERE}:leave_a_child", log_file=tmp_path / "log")
    assert (tmp_path / "log").read_text() == "its parent ends first\n"
