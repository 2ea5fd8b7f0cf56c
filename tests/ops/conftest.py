"""Lets the tests here import what they share (attention_jvp, linear_nll_inputs)."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
