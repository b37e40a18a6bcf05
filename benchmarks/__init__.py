"""Measurements of sk_adalora: see README.md."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # packages hold all that is needed
