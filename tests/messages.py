"""What the package can say: every text of its source, with HOLE where a value comes in."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import edgemeta

HOLE = "…"
VALUE = re.compile(r"%(\(\w+\))?[.\d]*[sdgr]|\{\}")


def said() -> Iterator[str]:
    """Yield the texts: constants, f-strings, and forms of the log."""
    for path in Path(edgemeta.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr | ast.Constant):
                yield re.sub(f"{HOLE}+", HOLE, VALUE.sub(HOLE, _text(node)))


def _text(node: ast.AST) -> str:
    if isinstance(node, ast.JoinedStr):
        return "".join(map(_text, node.values))
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else HOLE
