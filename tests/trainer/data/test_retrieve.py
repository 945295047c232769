"""Fetching over a line that breaks, from servers that err, into folders that cannot be written."""

import hashlib
import io
import tarfile
import threading
import zipfile
from collections.abc import Generator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar, Literal

import pytest

from trainer.data.load import load_data
from trainer.data.retrieve import retrieve
from trainer.errors import DataError

TABLE = b"userId,movieId,rating\n1,2,3\n"


class Site(BaseHTTPRequestHandler):
    bodies: ClassVar[dict[str, bytes]] = {}
    promised: ClassVar[dict[str, int]] = {}
    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.asked.append(self.path)
        body = self.bodies.get(self.path)
        if body is None:
            self.send_error(410)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(self.promised.get(self.path, len(body))))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def server() -> Generator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Site)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def site(server: str) -> str:
    Site.bodies.clear()
    Site.promised.clear()
    Site.asked.clear()
    return server


def zipped(members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return packed.getvalue()


def tarred(members: dict[str, bytes], mode: Literal["w", "w:gz"] = "w:gz") -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode=mode) as archive:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return packed.getvalue()


def kept(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_a_line_that_breaks_off_leaves_nothing_and_the_next_try_succeeds(site: str, tmp_path: Path):
    Site.bodies["/ratings.csv"] = TABLE
    Site.promised["/ratings.csv"] = len(TABLE) + 10
    with pytest.raises(DataError, match=rf"ratings\.csv: broke off.*{len(TABLE)}.*try again"):
        retrieve(f"{site}/ratings.csv", into=tmp_path)
    assert kept(tmp_path) == []
    del Site.promised["/ratings.csv"]
    assert retrieve(f"{site}/ratings.csv", into=tmp_path).read_bytes() == TABLE


def test_an_error_answer_is_given_as_it_came_and_leaves_nothing(site: str, tmp_path: Path):
    with pytest.raises(DataError, match=rf"{site}/gone: the server answers 410 Gone"):
        retrieve(f"{site}/gone", into=tmp_path)
    assert kept(tmp_path) == []


def test_a_wrong_file_is_thrown_away_and_fetched_anew(site: str, tmp_path: Path):
    Site.bodies["/ratings.csv"] = b"an error page"
    digest = hashlib.sha256(TABLE).hexdigest()
    with pytest.raises(DataError, match=f"{digest} was promised"):
        retrieve(f"{site}/ratings.csv", into=tmp_path, sha256=digest)
    Site.bodies["/ratings.csv"] = TABLE
    found = retrieve(f"{site}/ratings.csv", into=tmp_path, sha256=digest.upper())
    assert found.read_bytes() == TABLE
    assert len(Site.asked) == 2


def test_two_urls_of_one_file_name_do_not_meet_in_the_cache(site: str, tmp_path: Path):
    Site.bodies.update({"/a/data.txt": b"a\tf\n", "/b/data.txt?x=1": b"b\tf\n"})
    found = [retrieve(f"{site}{path}", into=tmp_path) for path in ("/a/data.txt", "/b/data.txt?x=1")]
    assert [path.name for path in found] == ["data.txt", "data.txt"]
    assert [path.read_bytes() for path in found] == [b"a\tf\n", b"b\tf\n"]


@pytest.mark.parametrize("name", ["ml.zip", "ML.ZIP", "ml.tar.gz", "ml.tgz", "ml.tar"])
def test_an_archive_is_fetched_and_unpacked_once(site: str, tmp_path: Path, name: str):
    members = {"ml/ratings.csv": TABLE, "ml/movies.csv": b"movieId,title\n2,Heat\n", "__MACOSX/ml/._x": b""}
    packed = zipped(members) if name.lower().endswith("zip") else tarred(members, "w" if name == "ml.tar" else "w:gz")
    Site.bodies[f"/{name}"] = packed
    found = retrieve(f"{site}/{name}", into=tmp_path, sha256=hashlib.sha256(packed).hexdigest())
    assert (found.name, load_data(found).titles) == ("ml", {"2": "Heat"})
    assert retrieve(f"{site}/{name}", into=tmp_path) == found
    assert Site.asked == [f"/{name}"]


def test_a_tar_that_holds_a_zip_is_still_a_tar(site: str, tmp_path: Path):
    Site.bodies["/ml.tar"] = tarred({"ratings.csv": TABLE, "extra.zip": zipped({"inner": b"x"})}, "w")
    assert kept(retrieve(f"{site}/ml.tar", into=tmp_path)) == ["extra.zip", "ratings.csv"]


def spoilt(content: bytes) -> bytes:
    """The same with its compressed middle overwritten."""
    return content[:50] + b"\xff" * 40 + content[90:]


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("bad.zip", zipped({"../../escaped": b"x"}), "would leave the folder"),
        ("bad.zip", zipped({"/escaped": b"x"}), "would leave the folder"),
        ("bad.tar.gz", tarred({"../../escaped": b"x"}), "outside the destination"),
        ("bad.zip", zipped({"ratings.csv": TABLE * 100})[:-30], ""),
        ("bad.zip", spoilt(zipped({"ratings.csv": bytes(range(256)) * 40})), ""),
        ("bad.zip", spoilt(zipped({"ratings.csv": bytes(range(256)) * 40}, zipfile.ZIP_LZMA)), ""),
        ("bad.tar.gz", tarred({"ratings.csv": TABLE * 100})[:-30], ""),
        ("bad.tar", b"no archive at all", ""),
    ],
    ids=["zip leaves", "zip absolute", "tar leaves", "zip cut", "zip spoilt", "lzma spoilt", "tar cut", "no tar"],
)
def test_a_bad_archive_is_one_error_and_is_not_kept(
    site: str, tmp_path: Path, name: str, content: bytes, expected: str
):
    Site.bodies[f"/{name}"] = content
    with pytest.raises(DataError, match=rf"{site}/{name}: cannot be unpacked: .*{expected}"):
        retrieve(f"{site}/{name}", into=tmp_path / "cache")
    assert kept(tmp_path) == []


def test_a_path_is_itself_if_it_is_there_and_what_was_promised(tmp_path: Path):
    (tmp_path / "ratings.csv").write_bytes(TABLE)
    assert retrieve(str(tmp_path / "ratings.csv"), into=tmp_path / "cache") == tmp_path / "ratings.csv"
    assert retrieve((tmp_path / "ratings.csv").as_uri(), into=tmp_path / "cache").read_bytes() == TABLE
    with pytest.raises(DataError, match="was promised"):
        retrieve(str(tmp_path / "ratings.csv"), into=tmp_path, sha256="0" * 64)
    # A user's own file is never thrown away.
    assert (tmp_path / "ratings.csv").exists()
    with pytest.raises(DataError, match="gone: no such data file or folder"):
        retrieve(str(tmp_path / "gone"), into=tmp_path)


@pytest.mark.parametrize("url", ["http://[bad/x", "http://127.0.0.1:port/x", "file:///no/such/file", "s3://bucket/x"])
def test_what_is_no_url_or_leads_nowhere_is_one_error_that_names_it(url: str, tmp_path: Path):
    with pytest.raises(DataError) as caught:
        retrieve(url, into=tmp_path)
    assert str(caught.value).startswith(f"{url}: ")


def test_a_cache_that_cannot_be_made_is_named(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"file/.*: cannot be made to keep data in: Not a directory"):
        retrieve((tmp_path / "file").as_uri(), into=tmp_path / "file")
