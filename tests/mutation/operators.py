"""The mutants of a module: its source with one small mistake each, inside a function."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass

COMPARISONS = {
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
ARITHMETIC = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.FloorDiv: ast.Mult,
    ast.Div: ast.Mult,
    ast.Mod: ast.FloorDiv,
    ast.Pow: ast.Mult,
    ast.BitOr: ast.BitAnd,
    ast.BitAnd: ast.BitOr,
}
FUNCTIONS = ast.FunctionDef | ast.AsyncFunctionDef
NOT_MUTATED = ast.arguments | ast.Assert | ast.JoinedStr
"""Defaults are evaluated at import; asserts are for type checkers; f-strings are messages."""


@dataclass(frozen=True)
class Mutant:
    """One mistake.

    Attributes:
        function: Qualified name of the outermost function that contains it.
        lines: The lines of the changed node, from 1.
        change: The code before and after.
        tree: The module with the mistake in it, until the next mutant is made.
    """

    function: str
    lines: range
    change: str
    tree: ast.Module


def mutants(source: str) -> Iterator[Mutant]:
    """Give all mutants of a module, in the order of its source."""
    tree = ast.parse(source)
    for name, function in _functions(tree, ""):
        for parent, place in list(_places(function)):
            node = _at(parent, place)
            for changed in _changes(node, parent):
                _put(parent, place, ast.fix_missing_locations(ast.copy_location(changed, node)))
                lines = range(node.lineno, (node.end_lineno or node.lineno) + 1)
                yield Mutant(name, lines, f"{_text(node)} -> {_text(changed)}", tree)
                _put(parent, place, node)


def _functions(tree: ast.AST, prefix: str) -> Iterator[tuple[str, ast.AST]]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, FUNCTIONS):
            yield prefix + node.name, node
        elif isinstance(node, ast.ClassDef):
            yield from _functions(node, f"{prefix}{node.name}.")


def _places(parent: ast.AST) -> Iterator[tuple[ast.AST, tuple[str, int | None]]]:
    """Give each node below, as its parent and its place in it."""
    for name, value in ast.iter_fields(parent):
        if name in {"decorator_list", "annotation", "returns", "type_params"}:
            continue
        for number, node in enumerate(value if isinstance(value, list) else [value]):
            if isinstance(node, ast.AST) and not isinstance(node, NOT_MUTATED) and not _for_types(node):
                if isinstance(node, ast.stmt | ast.expr):
                    yield parent, (name, number if isinstance(value, list) else None)
                if not isinstance(node, ast.Raise):  # what an error says is no behavior
                    yield from _places(node)


def _for_types(node: ast.AST) -> bool:
    called = node.value if isinstance(node, ast.Expr) else node
    return isinstance(called, ast.Call) and getattr(called.func, "id", "") in {"cast", "assert_never"}


def _at(parent: ast.AST, place: tuple[str, int | None]) -> ast.AST:
    name, number = place
    return getattr(parent, name) if number is None else getattr(parent, name)[number]


def _put(parent: ast.AST, place: tuple[str, int | None], node: ast.AST) -> None:
    name, number = place
    if number is None:
        setattr(parent, name, node)
    else:
        getattr(parent, name)[number] = node


def _changes(node: ast.AST, parent: ast.AST) -> Iterator[ast.AST]:
    match node:
        case ast.Compare(left, operators, comparators):
            for number, operator in enumerate(operators):
                flipped = [*operators[:number], COMPARISONS[type(operator)](), *operators[number + 1 :]]
                yield ast.Compare(left, flipped, comparators)
        case ast.BoolOp(operator, values):
            yield ast.BoolOp(ast.Or() if isinstance(operator, ast.And) else ast.And(), values)
        case ast.UnaryOp(ast.Not(), operand):
            yield operand
        case ast.BinOp(left, operator, right) if type(operator) in ARITHMETIC:
            yield ast.BinOp(left, ARITHMETIC[type(operator)](), right)
        case ast.IfExp(test, body, orelse):
            yield ast.IfExp(test, orelse, body)
        case ast.Constant() if not isinstance(parent, ast.Expr):  # a docstring is one
            yield from _other_constants(node.value)
        case ast.stmt():
            yield from _other_statements(node)
        case _:
            return


def _other_constants(value: object) -> Iterator[ast.AST]:
    match value:
        case bool():
            yield ast.Constant(not value)
        case int() | float():
            yield ast.Constant(value + 1)
        case str() if " " not in value:  # with spaces it is a message
            yield ast.Constant(f"{value}X")
        case _:
            return


def _other_statements(node: ast.stmt) -> Iterator[ast.AST]:
    match node:
        case ast.If(test, body, orelse):
            yield ast.If(ast.UnaryOp(ast.Not(), test), body, orelse)
        case ast.Return(value) if value and not isinstance(value, ast.Constant):  # which is mutated itself
            yield ast.Return(ast.Constant(None))
        case ast.Break():
            yield ast.Continue()
        case ast.Continue():
            yield ast.Break()
        case ast.Expr(ast.Constant()):
            return
        case (
            ast.Expr()
            | ast.Raise()
            | ast.AugAssign()
            | ast.Delete()
            | ast.Assign([ast.Attribute() | ast.Subscript()])
        ):
            yield ast.Pass()
        case _:
            return


def _text(node: ast.AST) -> str:
    return ast.unparse(node).partition("\n")[0]
