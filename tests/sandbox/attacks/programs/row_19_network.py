"""Tries to reach the caller: TCP, UDP, abstract and named Unix sockets, other families.

stdin: JSON {"port": ..., "udp": ..., "abstract": ..., "path": ..., "addresses": [...]}.
"""

import json
import os
import socket
import sys

target = json.loads(sys.stdin.read())
reached = []


def attempt(label: str, family: int, kind: int, address: object) -> None:
    try:
        with socket.socket(family, kind) as sock:
            sock.settimeout(0.2)
            sock.connect(address)
            sock.send(b"out")
            reached.append(label)
    except OSError:
        pass


for address in target["addresses"]:
    attempt(f"tcp {address}", socket.AF_INET, socket.SOCK_STREAM, (address, target["port"]))
    # A datagram to one's own loopback counts as sent: the listener says whether it came.
    attempt(f"udp {address}", socket.AF_INET, socket.SOCK_DGRAM, (address, target["udp"]))
attempt("tcp6", socket.AF_INET6, socket.SOCK_STREAM, ("::1", target["port"]))
attempt("abstract", socket.AF_UNIX, socket.SOCK_STREAM, "\0" + target["abstract"])
attempt("path", socket.AF_UNIX, socket.SOCK_STREAM, target["path"])
# Families that no network namespace holds, or that only widen the kernel's surface.
families = {
    "netlink": 16,
    "packet": 17,
    "alg": 38,
    "vsock": 40,
    "bluetooth": 31,
    "xdp": 44,
    "tipc": 30,
}
made = []
for name, number in families.items():
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_RAW, socket.SOCK_SEQPACKET):
        try:
            os.close(socket.socket(number, kind).detach())
            made.append(name)
            break
        except OSError:
            pass
with open("/proc/net/dev") as file:
    interfaces = sorted(line.split(":")[0].strip() for line in file if ":" in line)
print(json.dumps({"reached": reached, "made": made, "interfaces": interfaces}))
