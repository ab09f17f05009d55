"""`penstock run`: everything that one machine needs.

The API, a projector, the archiver and the embedded server, each as a process.
"""

import os
import shlex
import sys

import click
from honcho.manager import Manager

from streams.runtime import ENV_FILE_CHECKED, INTERRUPTED, command_settings, configure_logging, exit_with_sentence, log_format

PROCESSES = {  # as in the Procfile
    "api": ("api", "run"),
    "archive": ("streams", "archive"),
    "projector": ("projector", "run"),
    "server": ("streams", "serve"),
}


@click.command()
def run() -> None:
    """Run everything on this machine: API, projector, server.

    The processes are those of the Procfile. When one of them ends, the others are ended too. Ctrl-C ends them all.
    """
    configure_logging()
    with exit_with_sentence():
        command_settings()
    manager = Manager()
    for name, arguments in PROCESSES.items():
        command = shlex.join((sys.executable, "-m", *arguments))
        manager.add_process(name, f"exec {command}", env=environment_of_processes())  # exec: no shell is left between
    manager.loop()
    sys.exit(0 if manager.returncode == INTERRUPTED else manager.returncode)


def environment_of_processes() -> dict[str, str]:
    """The environment of the processes.

    Each of them reads `.env` itself, by the same rule as this process.
    """
    environment = os.environ | {"PYTHONUNBUFFERED": "1", ENV_FILE_CHECKED: "1"}
    if sys.stdout.isatty() and log_format() in ("", "auto"):  # lines go through a pipe to this terminal
        environment["LOG_FORMAT"] = "text"
    return environment
