"""Signals that ask a run to stop: answered at once, obeyed within seconds whatever the run is doing."""

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

HANDLED = (signal.SIGINT, signal.SIGTERM)
GRACE = 4.0  # seconds in which the run may save and stop by itself
SAVING = 60.0  # seconds at most that a checkpoint being written is waited for


class StopSignals:
    """Notes the first SIGINT or SIGTERM for the run to act on, and ends the process where that takes too long.

    Python calls a handler between two of its instructions, so not while a library computes for minutes. The system
    writes the signal's number into a socket at once, though, and a thread that waits there answers. Ending the process
    harms nothing, since no file is ever half-written. A second signal ends it at once.

    Args:
        say: prints a line.
        patient: whether a second signal is ignored, which torchrun or a scheduler sends beside the first.

    Attributes:
        asked: the first signal's number, 0 before.
        saving: whether a checkpoint is being written, which is waited for.
    """

    def __init__(self, say: Callable[[str], None], patient: bool = False) -> None:
        self.asked, self.saving, self.patient = 0, False, patient
        self._say, self._done = say, threading.Event()
        self._former: dict[int, Any] = {}

    def watch(self) -> None:
        """Begin; outside the main thread no signal can be handled, and nothing happens."""
        if threading.current_thread() is not threading.main_thread():
            return
        self._reader, self._writer = socket.socketpair()
        self._writer.setblocking(False)
        self._former = {number: signal.signal(number, self._note) for number in HANDLED}
        self._former_socket = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        threading.Thread(target=self._answer, name="signals", daemon=True).start()

    def close(self) -> None:
        """Give the signals back to who had them before."""
        if not self._former:
            return
        self._done.set()
        signal.set_wakeup_fd(self._former_socket)
        for number, handler in self._former.items():
            signal.signal(number, handler)
        self._former = {}
        self._writer.close()  # ends the thread

    def _note(self, number: int, frame: Any) -> None:
        if self.asked and not self.patient:
            os._exit(128 + number)
        self.asked = self.asked or number

    def _answer(self) -> None:
        answered = False
        while received := self._reader.recv(1):
            if received[0] not in HANDLED or self._done.is_set():
                continue
            if answered and self.patient:
                continue
            if answered:
                os._exit(128 + received[0])
            answered = True
            self._say("stopping" if self.patient else "stopping; a second signal stops at once")
            threading.Thread(target=self._insist, args=[received[0]], daemon=True).start()
        self._reader.close()

    def _insist(self, number: int) -> None:
        """End the process if the run has not stopped in time."""
        began = time.monotonic()
        while not self._done.wait(0.1):
            waited = time.monotonic() - began
            if waited > (SAVING if self.saving else GRACE):
                self._say("stopped amid long work, which is done again; the same command continues")
                sys.stdout.flush()
                os._exit(128 + number)
