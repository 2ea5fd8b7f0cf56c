"""The code of docs/integrations.md, so that what the page shows is what the tests run."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

PAGE = Path(__file__).resolve().parents[2] / "docs" / "integrations.md"


def snippet(section: str) -> SimpleNamespace:
    """The names that the Python blocks of ``## section`` define; ``notest`` blocks are left out."""
    text = re.search(rf"^## {re.escape(section)}\n(.*?)(?=^## |\Z)", PAGE.read_text(), re.M | re.S)
    assert text, f"{PAGE.name} has no section {section!r}"
    blocks = re.findall(r"^```python\n(.*?)^```", text[1], re.M | re.S)
    names: dict[str, object] = {"__name__": f"integrations.{section}"}
    exec(compile("\n".join(blocks), str(PAGE), "exec"), names)
    return SimpleNamespace(**{name: value for name, value in names.items() if name[0] != "_"})
