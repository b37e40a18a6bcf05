"""Makes `benchmarks`, which is not installed, importable."""

import sys
from pathlib import Path

import pytest
from _toy import topics

ROOT = Path(__file__).parent.parent.parent
if (ROOT / "benchmarks" / "__main__.py").exists():
    sys.path.append(str(ROOT))
else:
    collect_ignore_glob = ["test_*"]  # the tests are here without benchmarks/


@pytest.fixture(scope="session")
def csv_file(tmp_path_factory):
    """A file of 240 texts on three topics. Do not write into it."""
    texts, labels = topics(240)
    rows = [f"{x} {i},{y}" for i, (x, y) in enumerate(zip(texts, labels, strict=True))]
    path = tmp_path_factory.mktemp("data") / "mine.csv"
    path.write_text("\n".join(["text,label", *rows]), encoding="utf-8")
    return path
