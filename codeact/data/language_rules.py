"""Names of programming languages, and the signs by which their code is told apart."""

from __future__ import annotations

import re
from typing import NamedTuple

_NAMES = {
    "python": "py python3 py3 python2 ipython pycon",
    "javascript": "js jsx node nodejs node.js mjs ecmascript",
    "typescript": "ts tsx",
    "java": "",
    "kotlin": "kt kts",
    "scala": "sc",
    "c": "h ansi-c",
    "c++": "cpp cc cxx hpp hh cplusplus",
    "c#": "csharp cs c-sharp",
    "objective-c": "objc objectivec",
    "go": "golang",
    "rust": "rs",
    "swift": "",
    "php": "php7 php8",
    "ruby": "rb",
    "perl": "pl pm",
    "r": "rscript",
    "julia": "jl",
    "matlab": "octave",
    "sql": "mysql postgresql postgres sqlite plsql tsql t-sql",
    "html": "htm html5",
    "css": "scss sass less",
    "shell": "bash sh zsh ksh powershell ps1 console shell-session",
    "haskell": "hs",
    "lua": "",
    "dart": "",
    "elixir": "ex exs",
    "erlang": "erl",
    "clojure": "clj",
    "f#": "fsharp fs",
    "visual basic": "vb vba vb.net vbnet visualbasic",
    "assembly": "asm nasm",
    "fortran": "f90 f95",
    "solidity": "sol",
}
ALIASES = {alias: name for name, aliases in _NAMES.items() for alias in (name, *aliases.split())}
"""Canonical name of every name, tag and file ending that is known, all in lower case."""

# Languages whose name is a word or a letter of English need one of programming beside it.
_SHORT = r"C|R|Go|Swift|Dart|Shell|Rust|Perl|Ruby|Julia|Scala|Lua"
_NOUN = r"program|function|code|script|class|method|application|app|language|snippet|struct|module"
NAMED = re.compile(
    r"(?<![\w.+#/-])(?:(?i:(python3?|javascript|typescript|node\.js|nodejs|java|kotlin|c\+\+|c#|"
    r"golang|php|sql|mysql|html5?|css|bash|powershell|haskell|matlab|vb\.net|objective-c|"
    r"fortran|elixir|solidity))"
    rf"|(?<=in )({_SHORT})|(?<=using )({_SHORT})|({_SHORT})(?= (?:{_NOUN})))"
    r"(?![\w+#]|[.-]\w)"
)
"""A language asked for by name; exactly one of its groups is the name."""


class Rule(NamedTuple):
    """Points for a language whose pattern occurs, once however often it does.

    Attributes:
        language: Canonical name.
        points: What a match is worth.
        words: The pattern only occurs where one of these words does; any text if there is none.
        pattern: Of code.
    """

    language: str
    points: int
    words: frozenset[str]
    pattern: re.Pattern[str]


def _rule(language: str, points: int, words: str, pattern: str) -> Rule:
    return Rule(language, points, frozenset(words.split()), re.compile(pattern, re.MULTILINE))


