"""The floors of the house: who may import whom, read from the sources and tried in a process."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
LIBRARY = ROOT / "backend" / "spad"
PLUGIN = ROOT / "napari_spad"

# From the ground up: a package imports itself and what stands before it.
FLOORS = (
    "errors",
    "progress",
    "processes",
    "volumes",
    "jsonfile",
    "prompts",
    "_phantom_canvas",
    "_phantom_anatomy",
    "phantoms",
    "phantoms_2d",
    "device",
    "models",
    "losses",
    "checkpoints",
    "turns",
    "data",
    "inference",
    "evaluation",
    "training",
    "worker",
    "cli",
    "__main__",
)
TORCH_FREE = (
    "spad.errors",
    "spad.progress",
    "spad.jsonfile",
    "spad.processes",
    "spad.volumes",
    "spad.prompts",
    "spad._phantom_canvas",
    "spad._phantom_anatomy",
    "spad.phantoms",
    "spad.phantoms_2d",
    "spad.checkpoints.card",
    "spad.checkpoints.zoo",
    "spad.data.channels",
    "spad.turns",
    "spad.training.runs",
    "spad.worker.messages",
    "spad.worker.client",
)
OPEN_NAMES = {
    f"spad.{name}" for name in ("Cancelled", "SourceGrid", "SpadError", "Volume", "read", "write")
}
NEEDS_TORCH = {"torch", "monai", "lightning", "pytorch_lightning", "safetensors"}
SCREEN = {"napari", "napari_spad", "qtpy", "magicgui", "superqt", "pyqtgraph", "npe2"} | {
    "PyQt5",
    "PyQt6",
    "PySide2",
    "PySide6",
}
ON_FIRST_USE = {"nibabel", "SimpleITK", "pydicom", "highdicom", "pyqtgraph"}


@dataclass(frozen=True)
class Import:
    """One imported module or attribute, e.g. `spad.volumes.volume.Volume`, and where it stands."""

    name: str
    file: Path
    line: int

    @property
    def top(self) -> str:
        return self.name.partition(".")[0]

    def __str__(self) -> str:
        return f"{self.file.relative_to(ROOT)}:{self.line} imports {self.name}"


def sources(*folders: Path) -> list[Path]:
    return sorted(path for folder in folders for path in folder.rglob("*.py"))


def module_name(path: Path) -> str:
    base = LIBRARY.parent if path.is_relative_to(LIBRARY) else ROOT
    parts = path.relative_to(base).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def imports(path: Path) -> tuple[Import, ...]:
    """Every import of a file, those inside functions and type-checking blocks included."""
    tree = ast.parse(path.read_text("utf-8"), path)
    return tuple(
        Import(name, path, node.lineno)
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in _names(node, path)
    )


def _names(node: ast.Import | ast.ImportFrom, path: Path) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
        return
    package = module_name(path).split(".")
    if path.name != "__init__.py":
        package.pop()
    base = package[: len(package) - node.level + 1] if node.level else []
    prefix = ".".join([*base, node.module] if node.module else base)
    yield from (f"{prefix}.{alias.name}" for alias in node.names)


def is_within(name: str, modules: tuple[str, ...]) -> bool:
    return any(name == module or name.startswith(f"{module}.") for module in modules)


def floor(name: str) -> int:
    part = name.split(".")[1]
    assert part in FLOORS, f"spad.{part} stands on no floor yet; give it one in FLOORS"
    return FLOORS.index(part)


def wrong_imports(paths: list[Path], is_wrong: Callable[[Import], bool]) -> str:
    """List the imports that break a rule, one a line; empty if all keep it."""
    return "\n".join(str(found) for path in paths for found in imports(path) if is_wrong(found))


def test_each_floor_imports_only_what_stands_below_it():
    def is_above(found: Import) -> bool:
        own = module_name(found.file)
        if found.top != "spad" or "." not in found.name or own == "spad":
            return False
        other_package = found.name.split(".")[1] != own.split(".")[1]
        return other_package and floor(found.name) >= floor(own)

    assert wrong_imports(sources(LIBRARY), is_above) == ""


def test_the_library_knows_no_screen():
    assert wrong_imports(sources(LIBRARY), lambda found: found.top in SCREEN) == ""


def test_nothing_imports_the_folder_backend():
    everything = sources(LIBRARY, PLUGIN, *(ROOT / name for name in ("tests", "benchmarks")))
    assert wrong_imports(everything, lambda found: found.top == "backend") == ""


def test_the_plugin_imports_only_what_needs_no_torch():
    def is_closed(found: Import) -> bool:
        if found.top == "spad":
            return found.name not in OPEN_NAMES and not is_within(found.name, TORCH_FREE)
        return found.top in NEEDS_TORCH

    assert wrong_imports(sources(PLUGIN), is_closed) == ""


def test_torch_free_modules_lead_to_no_torch():
    def leads_to_torch(found: Import) -> bool:
        if found.top == "spad":
            # A neighbour in the same package is judged by what it imports, in a process below.
            own = module_name(found.file).split(".")[1]
            return not is_within(found.name, (*TORCH_FREE, f"spad.{own}"))
        return found.top in NEEDS_TORCH

    free = [path for path in sources(LIBRARY) if is_within(module_name(path), TORCH_FREE)]
    assert len(free) > len(TORCH_FREE)
    assert wrong_imports(free, leads_to_torch) == ""


def run(code: str) -> list[str]:
    """Run code in a fresh process that prints one JSON list, and return that."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


