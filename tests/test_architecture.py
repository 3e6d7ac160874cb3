"""How the parts of the package depend on one another, read from their import statements."""

import ast
import subprocess
import sys
from collections.abc import Iterable, Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import diffseg

ROOT = Path(diffseg.__file__).parent.parent
FILES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted((ROOT / "diffseg").rglob("*.py"))
}
FUNCTIONS = [name for name in diffseg.__all__ if name != "__version__"]  # and classes, loaded when they are first used
SHELL = "diffseg.commands.inside"  # runs cells of notebooks as IPython does; it draws nothing
DRAWING = {"matplotlib", "matplotlib_inline", "mpl_toolkits", "IPython"}

#: From the bottom to the top: a part imports from its own layer and from those below, never from one above.
LAYERS = (
    {"arguments", "exits", "wording", "files", "models.paths", "models.quiet", "models.versions", "progress"},
    {"pocket"},
    {"images", "diffuse", "attention", "heads", "aggregation", "merging", "masks", "variants", "semantics", "naming"}
    | {"beyond", "plus", "backbones", "metrics", "boundaries", "baselines", "datasets", "check", "output", "export"}
    | {"colours"},
    {"models"},
    {"pipeline"},
    {"dino", "sweeps", "cluster", "evaluate", "limits", "costs", "full_size"},
    {"commands", "__main__", "results"},
    {"pocket.training"},
    {"figures"},
    {"widgets"},
)
LEVELS = {part: level for level, layer in enumerate(LAYERS) for part in layer}


def imported_names(module: str, nodes: Iterable[ast.AST]) -> Iterator[str]:
    """The full names that import statements of a module ask for, such as "diffseg.masks.relabel"."""
    package = module.split(".") if FILES[module].name == "__init__.py" else module.split(".")[:-1]
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *filter(None, [node.module])])
            yield from (f"{base}.{alias.name}" for alias in node.names)


def module_of(name: str) -> str:
    """The module of this package that a name belongs to: "diffseg.masks" of "diffseg.masks.relabel"."""
    while name not in FILES:
        name = name.rpartition(".")[0]
    return name


def part_of(module: str) -> str:
    """The part of `LAYERS` that a module belongs to: "evaluate" for "diffseg.evaluate.run"; "" for "diffseg" itself."""
    part = module.removeprefix("diffseg").removeprefix(".")
    while part and part not in LEVELS:
        part = part.rpartition(".")[0]
    return part


def statements(module: str, everywhere: bool) -> Iterable[ast.AST]:
    """The nodes of a module: all of them, or those that run when it is imported."""
    tree = ast.parse(FILES[module].read_text(encoding="utf-8"))
    if everywhere:
        return ast.walk(tree)
    lazy = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
    inside = {id(node) for function in ast.walk(tree) if isinstance(function, lazy) for node in ast.walk(function)}
    return [node for node in ast.walk(tree) if id(node) not in inside]


def needs(module: str, everywhere: bool = True) -> set[str]:
    """The modules of this package that one of them imports, itself left out."""
    names = imported_names(module, statements(module, everywhere))
    return {module_of(name) for name in names if name.split(".")[0] == "diffseg"} - {module}


def test_names_are_resolved():
    assert {"diffseg.metrics", "diffseg.progress"} <= FILES.keys()
    assert "diffseg.progress" in needs("diffseg.metrics")  # from diffseg.progress import ...
    assert "diffseg.baselines" in needs("diffseg.evaluate.methods")  # from .. import ...
    assert "diffseg.merging" in needs("diffseg.check._merging")  # from diffseg import ...
    assert "diffseg.pocket.catalogue" in needs("diffseg.pocket")  # from .catalogue import ..., in a package


@pytest.mark.parametrize("module", FILES)
def test_only_figures_draw(module):
    if part_of(module) != "figures":
        names = {name.split(".")[0] for name in imported_names(module, statements(module, everywhere=True))}
        assert not names & (DRAWING - {"IPython"} if module == SHELL else DRAWING)
        assert "figures" not in map(part_of, needs(module))


@pytest.mark.parametrize("module", sorted(FILES.keys() - {"diffseg"}))
def test_imports_lead_downwards(module):
    level = LEVELS[part_of(module)]
    above = {name for name in needs(module) - {"diffseg"} if LEVELS[part_of(name)] > level}
    assert not above


def test_no_module_imports_itself_in_the_end():
    TopologicalSorter({module: needs(module, everywhere=False) for module in FILES}).prepare()


def test_scenes_need_no_more_than_the_data_folder():
    modules = [module for module in FILES if part_of(module) == "pocket"]
    others = set().union(*map(needs, modules)) - set(modules)
    assert others == {"diffseg.models.paths"}


@pytest.mark.parametrize("module", ["diffseg", "diffseg.pocket"])
def test_importing_is_cheap(module):
    """Neither the package nor its scenes load torch or anything that draws."""
    command = [sys.executable, "-X", "importtime", "-c", f"import {module}"]
    report = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    loaded = {line.rpartition("|")[2].strip() for line in report.splitlines()}
    assert module in loaded
    assert not {name.split(".")[0] for name in loaded} & {"torch", *DRAWING}


def test_public_names_are_there():
    for name in FUNCTIONS:
        assert getattr(diffseg, name) is not None
        assert name in dir(diffseg)
    with pytest.raises(AttributeError, match="nothing_here"):
        diffseg.nothing_here  # noqa: B018


def test_the_package_itself_does_not_use_its_lazy_names():
    """`from diffseg import aggregate` within the package would hide which module is needed."""
    lazy = {f"diffseg.{name}" for name in FUNCTIONS}
    for module in FILES:
        assert not lazy & set(imported_names(module, statements(module, everywhere=True))), module
