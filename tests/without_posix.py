"""Plugin for pytest that takes away what Windows does not have: `PYTHONPATH=tests pytest -p without_posix`."""

import os
import signal
import sys

import filelock  # noqa: F401 (it has a way of its own on Windows, and here its usual one)
import torch  # noqa: F401

for module in ("fcntl", "resource", "termios", "pty", "grp", "pwd"):
    sys.modules[module] = None
for name in ("fork", "mkfifo", "geteuid", "killpg", "setsid"):
    delattr(os, name)
for name in ("SIGKILL", "SIGHUP", "SIGALRM", "alarm"):
    delattr(signal, name)
