"""The rooms and who may import whom, read from the source."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import edgemeta

ROOT = Path(edgemeta.__file__).parent
GROUND = {"errors", "records", "names", "config", "disk", "reading", "storage", "folders", "logs", "lengthy"}
CORE = GROUND | {"nn", "data", "meta", "fed"}
BELOW = {  # room -> the rooms that it may use
    "errors": set(),
    "logs": {"names"},
    "lengthy": set(),
    "jobs": set(),
    "records": {"errors"},
    "disk": set(),
    "reading": {"errors", "disk"},
    "storage": {"errors", "records", "disk", "reading"},
    "folders": {"errors", "reading"},
    "names": {"errors"},
    "config": {"errors", "records", "names"},
    "nn": GROUND,
    "data": GROUND | {"nn"},
    "meta": GROUND | {"nn"},
    "fed": GROUND | {"nn", "data", "meta"},
    "http": GROUND,
    "link": GROUND,
    "gateway": CORE | {"http", "link", "page"},  # the two wings know nothing of each other
    "device": CORE | {"link"},
    "api": CORE | {"jobs"},
    "page": {"names"},
    "compare": CORE | {"api", "jobs", "page"},
    "flower": CORE | {"api", "device", "link"},  # a node is a device that Flower reaches
    "bench": CORE | {"api", "gateway", "device"},  # what measures both ends is no part of either
    "teach": CORE | {"http", "device", "page"},  # the device's page: no device needs it
    "cli": CORE | {"gateway", "device", "link", "api", "jobs", "bench", "compare", "flower", "teach"},
}
OTHERS = {  # beside NumPy and the standard library
    "data": {"PIL"},
    "bench": {"torch"},
    "flower": {"flwr"},
    "cli": {"click", "segno"},
}
MOST_LINES = 320
FILES = sorted(ROOT.rglob("*.py"))


def imports(path: Path) -> list[tuple[str, bool]]:
    """Return (module, whether at module level) of every import in a file, relative ones as what they stand for."""
    tree = ast.parse(path.read_text())
    tree.body = [node for node in tree.body if "TYPE_CHECKING" not in ast.dump(node) or not isinstance(node, ast.If)]
    top = set(ast.walk(ast.Module([node for node in tree.body if not isinstance(node, ast.FunctionDef)], [])))
    package = ["edgemeta", *path.relative_to(ROOT).parts[:-1]]
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(alias.name, node in top) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*above, *([node.module] if node.module else [])])
            found += [(f"{module}.{alias.name}", node in top) for alias in node.names]
    return found


def test_every_way_to_write_an_import_is_read(tmp_path, monkeypatch):
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    (tmp_path / "device").mkdir()
    path = tmp_path / "device" / "loop.py"
    ways = (
        "from edgemeta import gateway",
        "from .. import http",
        "from ..fed.plan import Plan",
        "from .calls import x",
    )
    path.write_text("\n".join(ways))
    assert [module for module, _ in imports(path)] == [
        *("edgemeta.gateway", "edgemeta.http", "edgemeta.fed.plan.Plan", "edgemeta.device.calls.x")
    ]


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
            known = sys.stdlib_module_names | {"numpy"} | OTHERS.get(room, set())
            assert head in known, f"{path} imports {module}"
        if head in ("PIL", "segno", "torch", "flwr"):
            assert not at_top, f"{path} imports {head} before it is needed"
        assert head not in ("pickle", "marshal", "shelve"), f"{path} imports {module}"
        if room in ("http", "link", "jobs"):
            assert head != "numpy", f"{path} imports {module}"
        if room == "fed":
            assert head not in ("socket", "ssl", "asyncio", "threading", "time"), f"{path} imports {module}"
            assert module != "numpy.random", f"{path} imports {module}"


def test_no_room_is_above_a_fifth_and_no_module_too_long():
    lines = {path: len(path.read_text().splitlines()) for path in FILES}
    assert not [path for path, count in lines.items() if count > MOST_LINES]
    rooms: dict[str, int] = {}
    for path, count in lines.items():
        first, *inside = path.relative_to(ROOT).parts
        if inside:
            rooms[first] = rooms.get(first, 0) + count
    assert max(rooms.values()) < sum(lines.values()) / 5, rooms


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


def modules_after(code: str) -> set[str]:
    script = f"import sys; {code}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return {name for name in done.stdout.split() if name.startswith("edgemeta.")}


def test_a_device_loads_no_coordinator_and_no_gateway():
    loaded = modules_after("import edgemeta; edgemeta.Device; import edgemeta.cli; edgemeta.cli.commands.commands")
    assert "edgemeta.device.device" in loaded
    rooms = {name.split(".")[1] for name in loaded}
    assert not rooms & {"gateway", "http", "api", "bench", "compare", "jobs", "page", "teach"}
    fed = {name.removeprefix("edgemeta.fed.") for name in loaded if name.startswith("edgemeta.fed.")}
    assert not fed & {"coordinator", "directory", "simulation", "aggregate", "plan", "selection", "server_step"}


def test_a_gateway_loads_no_device():
    loaded = modules_after("import edgemeta.gateway.server")
    assert "edgemeta.fed.coordinator" in loaded
    assert not {name for name in loaded if name.startswith("edgemeta.device")}
