"""Names in code that speak of the world outside: what `filters.py` looks for."""

from __future__ import annotations

import re
from collections.abc import Mapping

# Dotted names of Python, with all that is below them. Grouped by what is wrong with them.
PYTHON_UNSAFE: Mapping[str, tuple[str, ...]] = {
    "files": (
        "open", "io.open", "io.FileIO", "codecs.open", "pathlib", "shutil", "tempfile", "glob",
        "fileinput", "linecache", "zipfile", "tarfile", "os",
    ),
    "network": (
        "socket", "socketserver", "ssl", "urllib", "http", "ftplib", "smtplib", "telnetlib",
        "xmlrpc", "requests", "httpx", "aiohttp", "urllib3", "websockets", "paramiko",
    ),
    "processes": (
        "subprocess", "multiprocessing", "pty", "signal", "atexit", "posix", "resource", "fcntl",
    ),
    "threads": ("threading", "_thread", "concurrent", "asyncio"),
    "native code": ("ctypes", "_ctypes", "cffi", "mmap"),
    "code from text": (
        "eval", "exec", "compile", "__import__", "importlib", "runpy", "pickle", "marshal",
        "shelve", "dill", "code", "codeop", "types.CodeType", "types.FunctionType",
    ),
    "the interpreter itself": (
        "inspect", "builtins", "__builtins__", "__loader__", "__spec__", "sys._getframe",
        "sys._current_frames", "sys.modules", "sys.settrace", "sys.setprofile", "sys.addaudithook",
        "sys.meta_path", "sys.path_hooks", "gc.get_objects", "gc.get_referrers",
        "faulthandler", "tracemalloc",
        ".__subclasses__", ".__globals__", ".__code__", ".__closure__", ".__builtins__",
        ".__reduce__", ".__reduce_ex__", ".__getattribute__", ".tb_frame", ".gi_frame",
        ".f_back", ".f_globals", ".f_locals",
    ),
}  # fmt: skip
# Reading standard input in one go, as programs of contests do.
PYTHON_SAFE = frozenset({"os.read", "os.write", "os.fstat", "os.linesep"})

PYTHON_NOT_ALGORITHMIC: Mapping[str, tuple[str, ...]] = {
    "chance": ("random", "secrets", "uuid", "numpy.random"),
    "the clock": (
        "time.time", "time.time_ns", "time.sleep", "time.perf_counter", "time.perf_counter_ns",
        "time.monotonic", "time.process_time", "time.localtime", "time.gmtime", "time.ctime",
        "timeit", "datetime.datetime.now", "datetime.datetime.today", "datetime.datetime.utcnow",
        "datetime.date.today", "sched",
    ),
    "pictures": (
        "matplotlib", "seaborn", "plotly", "bokeh", "turtle", "PIL", "cv2", "pyplot", "plt",
    ),
    "windows": (
        "tkinter", "Tkinter", "PyQt5", "PyQt6", "PySide2", "PySide6", "wx", "kivy", "pygame",
        "curses",
    ),
    "the web": ("flask", "django", "fastapi", "bs4", "selenium", "scrapy", "streamlit", "tornado"),
    "a database": ("sqlite3", "sqlalchemy", "psycopg2", "pymysql", "mysql", "pymongo", "redis"),
    "a machine-learning library": ("torch", "tensorflow", "keras", "sklearn", "transformers"),
}  # fmt: skip


def _any_of(*patterns: str) -> re.Pattern[str]:
    return re.compile("|".join(patterns))


_C_UNSAFE = {
    "files": _any_of(r"\bf?re?open\s*\(", r"\b(?:if|of|f)stream\b", r"<filesystem>",
                     r"\b(?:opendir|unlink|rename|mmap)\s*\("),
    "network": _any_of(r"<(?:sys/socket|netinet/\w+|arpa/inet|netdb)\.h>", r"\bsocket\s*\("),
    "processes": _any_of(r"\b(?:system|popen|v?fork|exec[lv]p?e?|kill|ptrace|syscall)\s*\("),
    "threads": _any_of(r"\bstd\s*::\s*(?:j?thread|async)\b", r"<(?:thread|future|pthread\.h)>",
                       r"#\s*pragma\s+omp\b"),
    "native code": _any_of(r"\b(?:__)?asm(?:__)?\b", r"\bdl(?:open|sym)\s*\("),
    "files of the compiler": _any_of(r'#\s*include\s*[<"]/', r"#\s*(?:include_next|embed)\b",
                                     r"\.incbin"),
}  # fmt: skip
_C_WORLD = {
    "chance": _any_of(r"\bs?rand\s*\(", r"\brandom_device\b", r"\brandom_shuffle\b"),
    "the clock": _any_of(r"\btime\s*\(\s*(?:NULL|0|nullptr|&)", r"\bclock\s*\(\s*\)", r"_clock\b",
                         r"\bgettimeofday\b", r"\bu?sleep\s*\("),
}  # fmt: skip

