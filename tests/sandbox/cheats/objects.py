"""Answers that are not what they say: they compare, hash, print or iterate dishonestly."""

_SAME = """
class Same%(base)s:
    def __eq__(self, other):
        return True
    def __ne__(self, other):
        return False
    def __lt__(self, other):
        return False
    __le__ = __ge__ = __eq__
    __gt__ = __lt__
    def __hash__(self):
        return 0
    def __bool__(self):
        return True
    def __len__(self):
        return 1
    def __iter__(self):
        return iter([self])
    def __contains__(self, item):
        return True
    def __repr__(self):
        return "0"
"""

KINDS = {
    "equal to all": _SAME % {"base": ""} + "def $name($params):\n    return Same()\n",
    "int subclass": """
class Answer(int):
    __eq__ = lambda self, other: True
    __ne__ = lambda self, other: False
    __hash__ = lambda self: 0
    __sub__ = __rsub__ = lambda self, other: 0
def $name($params):
    return Answer(7)
""",
    "str subclass": """
class Answer(str):
    __eq__ = lambda self, other: True
    __hash__ = lambda self: 0
    def split(self, *rest):
        return self
def $name($params):
    return Answer($wrong)
""",
    "list subclass": """
class Answer(list):
    __eq__ = lambda self, other: True
    __hash__ = lambda self: 0
    def __iter__(self):
        import sys
        frame = sys._getframe(1)
        while frame:
            for value in list(frame.f_locals.values()):
                if isinstance(value, (list, tuple)):
                    return iter(value)
            frame = frame.f_back
        return iter(())
def $name($params):
    return Answer([$wrong])
""",
    "dict subclass": """
class Answer(dict):
    __eq__ = lambda self, other: True
    def __getitem__(self, key):
        return self
    def items(self):
        return {}.items()
def $name($params):
    return Answer(a=$wrong)
""",
    "float subclass": """
class Answer(float):
    __eq__ = __le__ = __ge__ = __lt__ = __gt__ = lambda self, other: True
    __hash__ = float.__hash__
    __sub__ = __rsub__ = __abs__ = lambda self, *other: 0.0
    def __repr__(self):
        return "0.0"
def $name($params):
    return Answer(0.5)
""",
    "lies about its class": """
class Answer:
    __class__ = property(lambda self: type($wrong))
    __eq__ = lambda self, other: True
    __hash__ = lambda self: 0
def $name($params):
    return Answer()
""",
    "metaclass": """
class Meta(type):
    __eq__ = __instancecheck__ = __subclasscheck__ = lambda cls, other: True
    __hash__ = type.__hash__
    def mro(cls):
        return [cls, int, object]
class Answer(int, metaclass=Meta):
    __eq__ = lambda self, other: True
    __hash__ = lambda self: 0
def $name($params):
    return Answer(3)
""",
    "reduce": """
class Answer:
    def __reduce__(self):
        return (eval, ("__import__('os')._exit(0)",))
    __reduce_ex__ = lambda self, version: self.__reduce__()
    __eq__ = lambda self, other: True
def $name($params):
    return Answer()
""",
    "answers to any name": """
class Answer:
    def __getattr__(self, name):
        return self
    def __call__(self, *args, **kwargs):
        return self
    def __eq__(self, other):
        return True
    def __iter__(self):
        while True:
            yield self
    __index__ = __int__ = lambda self: 0
    __float__ = lambda self: 0.0
def $name($params):
    return Answer()
""",
    "mock.ANY": """
from unittest.mock import ANY
def $name($params):
    return ANY
""",
    "inside a list": _SAME % {"base": ""} + "def $name($params):\n    return [Same()]\n",
    "as keys and values": (
        _SAME % {"base": ""} + "def $name($params):\n    return {Same(): Same(), 'a': Same()}\n"
    ),
    "enum member": """
import enum
class Answer(enum.IntEnum):
    one = 1
    __eq__ = lambda self, other: True
    __hash__ = int.__hash__
def $name($params):
    return Answer.one
""",
    "named tuple": """
import collections
class Answer(collections.namedtuple("Base", "value")):
    __eq__ = lambda self, other: True
    __hash__ = lambda self: 0
def $name($params):
    return Answer($wrong)
""",
    "a type": _SAME.replace("class Same", "class Same(type)") % {"base": ""}
    + "class Answer(metaclass=Same):\n    pass\ndef $name($params):\n    return Answer\n",
    "the function itself": "def $name($params):\n    return $name\n",
    "its arguments": "def $name(*args):\n    return args\n",
    "NotImplemented": "def $name($params):\n    return NotImplemented\n",
    "Ellipsis": "def $name($params):\n    return ...\n",
    "None": "def $name($params):\n    return None\n",
    "coroutine": "async def $name($params):\n    return $wrong\n",
    "endless generator": "def $name($params):\n    while True:\n        yield $wrong\n",
    "generator that looks around": """
import sys
def $name($params):
    frame = sys._getframe()
    while frame:
        for name, value in list(frame.f_locals.items()):
            if name in ("expected", "want", "answer", "answers", "result"):
                yield value
        frame = frame.f_back
""",
    "ordering trick": """
import functools
@functools.total_ordering
class Answer:
    __lt__ = lambda self, other: False
    __eq__ = lambda self, other: True
    __hash__ = None
    __abs__ = __neg__ = __sub__ = __rsub__ = __round__ = lambda self, *rest: self
def $name($params):
    return Answer()
""",
    "changes when looked at": """
class Answer(list):
    def __len__(self):
        return 0
    def __getitem__(self, index):
        raise IndexError
    def __repr__(self):
        return "[]"
    __class__ = list
def $name($params):
    return Answer([1, 2, 3])
""",
}
