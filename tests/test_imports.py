"""The rooms and who may import whom, read from the source."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import edgemeta

ROOT = Path(edgemeta.__file__).parent
BELOW = {  # room -> the rooms that it may use
    "errors": set(),
    "storage": {"errors"},
    "names": {"errors"},
    "config": {"errors", "names"},
    "nn": {"errors", "names", "config", "storage"},
    "data": {"errors", "names", "config", "storage", "nn"},
    "meta": {"errors", "names", "config", "storage", "nn"},
}
BELOW["fed"] = {*BELOW, "errors"}
BELOW["net"] = {*BELOW}
BELOW["api"] = {*BELOW, "jobs"} - {"net"}
BELOW["jobs"] = set()
BELOW["bench"] = {"errors", "nn"}
BELOW["contenders"] = {"nn"}
BELOW["against"] = {"errors", "bench", "contenders"}
BELOW["cli"] = {*BELOW}
STANDARD = {"nn": {"numpy"}, "data": {"numpy", "PIL"}, "meta": {"numpy"}, "fed": {"numpy"}, "net": {"numpy"}}
STANDARD |= {"cli": {"numpy", "click"}, "api": {"numpy"}, "bench": {"numpy"}}
STANDARD |= {"contenders": {"numpy", "torch"}}
FILES = sorted(ROOT.rglob("*.py"))


def imports(path: Path) -> list[tuple[str, bool]]:
    """Return (module, whether at module level) of every import in a file."""
    tree = ast.parse(path.read_text())
    tree.body = [node for node in tree.body if "TYPE_CHECKING" not in ast.dump(node) or not isinstance(node, ast.If)]
    top = set(ast.walk(ast.Module([node for node in tree.body if not isinstance(node, ast.FunctionDef)], [])))
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(alias.name, node in top) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found += [(f"{node.module}.{alias.name}", node in top) for alias in node.names]
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_room_imports_only_the_rooms_below_it(path):
    room = path.relative_to(ROOT).parts[0].removesuffix(".py")
    if room in ("__init__", "__main__"):
        return
    for module, at_top in imports(path):
        head, *rest = module.split(".")
        if head == "edgemeta":
            assert rest[0] == room or rest[0] == "__version__" or rest[0] in BELOW[room], f"{path} imports {module}"
        else:
            assert head in sys.stdlib_module_names or head in STANDARD.get(room, ()), f"{path} imports {module}"
        if head in ("PIL", "torch"):
            assert not at_top, f"{path} imports {head} before it is needed"
        assert head not in ("pickle", "marshal", "shelve"), f"{path} imports {module}"
        if room == "fed":
            assert head not in ("socket", "ssl", "asyncio", "threading", "time"), f"{path} imports {module}"
            assert module != "numpy.random", f"{path} imports {module}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_global_random_state_and_no_eval(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in ("eval", "exec", "__import__")
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Attribute) and node.value.attr == "random":
            assert node.attr in ("Generator", "default_rng")


def loaded_by(code: str) -> set[str]:
    script = f"import sys; {code}; print(*{{name.split('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_importing_the_package_is_light():
    assert not loaded_by("import edgemeta") & {"numpy", "PIL", "click"}
    assert not loaded_by("import edgemeta; edgemeta.nn; edgemeta.load_model; edgemeta.simulate") & {"PIL", "click"}


def test_help_needs_no_numpy():
    assert "numpy" not in loaded_by("import edgemeta.cli")
