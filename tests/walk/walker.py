"""Runs commands as a user types them, in a separate folder, and checks all their output."""

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from paths import ROOT

TIMEOUT = 600

# Everything that our commands may write to stderr. What is not here is somebody else's noise.
OUR_MESSAGES = re.compile("|".join((
    r"(error|warning|check failed|stopped by a signal)\b",
    r"vocabulary of \d+: ",
    r"held-out text, \d+ characters: ",
    r"\d+ files?, [\d.]+ MB; the text in them:",
    r"  (kept|dropped: \w+|sum) +[\d,]+ documents? ",
    r"[\d,]+ tokens, \d+ of them in no example; ",
    r"the text has only \d+ pieces",
    r"[\w -]+: \d+ of \d+, .* ETA ",
)))


@dataclass
class Walk:
    """A walk through the commands in one folder.

    Attributes:
      folder: where the commands run; paths in them are relative to it.
      commands: what was run so far, with seconds: to be typed again when something fails.
    """

    folder: Path
    commands: list[str] = field(default_factory=list)

    def run(self, *command: str, expect: int = 0) -> str:
        """Runs `python -m MODULE ARGUMENTS` (or `SCRIPT.py ARGUMENTS`), to its end.

        Returns:
          its standard output.
        """
        start = time.monotonic()
        done = subprocess.run(self._arguments(command), cwd=self.folder, env=self._environment(),
                              capture_output=True, text=True, timeout=TIMEOUT, check=False)
        self._note(command, time.monotonic() - start)
        self._check(command, done.returncode, expect, done.stdout, done.stderr)
        return done.stdout

    def stop_at(self, pattern: str, *command: str) -> str:
        """Runs a command, sends SIGTERM as soon as a line matches `pattern`, and expects exit code 3.

        Returns:
          its standard output.
        """
        start = time.monotonic()
        errors = self.folder / "stderr.txt"
        lines: list[str] = []
        with open(errors, "w+", encoding="utf-8") as stderr:
            process = subprocess.Popen(self._arguments(command), cwd=self.folder, text=True,
                                       env=self._environment(), stdout=subprocess.PIPE, stderr=stderr)
            assert process.stdout is not None
            try:
                for line in process.stdout:
                    lines.append(line)
                    if re.search(pattern, line):
                        process.send_signal(signal.SIGTERM)
                        break
                lines.append(process.stdout.read())
                code = process.wait(TIMEOUT)
            finally:
                process.kill()
        self._note(command, time.monotonic() - start)
        self._check(command, code, 3, "".join(lines), errors.read_text(encoding="utf-8"))
        return "".join(lines)

    def _arguments(self, command: tuple[str, ...]) -> list[str]:
        program, *arguments = command
        start = [str(ROOT / program)] if program.endswith(".py") else ["-m", program]
        return [sys.executable, *start, *arguments]

    def _environment(self) -> dict[str, str]:
        # As in a user's shell: what the tests set for themselves would hide noise.
        kept = {name: value for name, value in os.environ.items() if not name.startswith("TF_")}
        return {**kept, "PYTHONPATH": str(ROOT), "COLUMNS": "100"}

    def _note(self, command: tuple[str, ...], seconds: float) -> None:
        line = f"python {'' if command[0].endswith('.py') else '-m '}{shlex.join(command)}"
        self.commands.append(f"{seconds:5.1f} s  {line}")
        print(self.commands[-1], flush=True)

    def _check(self, command: tuple[str, ...], code: int, expect: int, out: str, err: str) -> None:
        context = (f"in {self.folder}:\n" + "\n".join(self.commands)
                   + f"\nexit code {code}, expected {expect}\n--- stdout\n{out[-4000:]}"
                   f"\n--- stderr\n{err[-8000:]}")
        assert code == expect, context
        assert "Traceback" not in out + err, context
        foreign = [line for line in err.splitlines() if line.strip() and not OUR_MESSAGES.match(line)]
        assert not foreign, f"written to stderr, and no message of ours: {foreign[:5]}\n{context}"
