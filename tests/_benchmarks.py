"""Makes `benchmarks`, which is not installed, importable from its checkout."""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
if not (ROOT / "benchmarks" / "__main__.py").exists():
    pytest.skip("the tests are here without benchmarks/", allow_module_level=True)
sys.path.append(str(ROOT))
