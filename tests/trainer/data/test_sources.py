"""Where data comes from: ratings tables, anything a user may point at, URLs, and our own making."""

import hashlib
import io
import tarfile
import threading
import zipfile
from collections.abc import Generator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from trainer.data.load import load_data
from trainer.data.movielens import read_ratings
from trainer.data.retrieve import retrieve
from trainer.data.split import hold_out
from trainer.data.synthesize import synthesize
from trainer.errors import DataError
from trainer.metrics import hits, ranking_values
from trainer.sparse import SparseDataset

SHARED = Path(__file__).resolve().parents[4] / "shared" / "data"
CSV = "userId,movieId,rating,timestamp\n"


@pytest.mark.parametrize(
    ("name", "text", "line"),
    [
        ("ratings.csv", CSV + "1,2,3,4\n1,abc\n", 3),
        ("ratings.csv", CSV + "1,2,3,4\n1,2,good,4\n", 3),
        ("ratings.csv", CSV + "1,2,3,4\n,2,3,4\n", 3),
        ("u.data", "1\t2\t3\t4\n1\t2\n", 2),
        ("ratings.dat", "1::2::3::4\n1::2::x::4\n", 2),
    ],
)
def test_a_malformed_rating_is_named_by_its_line(tmp_path: Path, name: str, text: str, line: int):
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=rf"{name}:{line}: user, item and rating are wanted"):
        load_data(tmp_path)


def test_users_and_items_are_numbered_by_first_appearance_and_titles_found(tmp_path: Path):
    (tmp_path / "ratings.csv").write_text(CSV + "9,30,4,1\n2,10,3,2\n9,10,5,3\n9,30,1,4\n")
    (tmp_path / "movies.csv").write_text('movieId,title,genres\n30,"Salt, The (1999)",Drama\n10,Comet (2001),War\n')
    loaded = load_data(tmp_path)
    dataset = loaded.dataset
    assert dataset.sample_names == ["9", "2"]
    assert dataset.features is not None
    assert dataset.features.names() == ["30", "10"]
    assert (dataset.indptr.tolist(), dataset.indices.tolist()) == ([0, 2, 3], [0, 1, 1])
    assert loaded.titles == {"30": "Salt, The (1999)", "10": "Comet (2001)"}
    assert read_ratings(tmp_path, analog=True).dataset.values is not None


@pytest.mark.parametrize("text", ["", "hello world\n", CSV])
def test_what_is_no_data_is_refused(tmp_path: Path, text: str):
    (tmp_path / "file").write_text(text)
    with pytest.raises(DataError):
        load_data(tmp_path / "file")


@pytest.mark.skipif(not (SHARED / "ml-latest-small").is_dir(), reason="../shared/data is not here")
@pytest.mark.parametrize(
    ("name", "counts"), [("ml-latest-small", (610, 9724, 100836)), ("ml-100k", (943, 1682, 100000))]
)
def test_real_tables_have_the_counts_their_authors_give(name: str, counts: tuple[int, int, int]):
    loaded = load_data(SHARED / name)
    dataset = loaded.dataset
    assert dataset.features is not None
    assert (dataset.samples, len(dataset.features), dataset.nnz) == counts
    assert set(dataset.features.ids) <= set(loaded.titles)


class Quiet(SimpleHTTPRequestHandler):
    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.asked.append(self.path)
        super().do_GET()

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def site(tmp_path: Path) -> Generator[tuple[str, Path]]:
    folder = tmp_path / "site"
    folder.mkdir()
    Quiet.asked.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", folder
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_url_is_fetched_once_and_its_checksum_held(site: tuple[str, Path], tmp_path: Path):
    url, folder = site
    (folder / "in.txt").write_text("a\tf\n")
    digest = hashlib.sha256(b"a\tf\n").hexdigest()
    first = retrieve(f"{url}/in.txt", into=tmp_path / "cache", sha256=digest)
    assert retrieve(f"{url}/in.txt", into=tmp_path / "cache") == first
    assert first.read_text() == "a\tf\n"
    assert Quiet.asked == ["/in.txt"]
    with pytest.raises(DataError, match=f"has SHA-256 {digest}"):
        retrieve(f"{url}/in.txt", into=tmp_path / "cache", sha256="0" * 64)
    assert not first.exists()


def test_what_is_not_there_is_said_with_the_servers_answer(site: tuple[str, Path], tmp_path: Path):
    with pytest.raises(DataError, match="the server answers 404"):
        retrieve(f"{site[0]}/nowhere", into=tmp_path / "cache")
    with pytest.raises(DataError, match="scheme 'ftp' is not fetched"):
        retrieve("ftp://127.0.0.1/x", into=tmp_path / "cache")
    with pytest.raises(DataError, match="cannot be fetched"):
        retrieve("http://127.0.0.1:1/x", into=tmp_path / "cache")


def test_archives_are_unpacked_to_the_folder_they_hold(tmp_path: Path):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("ml/ratings.csv", CSV + "1,2,3,4\n")
    (tmp_path / "ml.zip").write_bytes(packed.getvalue())
    found = retrieve((tmp_path / "ml.zip").as_uri(), into=tmp_path / "cache")
    assert load_data(found).dataset.nnz == 1
    with tarfile.open(tmp_path / "ml.tar.gz", "w:gz") as archive:
        archive.add(found / "ratings.csv", "ratings.csv")
    assert load_data(retrieve((tmp_path / "ml.tar.gz").as_uri(), into=tmp_path / "cache")).dataset.nnz == 1


def test_an_archive_that_would_leave_its_folder_is_refused(tmp_path: Path):
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as archive:
        archive.writestr("../../escaped", "x")
    with pytest.raises(DataError, match="would leave the folder"):
        retrieve((tmp_path / "bad.zip").as_uri(), into=tmp_path / "cache")
    assert not list(tmp_path.rglob("escaped"))


def test_made_up_data_is_the_same_for_the_same_seed(tmp_path: Path):
    for folder, seed in (("a", 1), ("b", 1), ("c", 2)):
        synthesize(tmp_path / folder, users=40, items=60, seed=seed)
    files = [{path.name: path.read_bytes() for path in sorted((tmp_path / one).iterdir())} for one in "abc"]
    assert files[0] == files[1]
    assert files[0] != files[2]
    assert set(files[0]) == {"ratings.csv", "movies.csv", "tags.csv"}
    titles = load_data(tmp_path / "a").titles
    assert len(set(titles.values())) == 60


def neighbours(training: SparseDataset) -> np.ndarray:
    """Scores of a plain item-to-item model."""
    seen = np.zeros((training.samples, training.width), np.float32)
    seen[np.repeat(np.arange(training.samples), np.diff(training.indptr)), training.indices] = 1
    together = seen.T @ seen
    norm = np.sqrt(np.outer(together.diagonal(), together.diagonal())) + 1e-9
    np.fill_diagonal(together, 0)
    return np.where(seen > 0, -np.inf, seen @ (together / norm))


def test_made_up_data_has_tastes_that_popularity_misses(tmp_path: Path):
    synthesize(tmp_path, users=400, items=300)
    training, held_out = hold_out(load_data(tmp_path).dataset, fraction=0.2, seed=1)
    wanted = np.diff(held_out.indptr)
    scores = neighbours(training)
    popular = np.where(np.isinf(scores), -np.inf, np.bincount(training.indices, minlength=training.width))
    reached = [
        ranking_values(hits(np.argsort(-one, axis=1)[:, :100], held_out), wanted, ks=[100])["ndcg@100"].mean()
        for one in (scores, popular)
    ]
    assert reached[0] > 1.3 * reached[1]
