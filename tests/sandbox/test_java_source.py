"""What a Java source must be called, found without a compiler."""

import pytest

from codeact.sandbox.programs.java_source import java_names

MAIN = "static void main(String[] a) {}"


@pytest.mark.parametrize(
    ("source", "file", "main_class"),
    [
        (f"class Main {{ public {MAIN} }}", "Main.java", "Main"),
        ("public class Foo { static public void main(String... a) {} }", "Foo.java", "Foo"),
        (f"class A {{}} public final class B$1 {{ public {MAIN} }}", "B$1.java", "B$1"),
        (f"class Solver {{ {MAIN} }} class Z {{}}", "Main.java", "Solver"),
        (f"public class Lib {{}} class Run {{ {MAIN} }}", "Lib.java", "Run"),
        (f"class Run {{ {MAIN} }} public class Lib {{ {MAIN} }}", "Lib.java", "Lib"),
        (f"package a . b ;\npublic class C {{ {MAIN} }}", "C.java", "a.b.C"),
        (f"// public class No {{\n/* class No {{ */ class Yes {{ {MAIN} }}", "Main.java", "Yes"),
        (
            f"class A {{ char c = '{{'; char d = '\\''; }} public class D {{ {MAIN} }}",
            "D.java",
            "D",
        ),
        ('class A { String s = "public class B {\\""; } public class D {}', "D.java", "D"),
        (
            'class A { String s = """\n public class "B" { """; } public record E() {}',
            "E.java",
            "E",
        ),
        (f"public class Out {{ static class In {{ {MAIN} }} }}", "Out.java", "Out"),
        (f"public interface I {{ {MAIN} }}", "I.java", "I"),
        (f"enum K {{ X }} public enum L {{ Y; public {MAIN} }}", "L.java", "L"),
        (f"@A(x = {{1}}) public abstract class P {{ {MAIN} }}", "P.java", "P"),
        ("not java } } at all", "Main.java", "Main"),
        ("", "Main.java", "Main"),
        (f"public class {'A' * 300} {{}}", "Main.java", "Main"),
        (f"package {'a.' * 300}b; class C {{ {MAIN} }}", "Main.java", "Main"),
    ],
)
def test_java_names(source, file, main_class):
    names = java_names(source)
    assert (names.file, names.main_class) == (file, main_class)


def test_a_hostile_source_takes_no_long_time():
    """Patterns that make a careless regular expression go back and forth for minutes."""
    for text in (
        "public " * 20_000,
        "static " * 20_000,
        "a." * 20_000,
        '"' * 20_000,
        "/*" * 20_000,
    ):
        assert java_names("package " + text).main_class.split(".")[-1]