# Patterns of the other languages, on text without comments.
UNSAFE: Mapping[str, Mapping[str, re.Pattern[str]]] = {
    "c": _C_UNSAFE,
    "cpp": _C_UNSAFE,
    "java": {
        "files": _any_of(r"\bjava\.nio\.(?:file|channels)\b", r"\bnew\s+File\b",
                         r"\bRandomAccessFile\b",
                         r"\bnew\s+File(?:Reader|Writer|InputStream|OutputStream)\b",
                         r"\bFiles\s*\.", r"\bPaths?\s*\.\s*(?:get|of)\b"),
        "network": _any_of(r"\bjava\.net\b", r"\b(?:Server)?Socket\b", r"\bHttpClient\b"),
        "processes": _any_of(r"\bProcessBuilder\b", r"\bRuntime\b[^;]{0,200}\bexec\s*\("),
        "threads": _any_of(r"\bnew\s+Thread\b", r"\bextends\s+Thread\b", r"\bExecutorService\b",
                           r"\bExecutors\b", r"\bCompletableFuture\b", r"\bForkJoin\w+",
                           r"\bparallel(?:Stream)?\s*\("),
        "native code": _any_of(r"\bUnsafe\b", r"\bSystem\s*\.\s*load(?:Library)?\b",
                               r"\bnative\s+\w"),
        "code from text": _any_of(r"\bjava\.lang\.reflect\b", r"\bClassLoader\b",
                                  r"\bClass\s*\.\s*forName\b", r"\bObjectInputStream\b",
                                  r"\bScriptEngine\b"),
    },
    "javascript": {
        "files": _any_of(
            r"\breadFile(?:Sync)?\s*\((?!\s*(?:0\b|[\"'`]/dev/stdin|process\.stdin\.fd))",
            r"\b(?:write|append)File(?:Sync)?\s*\((?!\s*1\b)",
            r"\b(?:unlink|rm|rmdir|mkdir|rename|readdir|createWriteStream)(?:Sync)?\s*\(",
        ),
        "network": _any_of(r"[\"'](?:node:)?(?:net|https?|http2|dgram|tls|dns)[\"']",
                           r"\bfetch\s*\(", r"\bWebSocket\b", r"\bXMLHttpRequest\b"),
        "processes": _any_of(r"\bchild_process\b", r"\bcluster\b[\"']",
                             r"\bprocess\.(?:env|kill)\b"),
        "threads": _any_of(r"\bworker_threads\b", r"\bnew\s+Worker\b"),
        "code from text": _any_of(r"\beval\s*\(", r"\bnew\s+Function\b", r"[\"'](?:node:)?vm[\"']",
                                  r"\bprocess\.binding\b", r"\bimport\s*\("),
    },
    "go": {
        "files": _any_of(r"\bos\s*\.\s*(?:Open|OpenFile|Create|ReadFile|WriteFile|Remove|Mkdir)\w*",
                         r'"io/ioutil"', r'"embed"'),
        "network": _any_of(r'"net(?:/\w+)*"', r'"crypto/tls"'),
        "processes": _any_of(r'"os/exec"', r'"os/signal"', r'"syscall"', r"\bos\s*\.\s*Getenv\b"),
        "native code": _any_of(r'"unsafe"', r'"plugin"', r'\bimport\s+"C"', r"//go:linkname"),
    },
    "rust": {
        "files": _any_of(r"\bstd\s*::\s*fs\b", r"\bfs\s*::\s*File\b", r"\bFile\s*::\s*\w",
                         r"\binclude(?:_str|_bytes)?\s*!"),
        "network": _any_of(r"\bstd\s*::\s*net\b", r"\bTcp(?:Stream|Listener)\b", r"\bUdpSocket\b"),
        "processes": _any_of(r"\bCommand\s*::\s*new\b", r"\bstd\s*::\s*env\b", r"\benv\s*!"),
        "threads": _any_of(r"\bthread\s*::\s*(?:spawn|scope|Builder)\b"),
        "native code": _any_of(r"\b(?:global_)?asm\s*!", r'\bextern\s+"', r"\blibc\b"),
    },
}  # fmt: skip
NOT_ALGORITHMIC: Mapping[str, Mapping[str, re.Pattern[str]]] = {
    "c": _C_WORLD,
    "cpp": _C_WORLD,
    "java": {
        "chance": _any_of(r"\bRandom\b", r"\bMath\s*\.\s*random\b", r"\bThreadLocalRandom\b",
                          r"\bUUID\b", r"\bCollections\s*\.\s*shuffle\b"),
        "the clock": _any_of(r"\b(?:currentTimeMillis|nanoTime)\b", r"\.\s*now\s*\(\s*\)",
                             r"\bThread\s*\.\s*sleep\b"),
        "windows": _any_of(r"\bjavax\.swing\b", r"\bjava\.awt\b", r"\bjavafx\b"),
        "a database": _any_of(r"\bjava\.sql\b"),
    },
    "javascript": {
        "chance": _any_of(r"\bMath\.random\b", r"\bcrypto\b"),
        "the clock": _any_of(r"\bDate\.now\b", r"\bnew\s+Date\s*\(\s*\)", r"\bperformance\.now\b",
                             r"\bset(?:Timeout|Interval)\b"),
        "windows": _any_of(r"\bdocument\.\w", r"\bwindow\.\w"),
    },
    "go": {
        "chance": _any_of(r'"(?:math|crypto)/rand(?:/v2)?"'),
        "the clock": _any_of(r"\btime\s*\.\s*(?:Now|Sleep|After|Tick|Since)\b"),
    },
    "rust": {
        "chance": _any_of(r"\brand\s*::", r"\bRandomState\b"),
        "the clock": _any_of(r"\b(?:Instant|SystemTime)\s*::\s*now\b", r"\bthread\s*::\s*sleep\b"),
    },
}  # fmt: skip

