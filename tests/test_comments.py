"""Code says why: a share of its lines are comments. `python -m tests.test_comments` lists rooms."""

import ast
import collections
import io
import pathlib
import re
import sys
import tokenize

PACKAGE = pathlib.Path(__file__).parents[1] / "shotstream_jax"

LEAST = 0.05
"""Comment lines per code line; well-kept code of the field has .04 to .24."""

_DIRECTIVE = re.compile(r"#\s*(type:|noqa|pyright:)")
_LAYOUT = {
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
}


def count(text: str) -> tuple[int, int]:
    """Lines with a comment, and lines with code; docstrings are neither, nor are directives."""
    docs: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        match node:
            case ast.Expr(value=ast.Constant(value=str())):
                docs |= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    comments: set[int] = set()
    code: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            if not _DIRECTIVE.match(token.string):
                comments.add(token.start[0])
        elif token.type not in _LAYOUT:
            code |= set(range(token.start[0], token.end[0] + 1))
    return len(comments), len(code - docs)


def rooms() -> dict[str, tuple[int, int]]:
    """Comment and code lines of each package below the root."""
    found: dict[str, tuple[int, int]] = collections.defaultdict(lambda: (0, 0))
    for path in sorted(PACKAGE.rglob("*.py")):
        room = path.relative_to(PACKAGE).parent.as_posix()
        comments, code = count(path.read_text(encoding="utf-8"))
        found[room] = found[room][0] + comments, found[room][1] + code
    return found


def shares(found: dict[str, tuple[int, int]]) -> str:
    """The share of each room, the lowest first."""
    lines = [(comments / max(code, 1), name) for name, (comments, code) in found.items() if code]
    return "\n".join(f"{share:.3f} {name}" for share, name in sorted(lines))


def total(found: dict[str, tuple[int, int]]) -> float:
    """The share of all rooms together."""
    comments, code = (sum(counts) for counts in zip(*found.values(), strict=True))
    return comments / code


def test_lines_say_why():
    found = rooms()
    assert total(found) >= LEAST, f"{total(found):.3f} comment lines a code line:\n{shares(found)}"


def test_only_comments_that_are_sentences_count():
    text = '''"""A module.

# not a comment
"""
import a  # noqa: F401
x = 1  # why 1
# and why
# on two lines
y = """
# text
"""
'''
    assert count(text) == (3, 5)


if __name__ == "__main__":
    sys.stdout.write(f"{shares(rooms())}\n{total(rooms()):.3f} in all\n")
