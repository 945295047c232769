"""What fuzzing begins with and throws in: small whole files of the text formats, and pieces that have a meaning."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trainer import network_names as words

ROOT = Path(__file__).parents[1]

TITLES_AFTER = b"\x1e"
"""Parts a ratings table from the titles beside it, in an input that holds both."""
TEXTS = (
    b"alice\ta:b:c\nbob\tb:d\ncarol\ta,0.5:d,2\n",
    b"1\t10:11:12\n2\t11,5:12,-1e-3:13,0x1.8p3\n\n3\t\n1\t13\n",
    b"u1\ta,1,2:b,:c\nmalformed\nu2\t:a::b:\r\n\t x\n",
    "größe\tä,1:ö,inf\n\udcff\t\udcfe:é,nan\n".encode("utf-8", "surrogateescape"),
)
TEXT_TOKENS = (
    b"\t", b"\n", b":", b",", b"\r", b"\0", b" ", b"\xff", b"\xef\xbb\xbf", b"a", b"bob\ta:b\n", b",1e999",
    b"\xe2\x80\xa8",
)  # fmt: skip
INDEXES = (b"a\t0\nb\t1\nc\t2\n", b"x\t-1\ny\t 007z\nz\t4294967296\n", b"one\t\ntwo\t2\t\n", "é\t5\n".encode())
RATINGS = (
    b"userId,movieId,rating,timestamp\n1,10,4.0,964982703\n1,11,3.5,964981247\n2,10,5,0\n",
    b"1\t10\t4\t881250949\n2\t11\t3\t891717742\n2\t10\t1\t878887116\n",
    b"1::10::5::978300760\n1::11::3::978302109\n" + TITLES_AFTER + b"10::Ten (1990)::Drama\n11::Eleven\n",
    b'user,item,rating\n"a, b","say ""x""",1\nc,d,2\n'
    + TITLES_AFTER
    + b'movieId,title,genres\nd,Ten (1990),Drama\n11,"Eleven, the",Comedy\n',
    b"alice\ta:b:c\nbob\tb:d\n",
)
PARTS = (
    b"0 10 11 12\n1 11 13\n2 14\n" + TITLES_AFTER + b"0 13\n1 10\n2\n",
    b"a\tx\t5\t1\na\ty\t1\t6\nb\tx\t4\t2\nb\ty\t4\t7\nc\ty\t3\t3\nc\tx\t5\t8\n" + TITLES_AFTER + b"a\tz:y\nb\tz\n",
    b"a\tx:y:z\nb\tx:z\n" + TITLES_AFTER + b"b\ty\n",
)
"""What is trained on, then what is held out."""
RATINGS_TOKENS = (
    b",", b"\t", b"::", b"|", b"\n", b"\r", b"\r\n", b'"', b'""', b'"\n', b"\0", b"\xff", b"\xef\xbb\xbf", b"#", b" ",
    b"user,item,rating\n", TITLES_AFTER, b"1,10,", b"-0", b"1e5", b"nan", b"\xc2\xa0",
)  # fmt: skip
JSON_TOKENS = (
    b"{", b"}", b"[", b"]", b'"', b"\\", b",", b":", b"/*", b"*/", b"//", b"/* ", b"null", b"true", b"NaN", b"1e999",
    b"-Infinity", b'"\\ud800"', b'\\"', b'{"a":', b"\xef\xbb\xbf", b"\xff", b"\0", b"\n", b'"auto"', b"9" * 500,
    b"9" * 5000,
)  # fmt: skip
JSON_VALUES: Sequence[Any] = (
    None, True, False, 0, 1, 2, 3, 21, -1, 0.5, 1e-46, 1e39, 1e308, float("inf"), 10**400, 2**31 - 1, 2**31, 2**63,
    -(2**70), "", "auto", "x" * 500, "\ud800", "\0", "größe", "1", [], {}, [[]], [1, 2], [0], [3, 3, 3, 3, 3],
    {"p": 0.5}, {"k": 0}, "Predict", "Validate", "Words", "Code", "Maps", "Input", "words", words.MULTINOMIAL,
    *words.NETWORK_KEYS, *words.NETWORK_SYNONYMS, *words.LAYER_KEYS, *words.LAYER_KINDS, *words.LAYER_TYPES,
    *words.FUNCTIONS, *words.ACTIVATIONS, *words.ERROR_FUNCTIONS, *words.SCHEMES, *words.OPTIMIZERS,
)  # fmt: skip
NETWORKS = [
    *sorted((ROOT / "tests" / "cases" / "fuzz").glob("*.json")),
    *sorted((ROOT / "configs" / "networks").glob("*.json")),
]
BROKEN_NETWORKS = sorted((ROOT / "tests" / "cases" / "networks").glob("*.json"))
CDLS = [ROOT / "tests" / "cases" / "fuzz" / "train.cdl"]
SWITCHES = frozenset({"-c", "-m", "-h", "--keep", "--drop", "--help"})
VALUED = frozenset({"-d", "-i", "-o", "-b", "-lambda", "-lambda1", "--seed", "--run-dir"})
ARGUMENTS = (
    *sorted(VALUED), *sorted(SWITCHES), "--seed=3", "--keep=1", "--", "-", "", "value", "-5", "--sede", "-b8", "\udcff",
    "=", "--=",
)  # fmt: skip
