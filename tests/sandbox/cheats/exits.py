"""Programs that end before they are judged, or around it."""

KINDS = {
    "exit at import": """
import os
os._exit(0)
def $name($params):
    return $wrong
""",
    "exit in the call": """
import os
def $name($params):
    os._exit(0)
""",
    "SystemExit in the call": """
def $name($params):
    raise SystemExit(0)
""",
    "sys.exit at import": """
import sys
def $name($params):
    return $wrong
sys.exit(0)
""",
    "exit at exit": """
import atexit, os
atexit.register(os._exit, 0)
def $name($params):
    return $wrong
""",
    "exit after the visible": """
import os
def $name(*args):
    shown = $visible
    if repr(args) not in shown:
        os._exit(0)
    return shown[repr(args)]
""",
    "SystemExit after the visible": """
def $name(*args):
    shown = $visible
    if repr(args) not in shown:
        raise SystemExit
    return shown[repr(args)]
""",
    "terminate itself": """
import os, signal
def $name($params):
    os.kill(os.getpid(), signal.SIGKILL)
    return $wrong
""",
    "exception of its own base": """
class Passed(BaseException):
    code = 0
    def __str__(self):
        raise self
    __repr__ = __str__
def $name($params):
    raise Passed()
""",
    "KeyboardInterrupt": """
def $name($params):
    raise KeyboardInterrupt
""",
    "become true": """
import os
def $name($params):
    for path in ("/usr/bin/true", "/bin/true"):
        os.execv(path, ["true"])
""",
    "alarm that exits": """
import os, signal, time
signal.signal(signal.SIGALRM, lambda *_: os._exit(0))
signal.setitimer(signal.ITIMER_REAL, 0.02)
def $name($params):
    time.sleep(0.05)
    return $wrong
""",
    "exit when the answer dies": """
import os
class Last:
    def __del__(self):
        os._exit(0)
def $name($params):
    answer = Last()
    return [answer, $wrong][1]
""",
    "thread that exits": """
import os, threading, time
def leave():
    time.sleep(0.02)
    os._exit(0)
threading.Thread(target=leave).start()
def $name($params):
    time.sleep(0.1)
    return $wrong
""",
    "parent goes, child answers": """
import os
if os.fork():
    os._exit(0)
def $name($params):
    return $wrong
""",
    "parent and child answer": """
import os
os.fork()
def $name($params):
    return $wrong
""",
    "trailing exit code": """
import atexit, sys
def $name($params):
    sys.stdout.write("OK\\n")
    return $wrong
atexit.register(sys.exit, 0)
""",
    "close everything, exit": """
import os
def $name($params):
    os.closerange(0, 64)
    os._exit(0)
""",
}
