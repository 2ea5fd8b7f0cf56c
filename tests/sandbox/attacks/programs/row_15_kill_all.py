"""Kills the parent, the group, the session and everyone; only inside a process namespace.

stdin names the caller's namespace: where it is ours too, killing would hit the host.
"""

import json
import os
import signal
import sys

if os.readlink("/proc/self/ns/pid") == sys.stdin.readline().strip():
    print(json.dumps("no process namespace"))
    raise SystemExit(1)
parent = os.getppid()
targets = [1, parent, -1, *range(2, 400)]
results = {}
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD, signal.SIGSTOP, signal.SIGKILL):
    for target in targets:
        if target != os.getpid() and not (target == -1 and number == signal.SIGSTOP):
            try:
                os.kill(target, number)
                results[f"{target}"] = "sent"
            except ProcessLookupError:
                pass
            except PermissionError:
                results[f"{target}"] = "denied"
reached = sorted(int(target) for target in results if target != "-1")
print(json.dumps({"own": os.getpid(), "parent": parent, "reached": reached}), flush=True)
os.kill(0, signal.SIGKILL)  # our own group, whoever else is in it
print("alive after killing its own group")
