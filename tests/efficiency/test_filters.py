from __future__ import annotations

import subprocess
import sys

import pytest

from codeact.efficiency.inputs.filters import (
    filter_candidate,
    is_algorithmic,
    risky_operations,
    worldly_operations,
    worldly_words,
)
from codeact.efficiency.inputs.python_names import python_uses
from codeact.sandbox.programs.program import Program
from codeact.sandbox.tests import Call, FunctionTests
from codeact.tasks.task_file import Task, read_tasks

TASK = Task("a", "Double a number.", FunctionTests("f", (Call((1,)), Call((2,))), (2, 4)), None)
PLAIN = "def f(x):\n    return 2 * x\n"


def kinds(findings):
    return [finding.kind for finding in findings]


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        ("open('x')", "files"),
        ("import io\nio.open('x')", "files"),
        ("from pathlib import Path", "files"),
        ("import os\nos.remove('x')", "files"),
        ("from os import path as p", "files"),
        ("import os as o\no.system('x')", "files"),
        ("def f():\n    import urllib.request as r\n    return r", "network"),
        ("from socket import *", "network"),
        ("import subprocess", "processes"),
        ("import threading", "threads"),
        ("from concurrent.futures import ThreadPoolExecutor", "threads"),
        ("import ctypes", "native code"),
        ("def f(s): return eval(s)", "code from text"),
        ("def f(s): exec(compile(s, '', 'exec'))", "code from text"),
        ("__import__('os')", "code from text"),
        ("import pickle", "code from text"),
        ("import sys\nsys._getframe()", "the interpreter itself"),
        ("().__class__.__base__.__subclasses__()", "the interpreter itself"),
        ("import gc\ngc.get_objects()", "the interpreter itself"),
        ("import subprocess\ndef f(:", "processes"),  # does not parse
    ],
)
def test_risky_python(source, kind):
    assert kind in kinds(risky_operations(source))
    assert filter_candidate(TASK, Program("python", source)).status == "unsafe"


@pytest.mark.parametrize(
    "source",
    [
        PLAIN,
        "import sys\nsys.setrecursionlimit(10**6)\nn = int(sys.stdin.readline())",
        "import os\ndata = os.read(0, os.fstat(0).st_size)",
        "import re\nre.compile('x')\n'a'.join(open_ for open_ in [])",
        "def open(x): return x\nopen(1)",
        "class A:\n    def eval(self): return 1\nA().eval()",
        "eval('1 + 1')",
        "def f(time, random): return time.time(random.choice)",
        "import datetime\ndatetime.date(2020, 1, 1).weekday()",
        "import gc\ngc.disable()",
        "from queue import Queue\nimport heapq, collections",
        "# import subprocess\nx = 'import socket; open(1)'",
        "def f(:\n    subprocess",
    ],
)
def test_plain_python_has_no_mark(source):
    assert risky_operations(source) == []
    assert worldly_operations(source) == []
    assert filter_candidate(TASK, Program("python", source)) is None


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        ("import random", "chance"),
        ("random.randint(1, 2)", "chance"),  # the prelude may have imported it
        ("from numpy import random as r\nr.seed(0)", "chance"),
        ("from time import time\ntime()", "the clock"),
        ("from datetime import datetime as d\nd.now()", "the clock"),
        ("import matplotlib.pyplot as plt", "pictures"),
        ("import tkinter as tk", "windows"),
        ("from flask import Flask", "the web"),
        ("import sqlite3", "a database"),
    ],
)
def test_python_that_is_no_algorithm(source, kind):
    assert kinds(worldly_operations(source))[0] == kind
    assert not is_algorithmic(TASK, source)
    assert filter_candidate(TASK, Program("python", source)).status == "not_algorithmic"


@pytest.mark.parametrize(
    ("language", "source", "kind"),
    [
        ("cpp", "#include <fstream>\nint main(){ std::ifstream in(\"x\"); }", "files"),
        ("c", "int main(){ return system(\"ls\"); }", "processes"),
        ("cpp", "#include \"/etc/passwd\"", "files of the compiler"),
        ("cpp", "std::thread t(f);", "threads"),
        ("java", "new FileReader(\"x\")", "files"),
        ("java", "Runtime r = Runtime.getRuntime(); r.exec(\"ls\");", None),
        ("java", "Runtime.getRuntime().exec(\"ls\");", "processes"),
        ("javascript", "require('fs').readFileSync('/etc/passwd')", "files"),
        ("javascript", "require('child_process').exec('ls')", "processes"),
        ("go", "import \"os/exec\"", "processes"),
        ("rust", "use std::fs::File;", "files"),
        ("rust", "const X: &str = include_str!(\"/etc/passwd\");", "files"),
    ],
)  # fmt: skip
def test_risky_in_other_languages(language, source, kind):
    assert kinds(risky_operations(source, language))[:1] == ([kind] if kind else [])