RULES = (
    _rule(
        "python",
        4,
        "",
        r"^[ \t]*(?:async )?def \w+\([^{};]*\)[^{};\n=]*:|^[ \t]*class \w+(?:\([^)\n]*\))?:",
    ),
    _rule(
        "python",
        3,
        "",
        r"^[ \t]*(?:elif [^\n]*|except[^\n{]*|for [\w, ()]+ in [^\n{]+):[ \t]*(?:#.*)?$",
    ),
    _rule("python", 2, "", r"^(?:from [\w.]+ )?import [\w.*]+(?: as \w+)?(?:, ?\w+)*[ \t]*$"),
    _rule("python", 1, "", r"\bprint\([^\n]*\)[ \t]*$|\bself\.\w|\b(?:None|True|False)\b"),
    _rule("python", 2, "", r"^[ \t]*(?:if|while|with) [^\n{]+:[ \t]*$|\blambda \w+(?:, ?\w+)*:"),
    _rule(
        "javascript",
        4,
        "console module document",
        r"\bconsole\.(?:log|error)\(|\bmodule\.exports\b|\bdocument\.\w+|\$\(document\)",
    ),
    _rule(
        "javascript",
        3,
        "import export",
        r"^[ \t]*(?:import [^\n;]+ from ['\"]|export (?:default|const|function|class|let)\b)",
    ),
    _rule(
        "javascript",
        2,
        "",
        r"^[ \t]*(?:const|let|var) [\w${[]|\bfunction\b ?\w* ?\([^)$\n]*\)\s*\{|===|\) ?=> ?\{",
    ),
    _rule("javascript", 1, "", r"=>|\bnew Promise\b|\bthis\.\w"),
    _rule(
        "typescript",
        3,
        "string number boolean void any",
        r"[\w)\]?]: (?:string|number|boolean|void|any)(?:\[\])?(?=[;,)]| [={])",
    ),
    _rule("typescript", 2, "", r"^[ \t]*(?:export )?(?:interface \w+ \{|type \w+ =)"),
    _rule(
        "java",
        5,
        "System import String",
        r"\bSystem\.(?:out|in)\b|^import (?:static )?(?:java|org|com)x?\.|\bString\[\] args\b",
    ),
    _rule(
        "java",
        4,
        "Override throws new final",
        r"@Override\b|\bthrows \w+Exception|\bnew (?:Array|Linked)List<|\bfinal \w+ \w+ ?[=;]",
    ),
    _rule(
        "java",
        3,
        "public private protected",
        r"^[ \t]*(?:public|private|protected) (?:static |final )*[\w<>\[\], ]+ ?[({=;]",
    ),
    _rule(
        "java",
        2,
        "class interface enum",
        r"^[ \t]*(?:public |abstract |final )*(?:class|interface|enum) \w+[^\n:(]*\{",
    ),
    _rule("c#", 5, "using Console get", r"^using System\b|\bConsole\.(?:Write|Read)|\{ get;"),
    _rule(
        "c#",
        4,
        "static foreach string",
        r"\bstatic (?:async )?(?:void|int|Task) Main\(|\bforeach ?\(var |\bstring\[\] args\b",
    ),
    _rule(
        "c#",
        3,
        "public private protected internal",
        r"^[ \t]*(?:public|private|protected|internal) (?:static |override |async )*"
        r"(?:string|bool|decimal|Task|IEnumerable|void|int) \w+ ?\(",
    ),
    _rule("c#", 2, "namespace", r"^namespace [\w.]+;?\s*$|^[ \t]*namespace [\w.]+\s*\{"),
    _rule(
        "c++",
        5,
        "std using cout cerr cin include",
        r"\bstd::|\busing namespace \w|\b(?:cout|cerr) ?<<|\bcin ?>>|#include ?<[a-z_]+>",
    ),
    _rule(
        "c++",
        4,
        "template pragma public private protected vector",
        r"\btemplate ?<|^#pragma once|\b(?:public|private|protected):[ \t]*$|\bvector<",
    ),
    _rule("c++", 3, "", r"^[\w:<>*& ]+ \w+::~?\w+\(|^namespace \w+ \{"),
    _rule("c", 4, "include", r"#include ?<(?:std\w+|string|math|ctype|time|unistd|pthread)\.h>"),
    _rule(
        "c",
        3,
        "malloc printf scanf main",
        r"\b(?:malloc|printf|scanf)\(|\bint main ?\((?:void|int argc)?",
    ),
    _rule(
        "c",
        2,
        "char struct include define",
        r"\bchar ?\*|^(?:typedef )?struct \w* ?\{|^#(?:include|define)\b",
    ),
    _rule("go", 6, "package", r"^package \w+[ \t]*$"),
    _rule("go", 5, "func", r"^func (?:\(\w* ?[*\w]+\) )?\w+(?:\[[^\]\n]*\])?\("),
    _rule("go", 2, "fmt err range", r"\bfmt\.[A-Z]\w+\(|\bif err != nil\b|\w :?= range "),
    _rule("go", 1, "", r" := "),
    _rule(
        "rust", 5, "fn let impl", r"\bfn \w+(?:<[^\n(]*>)?\(|\blet mut \w|^[ \t]*impl\b[^\n]* \{"
    ),
    _rule(
        "rust",
        4,
        "println vec format panic unimplemented assert_eq derive use",
        r"\b(?:println|vec|format|panic|unimplemented|assert_eq)!|#\[derive\(|^use \w+(?:::|;)",
    ),
    _rule(
        "rust",
        2,
        "mut str unwrap pub Option Result",
        r"&mut \b|&str\b|\.unwrap\(\)|^[ \t]*pub (?:struct|enum|mod)\b|\bOption<|\bResult<",
    ),
    _rule(
        "sql",
        5,
        "",
        r"\bSELECT\b[\s\S]{1,600}?\bFROM\b|\bINSERT INTO\b|\bCREATE (?:TABLE|VIEW|INDEX)\b",
    ),
    _rule(
        "sql",
        4,
        "",
        r"(?i:^[ \t]*(?:select [^\n]+\s+from \w|update \w+\s+set |delete from |alter table ))",
    ),
    _rule("html", 9, "", r"(?i:<!doctype html|</(?:html|body|head)>)"),
    _rule("html", 2, "", r"^[ \t]*</?(?:div|form|table|ul|button|p)\b[^\n]*>[ \t]*$"),
    _rule(
        "css", 3, "", r"[\w)\]*] ?\{\s*(?:[\w-]+ ?: [^;{}()\n]+(?:\([^)\n]*\))?[^;{}\n]*;\s*)+\}"
    ),
    _rule("php", 9, "", r"<\?php"),
    _rule("php", 4, "", r"\bfunction \w+\([^)\n]*\$\w|^[ \t]*\$\w+ ?= [^\n]*;"),
    _rule("php", 2, "echo this", r"\becho ['\"$]|\$this->"),
    _rule("perl", 6, "my strict", r"^[ \t]*my [$@%(]|^use strict\b"),
    _rule(
        "ruby",
        5,
        "attr_accessor attr_reader do each",
        r"\battr_(?:accessor|reader)\b|\bdo \|\w|\.each \{ ?\|",
    ),
    _rule("ruby", 3, "def", r"^[ \t]*def (?:self\.)?\w+[?!]?(?:\([^)\n]*\))?[ \t]*$"),
    _rule("ruby", 2, "end puts", r"^[ \t]*end[ \t]*$|^[ \t]*puts "),
    _rule("lua", 5, "local", r"^[ \t]*local (?:function )?\w+"),
    _rule("lua", 2, "then", r"\bthen[ \t]*$|\.\. ?[\"\w]"),
    _rule(
        "swift",
        6,
        "Foundation UIKit SwiftUI guard let",
        r"^import (?:Foundation|UIKit|SwiftUI)\b|\bguard let |\bif let \w+ = ",
    ),
    _rule(
        "swift",
        3,
        "func let var",
        r"\bfunc \w+\([^)\n]*\w: ?\[?\w|^[ \t]*(?:let|var) \w+: ?\[?[A-Z]\w+",
    ),
    _rule("kotlin", 6, "fun", r"\bfun (?:\w+\.)?\w+\(|\bfun main\b"),
    _rule("kotlin", 2, "val var", r"^[ \t]*va[lr] \w+"),
    _rule(
        "scala",
        5,
        "object def",
        r"^[ \t]*(?:case )?object \w+|\bdef \w+[^\n]{0,200}?: \w[^\n=]{0,80} = ?\{?$",
    ),
    _rule("r", 5, "", r"<- function\(|^library\(\w+\)"),
    _rule("r", 2, "", r"^[ \t]*[\w.]+ <- "),
    _rule("haskell", 5, "", r"^[a-z]\w*'? :: |^module [A-Z][\w.]*[^\n]* where|^import qualified "),
    _rule("shell", 9, "", r"^#!.*\b(?:ba|z|k)?sh\b"),
    _rule(
        "shell",
        4,
        "fi done esac",
        r"^[ \t]*(?:fi|done|esac)[ \t]*$|\bthen[ \t]*$[\s\S]*^[ \t]*fi\b",
    ),
    _rule(
        "shell",
        2,
        "",
        r"^[ \t]*\$? ?(?:sudo|apt-get|grep|chmod|mkdir|cd|git|curl|ls|rm|find|awk|sed) [\w./~'-]",
    ),
    _rule("visual basic", 6, "Dim End", r"\bDim \w+ As \w|^[ \t]*End (?:Sub|Function|If)\b"),
    _rule("matlab", 4, "function disp fprintf", r"^function [^\n(]*= ?\w+\(|\bdisp\(|\bfprintf\("),
    _rule("matlab", 1, "", r"^[ \t]*%"),
)
"""Looking for words first makes the search three times as fast."""
