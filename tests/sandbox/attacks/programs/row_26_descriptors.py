"""Opens files until it may not; raises every limit it can; passes files in flight."""

import array
import contextlib
import json
import os
import resource
import socket

raised = []
for name in dir(resource):
    if name.startswith("RLIMIT_"):
        kind = getattr(resource, name)
        _, hard = resource.getrlimit(kind)
        for value in (resource.RLIM_INFINITY, hard * 2 if hard > 0 else hard):
            if hard != resource.RLIM_INFINITY and value != hard:
                with contextlib.suppress(OSError, ValueError):
                    resource.setrlimit(kind, (value, value))
                    raised.append(name)
opened = []
number = 0
try:
    for _ in range(4096):
        opened += [os.open("/dev/null", os.O_RDONLY)]
except OSError as error:
    number = error.errno
for file in opened[8:]:
    os.close(file)
in_flight = 0
left, right = socket.socketpair()
left.setblocking(False)
with contextlib.suppress(OSError):
    for _ in range(4096):
        rights = array.array("i", [opened[0]] * 8)
        left.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
        in_flight += 8
report = {"errno": number, "opened": len(opened), "raised": raised, "in_flight": in_flight}
print(json.dumps(report))
