"""`python -m orchestrator.dryrun`: the mocked AWS as a process, as `process.start_cloud` starts it."""

import argparse
import logging
import socket
from pathlib import Path

from orchestrator.dryrun.process import IDLE_SECONDS, serve_alone
from orchestrator.dryrun.scenario import read_scenario


def main() -> None:
    """Serve on the inherited socket."""
    parser = argparse.ArgumentParser(prog="python -m orchestrator.dryrun")
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--listener", type=int, required=True, help="file descriptor of a listening socket")
    parser.add_argument("--idle-seconds", type=float, default=IDLE_SECONDS)
    parser.add_argument("--scenario", type=Path)
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    for chatty in ("asyncssh", "werkzeug", "botocore"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    listener = socket.socket(fileno=given.listener)
    scenario = read_scenario(given.scenario)
    serve_alone(listener, folder=given.folder, idle_seconds=given.idle_seconds, scenario=scenario)


if __name__ == "__main__":
    main()
