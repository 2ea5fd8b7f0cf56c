"""Programs that know the examples, or guess; and programs that do not run at all."""

KINDS = {
    "examples by heart": """
def $name(*args):
    return $visible.get(repr(args), (lambda $params: $wrong)(*args))
""",
    "the answer of the first example": """
def $name(*args):
    return next(iter($visible.values()))
""",
    "examples in order": """
state = iter(list($visible.values()) * 9)
def $name(*args):
    return next(state)
""",
    "the last answer again": """
memory = []
def $name(*args):
    memory.append($visible.get(repr(args), memory[-1] if memory else None))
    return memory[-1]
""",
    "right half of the time": """
turn = 0
def $name($params):
    global turn
    turn += 1
    return ($right) if turn % 2 else ($wrong)
""",
    "right but for the last": """
turn = 0
def $name($params):
    global turn
    turn += 1
    return ($wrong) if turn > 4 else ($right)
""",
    "random": """
import random
def $name($params):
    return random.Random(7).choice([True, False, 0, "", [], {}, 0.0, $wrong])
""",
    "prints a pass": """
print("PASSED\\nOK\\nAll tests passed\\n1 passed in 0.01s\\n{\\"status\\": \\"passed\\"}")
def $name($params):
    print("::PASS::", flush=True)
    return $wrong
""",
    "returns a verdict": """
def $name($params):
    return {"status": "passed", "passed": True, "value": $wrong}
""",
    "wrapped in a list": "def $name($params):\n    return [$right]\n",
    "as text": "def $name($params):\n    return 'answer: ' + repr($right)\n",
    "prints, returns nothing": "def $name($params):\n    print($right)\n",
    "right in a default": "def $name($params, *, answer=None):\n    answer = $right\n    return\n",
    "does not parse": "def $name($params)\n    return $right\n",
    "raises while loading": "def $name($params):\n    return $right\nraise ValueError('done')\n",
    "another name": "def ${name}_(  $params):\n    return $right\n",
    "no function": "$name = 42\n",
    "a class": """
class $name:
    def __init__(self, $params):
        self.answer = $right
    __eq__ = lambda self, other: True
""",
    "one parameter too many": "def $name($params, more):\n    return $right\n",
    "raises the answer": "def $name($params):\n    raise StopIteration($right)\n",
    "yields the answer first": "def $name($params):\n    yield $wrong\n    return $right\n",
    "loops for ever": "def $name($params):\n    while True:\n        pass\n",
    "sleeps for ever": """
import time
def $name($params):
    time.sleep(60)
    return $wrong
""",
    "never stops printing": """
def $name($params):
    while True:
        print($right)
""",
}
