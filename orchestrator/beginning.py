"""From lines to machines to trainers that run there. On each machine the environment is made over a line of its own
while files still travel; if one of the two fails, the other is stopped.
"""

import threading
from collections.abc import Callable, Mapping

from orchestrator.errors import OrchestratorError
from orchestrator.events import Event, Stage
from orchestrator.homing import LOG, take_along
from orchestrator.ports import Session
from orchestrator.remote import Environment, prepare, start_training
from orchestrator.resources import Manifest
from orchestrator.rundir import CHECKPOINTS
from orchestrator.telling import Telling
from orchestrator.together import Crew, Node
from orchestrator.upload import begin_upload


def begin_training(crew: Crew, manifest: Manifest, *, extra: Mapping[str, bytes], telling: Telling) -> None:
    """Upload `manifest` and `extra` (path under the run's folder to content), find or make the environment, on every
    machine at once; once all are ready and have what came home of earlier machines, start the trainers. Raises what
    failed first.
    """

    def made_ready(node: Node) -> Environment:
        # What the first machine gets, the others get.
        heard = telling if node.number == 0 else Telling(telling.clock, _unheard)
        return _made_ready(node, manifest, dial=lambda: crew.another_line(node), extra=extra, telling=heard)

    environments = crew.each(made_ready)
    if any(crew.each(_has_earlier)):
        with telling.stage(Stage.PREPARE, "taking along what earlier machines left") as say:
            say(crew.each(lambda node: take_along(node.session, node.rental))[0])
    crew.each(
        lambda node: start_training(node.session, node.rental.root, environments[node.number], options=node.group)
    )


def _made_ready(
    node: Node, manifest: Manifest, *, dial: Callable[[], Session], extra: Mapping[str, bytes], telling: Telling
) -> Environment:
    session, root = node.session, node.rental.root
    preparing = _Preparing(dial, root, telling, give_up=session.close)
    try:
        with telling.stage(Stage.UPLOAD, f"{len(manifest.files)} files"):
            begun = begin_upload(session, manifest, root=root, extra=extra)
            preparing.start()
            begun.complete(lambda message, progress: telling.say(Stage.UPLOAD, message, progress))
        return preparing.result()
    except OrchestratorError:
        preparing.stop()
        if preparing.error is not None:
            raise preparing.error from None
        raise
    finally:
        preparing.stop()


def _has_earlier(node: Node) -> bool:
    """Whether earlier machines left something at home from which the trainer goes on."""
    return any((node.rental.folder / name).exists() for name in (LOG, CHECKPOINTS))


def _unheard(_event: Event) -> None:
    pass


class _Preparing:
    """The environment, in the making: a thread with a line of its own."""

    def __init__(
        self, dial: Callable[[], Session], root: str, telling: Telling, *, give_up: Callable[[], None]
    ) -> None:
        self._dial = dial
        self._root = root
        self._telling = telling
        self._give_up = give_up
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._lock = threading.Lock()
        self._session: Session | None = None
        self._stopped = False
        self._found: Environment | None = None
        self.error: OrchestratorError | None = None
        """What failed here by itself."""

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def result(self) -> Environment:
        """The environment, once it is there; raises what failed."""
        self._thread.join()
        if self._found is None:
            raise self.error or OrchestratorError("the environment was given up")
        return self._found

    def stop(self) -> None:
        """Hang up, and wait until nothing is said any more; harmless once it has ended."""
        with self._lock:
            self._stopped = True
            session = self._session
        if session is not None:
            session.close()
        if self._thread.ident is not None:
            self._thread.join()

    def _work(self) -> None:
        try:
            with self._telling.stage(Stage.PREPARE, "finding or making the Python environment") as say:
                self._found = self._prepared()
                say(self._found.note)
        except OrchestratorError as error:
            with self._lock:
                if self._stopped:
                    return
                self.error = error
            self._give_up()

    def _prepared(self) -> Environment:
        session = self._dial()
        with self._lock:
            self._session = session
            if self._stopped:
                session.close()
        try:
            return prepare(session, self._root)
        finally:
            session.close()
