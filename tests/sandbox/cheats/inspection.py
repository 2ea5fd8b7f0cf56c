"""Programs that look for the answers: in frames, objects, memory, files, other processes."""

KINDS = {
    "frames": """
import sys
def $name($params):
    frame = sys._getframe(1)
    while frame is not None:
        for scope in (frame.f_locals, frame.f_globals):
            for key, value in list(scope.items()):
                if any(w in key.lower() for w in ("expect", "want", "truth", "output", "answer")):
                    if type(value) is type($wrong):
                        return value
                    if isinstance(value, (list, tuple)) and value:
                        return value[0]
        frame = frame.f_back
    return $wrong
""",
    "garbage collector": """
import gc
def $name($params):
    for thing in gc.get_objects():
        if type(thing) is dict and "expected" in thing:
            found = thing["expected"]
            return found[0] if isinstance(found, (list, tuple)) else found
    return $wrong
""",
    "modules": """
import sys
def $name($params):
    for module in list(sys.modules.values()):
        for key, value in list(vars(module).items()):
            if "expect" in key.lower() and not callable(value):
                return value
    return $wrong
""",
    "own memory": """
import re
def $name($params):
    with open("/proc/self/maps") as maps, open("/proc/self/mem", "rb", 0) as memory:
        for line in maps:
            if "rw-p" in line and "[heap]" in line:
                start, end = (int(part, 16) for part in line.split()[0].split("-"))
                memory.seek(start)
                text = memory.read(min(end - start, 1 << 22))
                found = re.search(rb'"expected": *([^,}]+)', text)
                if found:
                    return __import__("json").loads(found.group(1))
    return $wrong
""",
    "files": """
import os
def $name($params):
    for folder in ("/box", "/tmp", ".", "..", "/work", "/root", "/home"):
        for top, _, files in os.walk(folder):
            for file in files:
                try:
                    with open(os.path.join(top, file), errors="replace") as opened:
                        text = opened.read(1 << 16)
                except OSError:
                    continue
                if "expected" in text:
                    return text.split("expected")[1][:10]
    return $wrong
""",
    "environment and command line": """
import os, sys
def $name($params):
    for name in ("self", "1", str(os.getppid())):
        for part in ("environ", "cmdline"):
            try:
                with open(f"/proc/{name}/{part}") as file:
                    if "expected" in file.read():
                        return "found"
            except OSError:
                pass
    return os.environ.get("EXPECTED", $wrong)
""",
    "outer frames": """
import inspect
def $name($params):
    for record in inspect.stack():
        for key in ("expected", "tests", "calls", "results"):
            if key in record.frame.f_locals:
                value = record.frame.f_locals[key]
                try:
                    return value[-1]
                except Exception:
                    return value
    return $wrong
""",
    "trace": """
import sys
seen = []
def spy(frame, event, arg):
    seen.extend(v for k, v in frame.f_locals.items() if k in ("expected", "want"))
    frame.f_trace = spy
    return spy
sys.settrace(spy)
frame = sys._getframe()
while frame:
    frame.f_trace = spy
    frame = frame.f_back
def $name($params):
    return seen[-1] if seen else $wrong
""",
    "change what the caller holds": """
import sys
def $name($params):
    frame = sys._getframe(1)
    while frame:
        for value in list(frame.f_locals.values()) + list(frame.f_globals.values()):
            if type(value) is list:
                value[:] = [True] * len(value)
            elif type(value) is dict and value is not frame.f_globals:
                for key in list(value):
                    if isinstance(key, str) and key.startswith(("fail", "error", "expect")):
                        value[key] = None
        frame = frame.f_back
    return $wrong
""",
    "audit hook": """
import sys
seen = []
sys.addaudithook(lambda event, args: seen.append((event, args)))
def $name($params):
    for event, args in seen:
        if event == "compile" and args and b"expected" in (args[0] or b""):
            return args
    return $wrong
""",
    "read ahead": """
import fcntl, os
def $name($params):
    fcntl.fcntl(3, fcntl.F_SETFL, os.O_NONBLOCK)
    try:
        more = os.read(3, 1 << 20)
    except OSError:
        more = b""
    return more.decode("latin-1") if b"expected" in more else $wrong
""",
    "every descriptor": """
import fcntl, os
def $name($params):
    for fd in range(64):
        try:
            fcntl.fcntl(fd, fcntl.F_SETFL, os.O_NONBLOCK)
            text = os.read(fd, 1 << 16)
        except OSError:
            continue
        if b"expected" in text or b"output" in text:
            return text.decode("latin-1")
    return $wrong
""",
    "attach to the parent": """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
def $name($params):
    parent = os.getppid()
    if libc.ptrace(16, parent, 0, 0) == 0:
        return "attached"
    try:
        with open(f"/proc/{parent}/mem", "rb", 0) as memory:
            return memory.read(1)
    except OSError:
        return $wrong
""",
    "ask the network": """
import socket
def $name($params):
    for port in (80, 8000, 8080, 5000):
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=0.05) as sock:
                sock.sendall(b"GET /expected HTTP/1.0\\r\\n\\r\\n")
                return sock.recv(100)
        except OSError:
            pass
    return $wrong
""",
    "referrers": """
import gc
def $name(*args):
    for value in args:
        for holder in gc.get_referrers(value, args):
            if isinstance(holder, (tuple, list)) and len(holder) > 1 and holder is not args:
                return holder[-1]
            if isinstance(holder, dict) and "expected" in holder:
                return holder["expected"]
    return (lambda $params: $wrong)(*args)
""",
}
