"""The rules of ARCHITECTURE.md, checked on the source."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import tessera_cli

ROOT = Path(tessera_cli.__file__).parent
MODULES = sorted(ROOT.rglob("*.py"))
READERS = ("cli", "config.py", "jobs.py", "environment")
LIBRARY = [path for path in MODULES if path.relative_to(ROOT).parts[0] not in (*READERS, "__main__.py")]


def names(path):
    return str(path.relative_to(ROOT))


def calls(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func)


def imports(tree, *, top_level_only=False):
    nodes = tree.body if top_level_only else ast.walk(tree)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", LIBRARY, ids=names)
def test_the_library_never_prints_exits_or_reads_the_environment(path):
    tree = ast.parse(path.read_text())
    assert not {"print", "exit", "quit", "sys.exit", "os._exit", "input"} & set(calls(tree))
    source = ast.unparse(tree)
    assert "os.environ" not in source
    assert "os.getenv" not in source
    assert not [name for name in imports(tree) if name.split(".")[0] in ("typer", "rich")]


TENSORS = ("models", "inference", "pretraining", "evaluation/segmentation")


@pytest.mark.parametrize(
    "path", [path for path in LIBRARY if not names(path).startswith(tuple(f"{each}/" for each in TENSORS))], ids=names
)
def test_torch_is_imported_only_where_tensors_live(path):
    tree = ast.parse(path.read_text())
    assert "torch" not in {name.split(".")[0] for name in imports(tree, top_level_only=True)}


def test_every_module_is_of_one_idea():
    long = {names(path): count for path in MODULES if (count := len(path.read_text().splitlines())) > 350}
    assert not long


def test_help_is_quick_because_it_imports_nothing_heavy():
    code = "import sys; from tessera_cli.cli.app import run; run(['embed', '-h']); print(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {
        "torch",
        "numpy",
        "rasterio",
        "xarray",
        "odc",
        "pystac",
        "shapely",
        "pyproj",
        "safetensors",
        "huggingface_hub",
    }
    assert not heavy & {name.split(".")[0] for name in done.stderr.split()}
    assert "Area:" in done.stdout
    assert "Examples:" in done.stdout


SCRIPTS = [
    path for folder in ("examples", "benchmarks", "docs") for path in sorted((ROOT.parent / folder).glob("*.py"))
]


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_scripts_beside_the_package_import_what_there_is(path):
    import importlib

    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("tessera_cli"):
            module = importlib.import_module(node.module)
            for alias in node.names:
                assert hasattr(module, alias.name) or importlib.import_module(f"{node.module}.{alias.name}")
