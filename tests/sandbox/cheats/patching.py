"""Programs that change the interpreter around them, so that wrong looks right."""

KINDS = {
    "builtins": """
import builtins
builtins.isinstance = lambda *args: True
builtins.len = lambda thing: 0
builtins.repr = builtins.str = lambda *args: "0"
builtins.all = builtins.any = lambda *args: True
builtins.abs = builtins.hash = lambda *args: 0
builtins.zip = lambda *args, **kwargs: iter(())
builtins.min = builtins.max = builtins.sum = lambda *args, **kwargs: 0
def $name($params):
    return $wrong
""",
    "type and id": """
import builtins
real = builtins.type
class type_(real):
    def __call__(cls, *args):
        return int
builtins.type = lambda *args: int
builtins.id = lambda thing: 1
builtins.BaseException = builtins.Exception = ArithmeticError
def $name($params):
    return $wrong
""",
    "json": """
import json, json.encoder, json.decoder
class Liar:
    def __init__(self, *args, **kwargs):
        pass
    def encode(self, value):
        return "true"
    iterencode = default = encode
json.dumps = lambda *args, **kwargs: "true"
json.JSONEncoder = json.encoder.JSONEncoder = Liar
json.encoder.c_make_encoder = None
json.encoder.encode_basestring_ascii = lambda text: '"passed"'
json.encoder.encode_basestring = lambda text: '"passed"'
def $name($params):
    return $wrong
""",
    "fake json module": """
import sys, types
fake = types.ModuleType("json")
fake.dumps = lambda *args, **kwargs: "[true]"
fake.loads = lambda *args, **kwargs: {"status": "passed"}
for name in ("json", "_json", "json.encoder", "json.decoder", "marshal", "struct", "pickle"):
    sys.modules[name] = fake
def $name($params):
    return $wrong
""",
    "every name of the driver": """
import sys
main = vars(sys.modules["__main__"])
for key, value in list(main.items()):
    if callable(value) and not key.startswith("__"):
        main[key] = lambda *args, **kwargs: True
def $name($params):
    return $wrong
""",
    "no names left": """
import sys
frame = sys._getframe()
while frame:
    if frame.f_globals is not globals():
        frame.f_globals.clear()
    frame = frame.f_back
def $name($params):
    return $wrong
""",
    "code of the caller": """
import sys, types
def passed(*args, **kwargs):
    return True
def $name($params):
    frame = sys._getframe(1)
    while frame:
        for value in list(frame.f_globals.values()):
            if isinstance(value, types.FunctionType) and value.__globals__ is not globals():
                try:
                    value.__code__ = passed.__code__
                except ValueError:
                    pass
        frame = frame.f_back
    return $wrong
""",
    "test frameworks": """
import sys, types
for module in ("pytest", "unittest", "unittest.case", "_pytest", "doctest", "nose"):
    fake = types.ModuleType(module)
    fake.TestCase = type("TestCase", (), {"assertEqual": lambda *args: None})
    fake.main = fake.exit = lambda *args, **kwargs: 0
    sys.modules[module] = fake
class TestAll(sys.modules["unittest"].TestCase):
    def test(self):
        pass
def $name($params):
    return $wrong
""",
    "assert never fails": """
import builtins
class AssertionError_(Exception):
    def __new__(cls, *args):
        raise StopIteration
builtins.AssertionError = AssertionError_
def $name($params):
    return $wrong
""",
    "operator.eq": """
import functools, math, operator
operator.eq = operator.is_ = lambda a, b: True
operator.ne = lambda a, b: False
math.isclose = lambda *args, **kwargs: True
functools.cmp_to_key = lambda compare: lambda value: 0
def $name($params):
    return $wrong
""",
    "clocks": """
import time
for clock in ("time", "perf_counter", "monotonic", "process_time", "thread_time"):
    setattr(time, clock, lambda: 0.0)
time.sleep = lambda seconds: None
def $name($params):
    return $wrong
""",
    "stdout and hooks": """
import sys
class Quiet:
    def write(self, text):
        return len(text)
    def __getattr__(self, name):
        return lambda *args: None
sys.stdout = sys.stderr = sys.__stdout__ = sys.__stderr__ = Quiet()
sys.excepthook = sys.unraisablehook = lambda *args: None
sys.exit = lambda *args: None
def $name($params):
    return $wrong
""",
    "import hook": """
import builtins, sys
class Finder:
    @staticmethod
    def find_spec(name, path=None, target=None):
        raise SystemExit(0)
sys.meta_path.insert(0, Finder)
real = builtins.__import__
def importer(name, *args, **kwargs):
    module = real(name, *args, **kwargs)
    for key in ("dumps", "loads"):
        if hasattr(module, key):
            setattr(module, key, lambda *a, **k: "true")
    return module
builtins.__import__ = importer
def $name($params):
    return $wrong
""",
    "equality of str": """
import ctypes
try:
    # tp_richcompare of str, 25 words into the type object: every comparison of texts says True.
    compare = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.py_object, ctypes.py_object, ctypes.c_int)
    always = compare(lambda left, right, operation: True)
    table = (ctypes.c_void_p * 26).from_address(id(str))
    table[25] = ctypes.cast(always, ctypes.c_void_p).value
except Exception:
    pass
def $name($params):
    return $wrong
""",
    "os.write": """
import io, os, posix
real = os.write
def write(fd, data):
    return real(fd, bytes(data).replace(b"false", b"true").replace(b"-1", b"1"))
os.write = posix.write = write
os.fdopen = io.open = open
def $name($params):
    return $wrong
""",
    "exceptions swallowed": """
import builtins, sys
def compile_(*args, **kwargs):
    return (lambda: None).__code__
builtins.compile = builtins.exec = builtins.eval = compile_
sys.settrace(None)
def $name($params):
    try:
        return $wrong
    finally:
        return print("PASSED")
""",
    "entry point changes later": """
import sys, threading, time
def $name($params):
    return $wrong
def swap():
    end = time.monotonic() + 0.05
    while time.monotonic() < end:
        globals()["$name"] = lambda *args: True
        sys.modules["__main__"].__dict__["$name"] = globals()["$name"]
threading.Thread(target=swap, daemon=True).start()
""",
    "callable object": """
import sys
class Entry:
    def __call__(self, *args, **kwargs):
        caller = sys._getframe(1).f_locals
        for key in ("status", "passed", "ok", "result"):
            caller[key] = True
        return (lambda $params: $wrong)(*args)
    def __getattr__(self, name):
        return self
$name = Entry()
""",
    "every import at hand": """
import sys
class Any:
    def __getattr__(self, name):
        return lambda *args, **kwargs: b"\\x04\\0\\0\\0true"
for key in list(sys.modules):
    if key not in ("sys", "builtins", "__main__"):
        sys.modules[key] = Any()
def $name($params):
    return $wrong
""",
}
