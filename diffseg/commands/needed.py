"""What the last cells of a notebook need of those before them, read from their names."""

import ast
import symtable
from collections.abc import Iterable, Sequence

_WHOLE_BINDINGS = ast.Import | ast.ImportFrom | ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def needed(before: Sequence[str], last: Iterable[str]) -> list[str]:
    """Statements of `before`, in order, that bind names which `last` uses and does not bind itself.

    Statements that only change something, such as `x.append(1)`, bind no name and are left out, and so is a cell that
    is no Python.

    Args:
        before: the source of cells, in order.
        last: the source of the cells that will run whole.
    """
    wanted: set[str] = set()
    own: set[str] = set()
    for source in last:
        used, bound = _names(source)
        wanted |= used - bound - own
        own |= bound
    kept = []
    for statement in reversed([node for source in before for node in _statements(source)]):
        trimmed = _trim(statement, wanted)
        source = ast.unparse(trimmed) if trimmed else ""
        used, bound = _names(source)
        if not trimmed or not (bound & wanted or _is_star(trimmed)):
            continue
        if isinstance(trimmed, _WHOLE_BINDINGS) or (isinstance(trimmed, ast.Assign) and not used & bound):
            wanted -= bound
        wanted |= used
        kept.append(source)
    return kept[::-1]


def _statements(source: str) -> list[ast.stmt]:
    try:
        return ast.parse(source).body
    except (SyntaxError, ValueError):
        return []


def _trim(statement: ast.stmt, wanted: set[str]) -> ast.stmt | None:
    """An import without the names that are not wanted, which may take seconds to load; anything else as it is."""
    if not isinstance(statement, ast.Import | ast.ImportFrom) or _is_star(statement):
        return statement
    names = [alias for alias in statement.names if (alias.asname or alias.name.split(".")[0]) in wanted]
    if not names:
        return None
    if isinstance(statement, ast.Import):
        return ast.Import(names)
    return ast.ImportFrom(statement.module, names, statement.level)


def _is_star(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.ImportFrom) and statement.names[0].name == "*"


def _names(source: str) -> tuple[set[str], set[str]]:
    """The global names that a piece of code uses, and those that it binds."""
    try:
        table = symtable.symtable(source, "cell", "exec")
    except (SyntaxError, ValueError):
        return set(), set()
    used = {symbol.get_name() for symbol in table.get_symbols() if symbol.is_referenced()}
    bound = {symbol.get_name() for symbol in table.get_symbols() if symbol.is_assigned() or symbol.is_imported()}
    for scope in table.get_children():
        used |= _globals_of(scope)
    return used, bound | {
        scope.get_name() for scope in table.get_children() if scope.get_type() in ("function", "class")
    }


def _globals_of(scope: symtable.SymbolTable) -> set[str]:
    names = {symbol.get_name() for symbol in scope.get_symbols() if symbol.is_global() and symbol.is_referenced()}
    return names.union(*map(_globals_of, scope.get_children()))
