"""The mocked AWS: moto's server on loopback and, before it, what moto lacks. Owns the order in which a
request passes (control paths, scenario, our own answers, moto, corrections) and the clock that lets
instances come and go.
"""

import io
import json
import logging
import os
import socket
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import moto.settings
from moto.moto_api._internal.models import moto_api_backend
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import make_server
from werkzeug.wrappers import Request, Response

from orchestrator.dryrun.ec2 import Step, begin
from orchestrator.dryrun.estate import Estate
from orchestrator.dryrun.fleet import Fleet
from orchestrator.dryrun.inventory import take_inventory
from orchestrator.dryrun.scenario import Failure, Scenario, read_scenario
from orchestrator.dryrun.sessions import answer_session
from orchestrator.dryrun.shop import answer_service
from orchestrator.dryrun.storage import have_bucket, storage_call
from orchestrator.dryrun.wire import Answer, Call, Refusal, encode_form, parse_call, refuse

_BEAT_SECONDS = 0.2
_log = logging.getLogger(__name__)


class MockedCloud:
    """A mocked AWS that answers on `endpoint` until `stop`. Moto's books are global: one at a time
    in a process.
    """

    def __init__(self, folder: Path, *, scenario: Scenario, listener: socket.socket | None = None) -> None:
        _configure_moto()
        self._lock = threading.RLock()
        self._fleet = Fleet()
        self._estate = Estate(folder, self._fleet, scenario, endpoint=lambda: self.endpoint)
        self._moto = DomainDispatcherApplication(create_backend_app)
        self._counts: Counter[str] = Counter()
        self._busy_at = time.monotonic()
        self._server = make_server(
            "127.0.0.1",
            0,
            self._answer,
            threaded=True,
            request_handler=_QuietHandler,
            fd=listener.fileno() if listener is not None else None,
        )
        self._estate.port = self._server.socket.getsockname()[1]
        self._threads = (
            threading.Thread(target=self._server.serve_forever, args=(0.05,), name="aws", daemon=True),
            threading.Thread(target=self._beat, name="time passes", daemon=True),
        )
        self.stopping = threading.Event()

    @property
    def endpoint(self) -> str:
        """Where AWS clients are to send everything."""
        return f"http://127.0.0.1:{self._server.socket.getsockname()[1]}"

    def start(self) -> None:
        """Begin to answer."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End every machine and stop answering."""
        self.stopping.set()
        with self._lock:
            self._fleet.close()
        self._server.shutdown()
        for thread in self._threads:
            thread.join()
        self._server.server_close()
        moto_api_backend.reset()

    def play(self, scenario: Scenario | Mapping[str, Any]) -> None:
        """Let another scenario begin; calls are counted anew."""
        with self._lock:
            found = scenario if isinstance(scenario, Scenario) else read_scenario(scenario)
            self._estate.play(found)
            self._counts.clear()

    def state(self) -> list[dict[str, str]]:
        """Everything that exists now."""
        with self._lock:
            self._estate.advance()
            return take_inventory(self._estate)

    def calls(self) -> Mapping[str, int]:
        """How often each action was called since the scenario began."""
        with self._lock:
            return dict(self._counts)

    def drop_connections(self) -> None:
        """Break every SSH connection to every machine."""
        self._fleet.drop_connections()

    def idle_seconds(self) -> float:
        """For how long nothing was asked, no SSH connection was open and no instance lived."""
        with self._lock:
            if self._fleet.connections or any(launch.living for launch in self._estate.launches()):
                self._busy_at = time.monotonic()
            return time.monotonic() - self._busy_at

    def _beat(self) -> None:
        while not self.stopping.wait(_BEAT_SECONDS):
            with self._lock:
                self._estate.advance()

    def _answer(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        request = Request(environ)
        with self._lock:
            self._busy_at = time.monotonic()
            self._estate.advance()
            if request.path == "/checkip" or request.path.startswith("/_"):
                response = self._control(request)
            else:
                response = self._aws(request)
        return response(environ, start_response)

    def _control(self, request: Request) -> Response:
        head, _, rest = request.path[1:].partition("/")
        if head == "checkip":
            return Response(f"{self._estate.caller_address}\n", mimetype="text/plain")
        if head == "_machines":
            launch = self._estate.at(rest)
            is_open = launch is not None and self._estate.admits_caller(launch)
            port = launch.machine.port if launch is not None and launch.machine is not None and is_open else None
            return _json({"port": port} if port else {"error": "nobody listens"}, 200 if port else 404)
        if head == "_state":
            return _json(take_inventory(self._estate), 200)
        if request.method == "POST" and head == "_stop":
            self.stopping.set()
            return _json({"stopping": True}, 200)
        return _json({"error": f"no such path: {request.path}"}, 404)

    def _aws(self, request: Request) -> Response:
        headers, body = request.headers, request.get_data()
        target = headers.get("X-Amz-Target", "")
        call = storage_call(request) or parse_call(headers.get("Authorization", ""), target, body)
        if call is None:
            return _json({"error": "not a signed AWS request"}, 400)
        failure = self._failure(call)
        if failure is not None and not failure.after:
            return _failed(call, failure, request)
        answered = self._store(call, request) if call.service == "s3" else _response(self._carry_out(call, request))
        return _failed(call, failure, request) if failure is not None else answered

    def _store(self, call: Call, request: Request) -> Response:
        """S3's answers are in their headers, too."""
        try:
            have_bucket(call, self._estate.scenario)
        except Refusal as refusal:
            return _response(refuse(call, refusal))
        return self._moto_response(request, request.get_data())

    def _carry_out(self, call: Call, request: Request) -> Answer:
        try:
            own = answer_service(call, self._estate.scenario) or answer_session(call, self._estate, self.endpoint)
            if own is not None:
                return own
            step = begin(call, self._estate) if call.service == "ec2" else Step()
            if step.answer is not None:
                return step.answer
            answer = self._ask_moto(call, request, step)
            return step.after(answer) if step.after is not None else answer
        except Refusal as refusal:
            return refuse(call, refusal)

    def _ask_moto(self, call: Call, request: Request, step: Step) -> Answer:
        body = encode_form(step.form) if step.form is not None else request.get_data()
        try:
            response = self._moto_response(request, body)
        except NotImplementedError as error:  # how moto says that it lacks an action
            raise Refusal("NotMocked", f"The mocked AWS does not play {call.service} {call.action}.") from error
        return Answer(response.status_code, response.headers.get("Content-Type", ""), response.get_data())

    def _moto_response(self, request: Request, body: bytes) -> Response:
        inner = {**request.environ, "wsgi.input": io.BytesIO(body), "CONTENT_LENGTH": str(len(body))}
        return Response.from_app(self._moto, inner, buffered=True)

    def _failure(self, call: Call) -> Failure | None:
        if call.dry_run:
            return None
        self._counts[call.action] += 1
        count = self._counts[call.action]
        ours = (f for f in self._estate.scenario.fail if f.action == call.action)
        return next((f for f in ours if f.nth <= count < f.nth + f.times), None)


@contextmanager
def running_cloud(
    scenario: Scenario | Mapping[str, Any] | Path | None = None, *, folder: Path | None = None
) -> Generator[MockedCloud]:
    """A mocked AWS in threads of this process, gone at the end of the block."""
    found = scenario if isinstance(scenario, Scenario) else read_scenario(scenario)
    with tempfile.TemporaryDirectory(prefix="mocked-aws-") as scratch:
        cloud = MockedCloud(folder or Path(scratch), scenario=found)
        cloud.start()
        try:
            yield cloud
        finally:
            cloud.stop()


class _QuietHandler(MotoRequestHandler):
    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        _log.debug("%s %s %s", self.requestline, code, size)


def _configure_moto() -> None:
    moto.settings.ENABLE_AMI_VALIDATION = True
    moto.settings.ENABLE_KEYPAIR_VALIDATION = True
    moto.settings.EC2_ENABLE_INSTANCE_TYPE_VALIDATION = True
    # Without this moto fills every region with 1,300 images of its own, which takes seconds.
    os.environ["MOTO_EC2_LOAD_DEFAULT_AMIS"] = "false"
    moto_api_backend.reset()


def _failed(call: Call, failure: Failure, request: Request) -> Response:
    if failure.hang_up:
        request.environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
    return _response(refuse(call, Refusal(failure.code, failure.message, status=failure.status)))


def _response(answer: Answer) -> Response:
    return Response(answer.body, status=answer.status, content_type=answer.content_type)


def _json(document: Any, status: int) -> Response:
    return Response(json.dumps(document), status=status, content_type="application/json")
