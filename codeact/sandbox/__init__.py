"""Running programs that nobody trusts, and measuring what they use."""

from __future__ import annotations

from codeact.sandbox.limits import Limits
from codeact.sandbox.run import Outcome, Run
from codeact.sandbox.sandbox import Sandbox
from codeact.sandbox.unavailable import SandboxUnavailable

__all__ = ["Limits", "Outcome", "Run", "Sandbox", "SandboxUnavailable"]
