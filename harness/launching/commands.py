"""A job as a process: what a launcher runs, here or on another machine."""

from __future__ import annotations

import os
import shlex
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

ATTEMPT = "== "  # starts the log's line above the output of each attempt
LOOK_EVERY = 0.2  # seconds


@dataclass
class Command:
    """A command whose output is appended to a log. Can be pickled, and called on the machine that it is to run on.

    Attributes:
        words: The command.
        log: The log, absolute.
        folder: The folder to run in, absolute: a submission's relative paths start there.
        environment: Variables that a scheduler might not hand on.
        process: The running process.
    """

    words: tuple[str, ...]
    log: Path
    folder: Path
    environment: Mapping[str, str]
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    def start(self) -> subprocess.Popen[bytes]:
        """Start the process, in a session of its own: a Ctrl-C of the terminal reaches it through `stop` only."""
        with self.log.open("ab") as log:
            log.write(f"{ATTEMPT}{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC {shlex.join(self.words)}\n".encode())
            log.flush()
            self.process = subprocess.Popen(
                self.words,
                cwd=self.folder,
                env=os.environ | dict(self.environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        return self.process

    def stop(self) -> None:
        """End the process, and wait until it has kept its work."""
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            self.process.wait()

    def __call__(self) -> int:
        """Run to the end; returns the exit status. Whatever ends the waiting stops the process, too."""
        process = self.start()
        try:
            # Ray cancels a task by a simulated Ctrl-C, which a blocking wait would not notice.
            while process.poll() is None:
                time.sleep(LOOK_EVERY)
        finally:
            self.stop()
        return process.returncode