WITHOUT_TORCH = """
import json, sys
from importlib import import_module
for name in ("torch", "monai", "lightning"):
    sys.modules[name] = None
before = set(sys.modules)
for name in {modules!r}:
    import_module(name)
print(json.dumps(sorted({{name.partition(".")[0] for name in set(sys.modules) - before}})))
"""


def test_torch_free_modules_import_where_there_is_no_torch():
    modules = [
        name for path in sources(LIBRARY) if is_within(name := module_name(path), TORCH_FREE)
    ]
    assert set(TORCH_FREE) <= set(modules)
    run(WITHOUT_TORCH.format(modules=modules))


def test_commands_import_where_there_is_no_torch():
    """Options are parsed, and wrong ones refused, before torch is imported."""
    modules = [module_name(path) for path in sources(LIBRARY / "cli")]
    loaded = run(WITHOUT_TORCH.format(modules=modules))
    assert not ON_FIRST_USE & set(loaded)


def test_the_plugin_imports_where_there_is_no_torch():
    modules = [module_name(path) for path in sources(PLUGIN)]
    assert "napari_spad.reader" in modules
    loaded = run(WITHOUT_TORCH.format(modules=["napari.viewer", "qtpy.QtWidgets", *modules]))
    assert not ON_FIRST_USE & set(loaded)


def test_import_spad_loads_nothing_but_itself():
    loaded = run(WITHOUT_TORCH.format(modules=["spad"]))
    assert set(loaded) - set(sys.stdlib_module_names) == {"spad"}


# pydicom looks for these by itself
DECODERS = {"pylibjpeg", "pylibjpeg-openjpeg"}


def test_dependencies_are_what_is_imported():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    declared = {canonicalize_name(Requirement(line).name) for line in project["dependencies"]}
    providers = packages_distributions()
    imported = {
        canonicalize_name(provider)
        for path in sources(LIBRARY, PLUGIN)
        for found in imports(path)
        if found.top not in {*sys.stdlib_module_names, "spad", "napari_spad"}
        for provider in providers[found.top]
    }
    assert imported == declared - DECODERS


def test_ci_pins_every_dependency():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = project["optional-dependencies"]
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    pins = {canonicalize_name(line.partition("==")[0]) for line in lines if "==" in line}
    for line in (*project["dependencies"], *extras["all"], *extras["test"]):
        assert canonicalize_name(Requirement(line).name) in pins


def test_the_manifest_at_the_top_is_the_packaged_one():
    link = ROOT / "napari.yaml"
    text = link.read_text("utf-8")
    assert text in ("napari_spad/napari.yaml", (PLUGIN / "napari.yaml").read_text("utf-8"))
