"""Programs that speak on the answers' pipe themselves, in the driver's own words."""

_FORGE = """
import json, os, sys
def send(payload, length=None):
    size = len(payload) if length is None else length
    os.write(4, size.to_bytes(4, "little") + payload)
def answer(index, text):
    send(b"A" + index.to_bytes(4, "little") + text.encode())
"""
_WRONG = "def $name($params):\n    return $wrong\n"
_HALF = """
turn = -1
def $name($params):
    global turn
    turn += 1
"""

KINDS = {
    "answers for all, then gone": _FORGE
    + """
send(b"L")
for index, value in enumerate(list($visible.values()) * 3):
    answer(index, json.dumps(value))
os._exit(0)
"""
    + _WRONG,
    "loaded twice": _FORGE + "send(b'L')\n" + _WRONG,
    "ends with a pass": _FORGE + "send(b'L')\nsend(b'Epassed\\nall')\nos._exit(0)\n" + _WRONG,
    "claims a status": _FORGE + "send(b'Epassed\\n')\nos._exit(0)\n" + _WRONG,
    "claims passed from the call": _FORGE
    + "def $name($params):\n    send(b'Epassed\\n')\n    os._exit(0)\n",
    "right frame, then a wrong answer": _FORGE
    + _HALF
    + "    answer(turn, json.dumps($right))\n    return $wrong\n",
    "wrong answer, then a right frame": _FORGE
    + _HALF
    + """
    result = $wrong
    import threading
    threading.Timer(0.01, answer, (turn, json.dumps($right))).start()
    return result
""",
    "right frame, then gone": _FORGE
    + _HALF
    + "    answer(turn, json.dumps($right))\n    os._exit(0)\n",
    "answers at exit": _FORGE
    + "import atexit\natexit.register(lambda: [answer(i, 'true') for i in range(9)])\n"
    + _WRONG,
    "length of 4 GiB": _FORGE + "def $name($params):\n    send(b'A', 2**32 - 1)\n    os._exit(0)\n",
    "length above what comes": _FORGE
    + "def $name($params):\n    send(b'A\\0\\0\\0\\0true', 50)\n    return $wrong\n",
    "swallows the next frame": _FORGE
    + "def $name($params):\n    os.write(4, (64).to_bytes(4, 'little'))\n    return $wrong\n",
    "empty frames": _FORGE + "for _ in range(100):\n    send(b'')\n" + _WRONG,
    "half a header": "import os\nos.write(4, b'\\1\\0')\nos._exit(0)\n" + _WRONG,
    "a flood of frames": _FORGE
    + "def $name($params):\n    while True:\n        answer(0, json.dumps($right))\n",
    "closes the pipe": "import os\nos.close(4)\n" + _WRONG,
    "stdout is the pipe": "import os\nos.dup2(4, 1)\nprint('Ltrue' * 20)\n" + _WRONG,
    "pipe goes to stdout": "import os\nos.dup2(1, 4)\n" + _WRONG,
    "negative index": _FORGE
    + "def $name($params):\n    send(b'A\\xff\\xff\\xff\\xff' + b'true')\n    return $wrong\n",
    "from the back": _FORGE
    + "send(b'L')\nfor i in range(9, -1, -1):\n    answer(i, 'true')\nos._exit(0)\n"
    + _WRONG,
    "not UTF-8": _FORGE
    + "def $name($params):\n    send(b'A\\0\\0\\0\\0\\xff\\xfe\"')\n    os._exit(0)\n",
    "text after the value": _FORGE
    + _HALF
    + "    answer(turn, json.dumps($right) + ' ,1')\n    os._exit(0)\n",
    "its own driver": _FORGE
    + """
from marshal import loads
def take():
    size = int.from_bytes(os.read(3, 4), "little")
    return loads(os.read(3, size))
def $name($params):
    return $wrong
send(b"L")
for index in range(100):
    nodes, args, kwargs = take()
    answer(index, json.dumps($name(*args, **kwargs)))
""",
    "child that answers first": _FORGE
    + """
if os.fork() == 0:
    send(b"L")
    for index in range(9):
        answer(index, json.dumps(next(iter($visible.values()))))
    os._exit(0)
"""
    + _WRONG,
    "between the frames": _FORGE
    + """
import threading, time
def talk():
    for _ in range(50):
        answer(0, "true")
        time.sleep(0.001)
threading.Thread(target=talk, daemon=True).start()
"""
    + _WRONG,
}

# Values that only a forged frame can carry: each is sent as the first answer.
_VALUES = {
    "unhashable in a set": '{"set": [[1]]}',
    "unhashable key": '{"dict": [[[1], 2]]}',
    "a dict that is none": '{"dict": 5}',
    "pairs of three": '{"dict": [[1, 2, 3]]}',
    "two tags": '{"tuple": [], "set": []}',
    "one tag twice": '{"dict": [], "dict": [[1, 2]]}',
    "unknown tag": '{"expected": 0}',
    "nodes that are none": '{"linked_list": 3}',
    "no hex": '{"bytes": "zz"}',
    "complex of text": '{"complex": ["nan", true]}',
    "digits with underscores": '{"int": "0x_1"}',
    "float of words": '{"float": "1_0"}',
    "no character": '{"str": [1114112, -1]}',
    "NaN of JSON": "NaN",
    "infinity of JSON": "[Infinity, -Infinity]",
    "a million digits": "1' + '0' * 10**6 + '",
    "exponent": "1e999999999",
    "a very deep list": "' + '[' * 10**5 + ']' * 10**5 + '",
    "open lists": "' + '[' * 10**6 + '",
    "lone surrogate": '"\\\\ud800"',
    "nothing": "",
}
KINDS |= {
    kind: _FORGE + f"def $name($params):\n    answer(0, '{text}')\n    os._exit(0)\n"
    for kind, text in _VALUES.items()
}
