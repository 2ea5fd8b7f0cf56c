"""The program inside the sandbox that loads a Python candidate and calls it. Never imported.

Descriptor 3 brings frames, descriptor 4 takes them: 4 bytes of length, little-endian, then the
payload. In: a header, then one frame a call, each sent after the one before it was answered
(`calls.py` writes them). Out: ``L`` (loaded), then ``A`` + index (4 bytes) + answer (JSON) for
every call; or ``E`` + status + newline + message, which is the last. Nothing that leaves here is
trusted: the candidate shares the process and can write what it likes. What it cannot do is know
the expected answers, which never enter the sandbox.

Start-up is paid by every candidate, so only built-in modules are imported. `calls.py` compiles
`encoding.py`, `stand_ins.py` and this file as one program.
"""

import gc
import sys
from marshal import loads
from posix import _exit, read, write

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import CodeType
    from typing import Any, NoReturn

    from codeact.sandbox.calls.digest import digest_text
    from codeact.sandbox.calls.encoding import (
        Encoder,
        ListNode,
        TreeNode,
        UnsupportedError,
        binary_tree,
        linked_list,
        list_values,
        tree_values,
    )
    from codeact.sandbox.calls.stand_ins import NUM_PARAMETERS, StandIn

FRAMES_IN, FRAMES_OUT = 3, 4
NAME = "candidate"  # its module and, in tracebacks, its file
# Code that reaches names by text needs the whole prelude, whatever names it shows.
BY_TEXT = {"globals", "locals", "vars", "eval", "exec", "compile", "__dict__", "get_type_hints"}
BY_TEXT |= {"f_globals", "getmembers"}
TEXT_ANNOTATIONS = 0x1000000  # compiler flag of `from __future__ import annotations`


def receive() -> bytes:
    """The next frame; its sender ends only with the sandbox."""
    size = int.from_bytes(_read_all(4), "little")
    return _read_all(size)


def _read_all(size: int) -> bytes:
    parts = []
    while size:
        part = read(FRAMES_IN, size)
        if not part:
            raise EOFError("the frames ended early")
        parts.append(part)
        size -= len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def send(payload: bytes) -> None:
    """Write one frame."""
    data = memoryview(len(payload).to_bytes(4, "little") + payload)
    while data:
        data = data[write(FRAMES_OUT, data) :]


def fail(status: str, message: str) -> "NoReturn":
    """Say why there are no more answers, and end at once."""
    send(b"E" + f"{status}\n{message[:500]}".encode("utf-8", "backslashreplace"))
    _exit(0)


def words(error: BaseException) -> str:
    """Type, message and the candidate's line; any of them may be a trap."""
    try:
        line, trace = 0, error.__traceback__
        while trace is not None:
            if trace.tb_frame.f_code.co_filename == f"{NAME}.py":
                line = trace.tb_lineno
            trace = trace.tb_next
        place = f" (line {line})" if line else ""
        return f"{type(error).__name__}: {str(error)[:400]}{place}"
    except BaseException:
        return "an exception that cannot be printed"