@pytest.mark.parametrize(
    ("language", "source"),
    [
        ("cpp", "#include <bits/stdc++.h>\n// system(\"x\")\nint main(){ std::cin >> opened; }"),
        ("c", "/* fopen(1)\n system() */ int main(){ file_system(1); }"),
        ("java", "import java.io.*; new BufferedReader(new InputStreamReader(System.in));"),
        ("javascript", "const s = require('fs').readFileSync(0, 'utf8');"),
        ("javascript", "require('fs').readFileSync('/dev/stdin')"),
        ("go", "import (\"bufio\"; \"os\")\nbufio.NewReader(os.Stdin)"),
        ("rust", "use std::io::{self, Read}; std::process::exit(0);"),
    ],
)  # fmt: skip
def test_reading_input_in_other_languages_has_no_mark(language, source):
    assert risky_operations(source, language) == []
    assert worldly_operations(source, language) == []


def test_chance_and_clock_in_other_languages():
    assert kinds(worldly_operations("int x = rand();", "c")) == ["chance"]
    assert kinds(worldly_operations("std::chrono::steady_clock::now()", "cpp")) == ["the clock"]
    assert kinds(worldly_operations("new java.util.Random(1)", "java")) == ["chance"]
    assert kinds(worldly_operations("Math.random()", "javascript")) == ["chance"]
    assert kinds(worldly_operations('import "math/rand"', "go")) == ["chance"]
    assert kinds(worldly_operations("let t = Instant::now();", "rust")) == ["the clock"]


@pytest.mark.parametrize(
    ("statement", "kind"),
    [
        ("Create a web page that lists books.", ["the web"]),
        ("Write a Python program that reads a CSV file.", ["files"]),
        ("Generate a random password.", ["chance"]),
        ("Use matplotlib to draw x.", ["pictures"]),
        ("Write a SQL query.", ["a database"]),
        ("A web developer needs to know how to design a web page's size.", []),
        ("Two strings: t is generated by random shuffling s.", []),
        ("Return the number of clock times.", []),
    ],
)
def test_words_of_a_statement(statement, kind):
    assert kinds(worldly_words(statement)) == kind


def test_the_verdict_names_rule_and_line():
    verdict = filter_candidate(TASK, Program("python", PLAIN + "import socket\n"))
    assert (verdict.status, verdict.reason) == ("unsafe", "network: socket (line 3)")
    assert (verdict.num_tests, verdict.num_passed, verdict.first_failed) == (2, 0, None)
    asked = Task("b", "Write a program that reads a text file.", TASK.tests, None)
    verdict = filter_candidate(asked, Program("python", PLAIN))
    assert verdict.status == "not_algorithmic"
    assert verdict.reason.startswith("the task asks for files: ")


def test_real_references_have_no_mark(data_folder):
    path = data_folder / "sft" / "leetcode_v0.2.0_train.jsonl.gz"
    tasks = read_tasks(path, limit=300, seed=1).tasks
    found = {task.id: filter_candidate(task, Program("python", task.reference)) for task in tasks}
    assert [name for name, verdict in found.items() if verdict is not None] == []
    assert all(python_uses(task.reference) is not None for task in tasks)


# Texts that nest deeply drive recursion in the parser; they must end as "not parsed", not as a
# crash of the interpreter, so another process reads them.
HOSTILE = [
    "'(' * 190_000", "'-' * 190_000 + '1'", "'not ' * 45_000 + '1'", "'a.' * 90_000 + 'b'",
    "'1+' * 90_000 + '1'", "'f' + '()' * 90_000", "'lambda:' * 25_000 + '1'", "'[' * 90_000",
    "'if a:\\n pass\\n' + 'elif a:\\n pass\\n' * 12_000", "'1 if a else ' * 15_000 + '1'",
    "'x = ' * 45_000 + '1'", "'{' * 99_000", "'f\"{' * 60_000", "'\\'' * 199_999",
    "'\\'' + '\\\\\\'' * 99_000", "'\\x00' * 1000", "'x' * 10_000_000",
    "''.join(' ' * i + 'if a:\\n' for i in range(600))", "'**' * 99_000 + '1'",
    "'a = ' + '1,' * 90_000", "'await ' * 30_000 + 'x'", "'\\\\\\n' * 90_000", "'1<' * 90_000",
]  # fmt: skip


def test_hostile_texts_do_not_crash_the_reader():
    code = (
        "from codeact.efficiency.inputs.filters import risky_operations\n"
        f"texts = [{', '.join(HOSTILE)}]\n"
        "for text in texts:\n    risky_operations(text)\n"
        "print(len(texts))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert ran.stdout.strip() == str(len(HOSTILE)), ran.stderr[-500:]
