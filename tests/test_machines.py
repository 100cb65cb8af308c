"""Inference where the system is no POSIX one: what Linux has and Windows does not is taken away."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.golden import GOLDEN

INPUTS = GOLDEN / "inference"
ROOT = Path(__file__).resolve().parent.parent

# Run before any code of the project; other packages have been imported, since theirs is not what is looked at.
WITHOUT = """
import builtins, io, os, pathlib, signal, sys
import cv2, numpy, PIL.Image, scipy.ndimage, skimage, torch, torchvision, tqdm

for module in ("resource", "fcntl", "pwd", "grp", "termios", "syslog"):
    sys.modules[module] = None
for name in ("fork", "forkpty", "kill", "killpg", "setsid", "getuid", "geteuid", "getpgid", "sched_getaffinity",
             "statvfs", "register_at_fork", "mkfifo", "WNOHANG"):
    if hasattr(os, name):
        delattr(os, name)
for name in ("SIGKILL", "SIGHUP", "SIGALRM", "SIGCHLD", "SIGUSR1", "SIGUSR2", "alarm", "pthread_sigmask", "setitimer"):
    if hasattr(signal, name):
        delattr(signal, name)


def without_proc(function):
    def refusing(path, *rest, **named):
        if isinstance(path, (str, os.PathLike)) and os.fspath(path).startswith(("/proc", "/sys")):
            raise FileNotFoundError(2, "no such file", str(path))
        return function(path, *rest, **named)

    return refusing


builtins.open, io.open, os.open, os.stat = (without_proc(f) for f in (builtins.open, io.open, os.open, os.stat))
if hasattr(pathlib, "_NormalAccessor"):  # Python 3.10 keeps these two from when it was imported
    pathlib._NormalAccessor.open, pathlib._NormalAccessor.stat = staticmethod(io.open), staticmethod(os.stat)
fsync = os.fsync


def strict_fsync(file):
    os.write(file, b"")  # as on Windows, an error unless the file is open for writing
    fsync(file)


os.fsync = strict_fsync
"""


def without_posix(code: str) -> subprocess.CompletedProcess[str]:
    """Run code in a process that has lost all this."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", f"{WITHOUT}\n{code}"]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, env=environment)


def test_what_is_taken_away_is_missed_and_memory_is_told_where_it_can_be() -> None:
    missed = [
        "import resource", "os.fork()", "os.kill(1, 0)", "open('/proc/self/status')", "os.stat('/proc/self')",
        "signal.SIGKILL", "os.fsync(open('README.md', 'rb').fileno())",
    ]  # fmt: skip
    done = without_posix(
        f"for code in {missed!r}:\n"
        "    try:\n"
        "        exec(code)\n"
        "    except (ImportError, AttributeError, OSError):\n"
        "        continue\n"
        "    sys.exit(code + ': is there')\n"
        "from misc.device import free_memory, peak_memory\n"
        "print(free_memory(torch.device('cpu')), peak_memory(torch.device('cpu')))"
    )
    assert done.stdout.split() == ["None", "nan"], done.stderr


def test_the_command_mattes_without_posix(small_checkpoint: Path, tmp_path: Path) -> None:
    arguments = [
        "--checkpoint", str(small_checkpoint), "--image-dir", str(INPUTS / "images"), "--mask-dir",
        str(INPUTS / "masks"), "--output", str(tmp_path / "out"), "--max-side", "96", "--precision", "auto",
    ]  # fmt: skip
    done = without_posix(
        f"import infer; sys.exit(infer.main({arguments!r}) or infer.main({[*arguments, '--resume']!r}))"
    )
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "out").rglob("*.png"))) == len(list((INPUTS / "masks").rglob("*.png"))) > 3