class Session:
    """One candidate: compiled once, loaded and called afresh in every repetition."""

    def __init__(self, header: "Any") -> None:
        source, prelude, self.entry_point, self.result, self.baseline, *more = header
        self.nodes_wanted, self.digests, self.digest_above, digest_code, self.is_strict = more
        if digest_code:
            exec(loads(digest_code), globals())
        self.space: dict[str, Any] = {}
        self.list_node: Any = ListNode
        self.tree_node: Any = TreeNode
        self.stand_ins: set[str] = set()
        self.lazy = False
        try:
            self.code = compile(source, f"{NAME}.py", "exec", 0, True)
        except MemoryError as error:
            fail("memory_limit", words(error))
        except BaseException as error:
            fail("syntax_error", words(error))
        try:
            self.prelude = self.compile_prelude(source, prelude) if prelude else []
        except BaseException as error:
            fail("bad_test", f"the prelude: {words(error)}")

    def compile_prelude(self, source: str, statements: "list[Any]") -> "list[CodeType]":
        """The statements that the candidate needs, by the names that it and they mention."""
        everything, wanted = _names_of(self.code), set(self.nodes_wanted)
        wanted.add(self.entry_point.partition("(")[0])
        unannotated = self.names_outside_annotations(source)
        if unannotated is None or not everything.isdisjoint(BY_TEXT):
            wanted.update(*(binds or () for _, binds, _ in statements))
        else:
            wanted |= unannotated
            for text, binds, _ in statements:
                annotating = (everything - wanted) & set(binds or ())
                if text.startswith("from typing import ") and annotating <= NUM_PARAMETERS.keys():
                    self.stand_ins |= annotating
                else:
                    wanted |= annotating
        chosen: set[int] = set()
        num_chosen = -1
        while num_chosen < len(chosen):
            num_chosen = len(chosen)
            for index, (_, binds, uses) in enumerate(statements):
                if binds is None or not wanted.isdisjoint(binds):
                    chosen.add(index)
                    wanted.update(uses)
        sources = [statements[index][0] for index in sorted(chosen)]
        return [compile(source, "prelude.py", "exec", 0, True) for source in sources]

    def names_outside_annotations(self, source: str) -> "set[str] | None":
        try:
            return _names_of(compile(source, NAME, "exec", TEXT_ANNOTATIONS, True))
        except SyntaxError:  # `x: (y := 1)` is right only where annotations are evaluated
            return None

    def load(self) -> None:
        """Run prelude and candidate in a new module."""
        module = type(sys)(NAME)
        sys.modules[NAME] = module  # dataclasses look their module up
        self.space = space = module.__dict__
        space.update((name, StandIn(name)) for name in self.stand_ins)
        if self.nodes_wanted:
            space.update(ListNode=ListNode, TreeNode=TreeNode)
        try:
            for code in self.prelude:
                exec(code, space)
        except BaseException as error:
            fail("bad_test", f"the prelude: {words(error)}")
        try:
            exec(self.code, space)
        except MemoryError as error:
            fail("memory_limit", words(error))
        except BaseException as error:
            fail("load_error", words(error))
        self.list_node = space.get("ListNode", ListNode)
        self.tree_node = space.get("TreeNode", TreeNode)
        if not self.baseline:
            self.check_entry_point()

    def unload(self, *, is_first: bool) -> None:
        """Free what the candidate cached, or the peak of memory would grow with the repetitions.

        Classes, and caches that hang on them, are circular. After the first time the collector
        skips all that was there before, so that this costs what the candidate's own objects cost.
        """
        self.space.clear()
        self.list_node, self.tree_node = ListNode, TreeNode
        gc.collect()
        if is_first:
            gc.freeze()

    def check_entry_point(self) -> None:
        name, _, method = self.entry_point.partition("().")
        try:
            found = self.space[name]
            present = callable(getattr(found, method) if method else found)
        except BaseException:
            present = False
        if not present:
            fail("no_entry_point", f"{self.entry_point} is not defined, or cannot be called")

    def answer(self, frame: bytes, index: "int | None") -> None:
        """Call, and send the answer unless nobody asks for it."""
        value = self.call(frame)
        if index is not None:
            send(b"A" + index.to_bytes(4, "little") + self.encode(value, index))
        elif self.lazy:  # a generator does its work when it is read
            self.encode(value)

    def call(self, frame: bytes) -> "Any":
        """Decode the arguments and call; exceptions of the candidate end the session."""
        has_nodes, args, kwargs = loads(frame)
        try:
            if has_nodes:
                args = self.build(args)
                kwargs = {name: self.build(value) for name, value in kwargs.items()}
            answer = self.target()(*args, **kwargs)
            if self.result == "presence" and type(answer) is not bool:
                return answer is not None
            return args[0] if self.result == "first_argument" else answer
        except BaseException as error:
            self.stop(error)

    def target(self) -> "Any":
        if self.baseline:
            return _nothing
        name, _, method = self.entry_point.partition("().")
        return getattr(self.space[name](), method) if method else self.space[name]

    def build(self, value: "Any") -> "Any":
        """Lists and trees of nodes, which come as ``(..., kind, values)``."""
        kind = type(value)
        if kind is tuple and value and value[0] is ...:
            values = self.build(value[2])
            if value[1] == "linked_list":
                return linked_list(values, self.list_node)
            return binary_tree(values, self.tree_node)
        if kind is list or kind is tuple:
            return kind([self.build(item) for item in value])
        if kind is dict:
            return {key: self.build(item) for key, item in value.items()}
        return value

    def encode(self, answer: "Any", index: int = -1) -> bytes:
        try:
            text = self.text(answer, index)
        except UnsupportedError as error:
            fail("unsupported_value", str(error))
        except BaseException as error:
            self.stop(error)
        return text.encode()

    def text(self, answer: "Any", index: int) -> str:
        """The answer as JSON, or its digest where one is expected or it is too large."""
        if index in self.digests:
            return digest_text(answer, is_strict=self.is_strict)
        chain, tree = ("linked_list", list_values), ("binary_tree", tree_values)
        nodes = {ListNode: chain, TreeNode: tree, self.list_node: chain, self.tree_node: tree}
        encoder = Encoder(nodes)
        encoder.is_strict = self.is_strict
        try:
            text = encoder.text(answer)
        except UnsupportedError:
            if self.digest_above:
                return digest_text(answer, is_strict=self.is_strict)
            raise
        self.lazy = self.lazy or encoder.lazy
        if 0 < self.digest_above < len(text):
            return digest_text(answer, is_strict=self.is_strict, inexact=text)
        return text

    def stop(self, error: BaseException) -> "NoReturn":
        fail("memory_limit" if type(error) is MemoryError else "raised", words(error))


def _names_of(code: "CodeType") -> "set[str]":
    names = set(code.co_names)
    for constant in code.co_consts:
        if type(constant) is type(code):
            names |= _names_of(constant)
    return names


def _nothing(*_args: "Any", **_kwargs: "Any") -> None:
    """The function of a baseline run."""


def main() -> None:
    """Answer every call in the first and the last repetition; only do the work in the others."""
    *header, num_calls, repeats = loads(receive())
    session = Session(header)
    session.load()
    send(b"L")
    frames = []
    for index in range(num_calls):
        frame = receive()
        session.answer(frame, index)
        if repeats > 1:
            frames.append(frame)
    for repetition in range(1, repeats):
        session.unload(is_first=repetition == 1)
        session.load()
        is_last = repetition == repeats - 1
        for index, frame in enumerate(frames, start=num_calls):
            session.answer(frame, index if is_last else None)
    _exit(0)  # no exit hooks, no other threads, no time spent on taking the interpreter down


if __name__ == "__main__":
    main()
