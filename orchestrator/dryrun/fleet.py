"""The loop in which embedded machines live: a thread of its own, so that a mock that answers AWS calls
in other threads can boot and end them.
"""

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

from orchestrator.dryrun.machine import Machine, MachineOrder

_T = TypeVar("_T")
_PATIENCE_SECONDS = 30.0


class Fleet:
    """Machines that are up. `close` ends them all."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="machines", daemon=True)
        self._thread.start()
        self._machines: list[Machine] = []

    @property
    def connections(self) -> int:
        """Open SSH connections of all machines."""
        return sum(machine.connections for machine in self._machines)

    def boot(self, order: MachineOrder) -> Machine:
        """A machine that listens when this returns."""
        machine = Machine(order)
        self._machines.append(machine)
        self._wait_for(machine.boot())
        return machine

    def end(self, machine: Machine) -> None:
        """Power a machine off and wait until nothing of it is left."""
        self._wait_for(machine.shut_down())
        if machine in self._machines:
            self._machines.remove(machine)

    def drop_connections(self) -> None:
        """Break every SSH connection of every machine."""
        for machine in self._machines:
            self._loop.call_soon_threadsafe(machine.drop_connections)

    def close(self) -> None:
        """End all machines and the loop."""
        for machine in tuple(self._machines):
            self.end(machine)
        self._wait_for(_finish_tasks())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_PATIENCE_SECONDS)
        self._loop.close()

    def _wait_for(self, work: Coroutine[Any, Any, _T]) -> _T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(_PATIENCE_SECONDS)


async def _finish_tasks() -> None:
    others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    loop = asyncio.get_running_loop()
    await loop.shutdown_default_executor()