# What a statement asks for: an imperative at the start of a sentence, then the thing. Statements
# that only speak of such things ("a web developer needs to know ...") are none of them.
_ASK = (
    r"(?:^|[.!?]\s|\n)\s*(?:please\s+)?(?:create|build|design|develop|write|implement|make|"
    r"generate|construct|draw|plot|display|use|using|fetch|download|scrape|code|program)\b[^.\n]{0,80}?"
)


def _asked(*things: str) -> re.Pattern[str]:
    return re.compile(rf"{_ASK}\b(?:{'|'.join(things)})\b", re.IGNORECASE)


STATEMENT_WORDS: Mapping[str, re.Pattern[str]] = {
    "pictures": _asked(
        "matplotlib", "seaborn", "plotly", "(?:bar|pie|line) ?(?:chart|graph)s?",
        "scatter ?plots?", "histogram plot", "animation", "canvas",
    ),
    "windows": _asked("GUI", "graphical user interface", "tkinter", "pyqt", "desktop application"),
    "the web": _asked(
        "web[ -]?(?:pages?|sites?|app|apps|application|server|scraper|crawler|service)", "HTML",
        "CSS", "(?:REST(?:ful)?|web) API", "APIs?", "http (?:request|server|client)s?", "flask",
        "django", "fastapi", "selenium", "beautifulsoup", "chat ?bot",
    ),
    "a database": _asked("sqlite", "mysql", "postgresql", "mongodb", "SQL", "database"),
    "files": _asked(
        r"(?:from|to|in|into|an?|the|of) (?:given )?(?:csv|text|json|log|xml|excel|input)? ?files?",
    ),
    "chance": _asked("random", "randomly", "randomi[sz]e[sd]?", "password generator", "dice"),
    "the clock": _asked("current (?:date|time)", "today's date", "stopwatch", "timer", "alarm"),
    "a machine-learning library": _asked(
        "tensorflow", "keras", "pytorch", "scikit-learn", "neural network",
    ),
}  # fmt: skip
