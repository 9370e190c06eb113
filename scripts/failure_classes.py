"""Which problem and failure classes the code names, read from its syntax trees, for docs/failures.md.

A class is a constant that arrives at a parameter called `problem_class` or `failure_class`, directly or
through helpers that put a family in front (`f"data.{name}"`). A class that is only computed at run time
shows as its family with a star. Nothing is imported or executed.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

PARAMETERS = ("problem_class", "failure_class")
CLASS = re.compile(r"[a-z]+\.(?:[a-z_]+|\*)")
_FIELDS = {"Problem": ("key", "value", "rule", "problem_class", "fix")}
_RULES = ("rule", "message")
_MAX_SHOWN_CHARS = 160


class Sink(NamedTuple):
    """A parameter through which classes pass: its place in a call, and what is put in front of it."""

    position: int
    name: str
    prefix: str


class Named(NamedTuple):
    """One class, the file that names it, and the rule and fix beside it where they are constant."""

    name: str
    file: str
    rule: str = ""
    fix: str = ""


class _Module(NamedTuple):
    file: str
    tree: ast.Module
    functions: dict[str, ast.FunctionDef]
    imported: dict[str, str]
    methods: dict[str, str]


def classes_in(package: Path) -> list[Named]:
    """Return every class that the package's code names, by name and file, each file once."""
    modules = [_module(path, package) for path in sorted(package.rglob("*.py"))]
    methods = _only_methods(modules)
    modules = [module._replace(methods=methods) for module in modules]
    parameters = {
        (module.file, name): _parameters(function)
        for module in modules
        for name, function in module.functions.items()
    }
    sinks = _all_sinks(modules)
    found: dict[tuple[str, str], Named] = {}
    for module in modules:
        for named in (*_called(module, sinks, parameters), *_listed(module), *_defaults(module, sinks)):
            kept = found.get((named.name, named.file))
            if CLASS.fullmatch(named.name) and (kept is None or (bool(named.rule), bool(named.fix)) > (
                bool(kept.rule), bool(kept.fix)
            )):  # fmt: skip
                found[named.name, named.file] = named
    families = {(name.partition(".")[0], file) for name, file in found if not name.endswith("*")}
    # A helper that only puts the family in front is no class of its own.
    return [
        found[name, file]
        for name, file in sorted(found)
        if not name.endswith("*") or (name.partition(".")[0], file) not in families
    ]


def literal_values(path: Path, name: str) -> list[tuple[str, str]]:
    """Return the values of a Literal, each with the comment behind it."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    lines = path.read_text(encoding="utf-8").splitlines()
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name:
            values = [each for each in ast.walk(node.value) if isinstance(each, ast.Constant)]
            return [(str(each.value), lines[each.lineno - 1].partition("# ")[2].strip()) for each in values]
    raise LookupError(f"{path} has no {name}")


def literal_meaning(path: Path, name: str) -> str:
    """Return the text that stands below a Literal."""
    body = ast.parse(path.read_text(encoding="utf-8")).body
    for node, after in pairwise(body):
        is_wanted = isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name
        if is_wanted and isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
            return " ".join(str(after.value.value).split())
    return ""


def _module(path: Path, package: Path) -> _Module:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    functions = {node.name: node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    imported = {
        alias.asname or alias.name: node.module.replace(".", "/") + ".py"
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module
        for alias in node.names
    }
    return _Module(path.relative_to(package.parent).as_posix(), tree, functions, imported, {})


def _only_methods(modules: list[_Module]) -> dict[str, str]:
    """Return method -> file for names that one class only has, so that `check.problem(…)` is understood."""
    files: dict[str, list[str]] = {}
    for module in modules:
        for owner in (node for node in ast.walk(module.tree) if isinstance(node, ast.ClassDef)):
            for node in owner.body:
                if isinstance(node, ast.FunctionDef):
                    files.setdefault(node.name, []).append(module.file)
    return {name: places[0] for name, places in files.items() if len(places) == 1}


def _all_sinks(modules: list[_Module]) -> dict[tuple[str, str], Sink]:
    """Return (file, function) -> sink, with the helpers that only hand a class on."""
    sinks: dict[tuple[str, str], Sink] = {}
    for module in modules:
        for name, function in module.functions.items():
            for position, parameter in enumerate(_parameters(function)):
                if parameter in PARAMETERS:
                    sinks[module.file, name] = Sink(position, parameter, "")
    while True:
        before = len(sinks)
        for module in modules:
            for name, function in module.functions.items():
                if (module.file, name) not in sinks:
                    _add_helper(module, name, function, sinks)
        if len(sinks) == before:
            return sinks


def _add_helper(
    module: _Module, name: str, function: ast.FunctionDef, sinks: dict[tuple[str, str], Sink]
) -> None:
    names = _parameters(function)
    for call in (node for node in ast.walk(function) if isinstance(node, ast.Call)):
        value, prefix = _argument(module, call, sinks)
        if isinstance(value, ast.JoinedStr):
            prefix, value = prefix + _head(value), _last(value)
        if isinstance(value, ast.Name) and value.id in names:
            sinks[module.file, name] = Sink(names.index(value.id), value.id, prefix)


def _argument(
    module: _Module, call: ast.Call, sinks: dict[tuple[str, str], Sink]
) -> tuple[ast.expr | None, str]:
    """Return the expression that names the class in a call, and what the callee puts in front."""
    for keyword in call.keywords:
        if keyword.arg in PARAMETERS:
            return keyword.value, ""
    file, called = _callee(module, call)
    if called in _FIELDS:
        return _at(call, _FIELDS[called].index("problem_class")), ""
    sink = sinks.get((file, called))
    if sink is None:
        return None, ""
    by_name = next((each.value for each in call.keywords if each.arg == sink.name), None)
    return by_name or _at(call, sink.position), sink.prefix


def _called(
    module: _Module, sinks: dict[tuple[str, str], Sink], parameters: dict[tuple[str, str], list[str]]
) -> Iterator[Named]:
    for scope in (module.tree, *module.functions.values()):
        assigned = {} if scope is module.tree else _assigned(scope)
        for call in (node for node in ast.walk(scope) if isinstance(node, ast.Call)):
            value, prefix = _argument(module, call, sinks)
            names = parameters.get(_callee(module, call), list(_FIELDS.get(_callee(module, call)[1], ())))
            for name in _texts(value, assigned):
                yield Named(prefix + name, module.file, *_rule_and_fix(call, names, assigned))


def _assigned(scope: ast.AST) -> dict[str, list[ast.expr]]:
    """Return local variable -> everything that is assigned to it."""
    found: dict[str, list[ast.expr]] = {}
    for node in ast.walk(scope):
        for target in node.targets if isinstance(node, ast.Assign) else ():
            if isinstance(target, ast.Name) and isinstance(node, ast.Assign):
                found.setdefault(target.id, []).append(node.value)
    return found


def _defaults(module: _Module, sinks: dict[tuple[str, str], Sink]) -> Iterator[Named]:
    """Yield classes that are a parameter's default."""
    for name, function in module.functions.items():
        sink = sinks.get((module.file, name))
        arguments = function.args.args
        with_default = arguments[len(arguments) - len(function.args.defaults) :]
        for argument, default in zip(with_default, function.args.defaults, strict=True):
            if sink is not None and argument.arg == sink.name:
                yield from (Named(sink.prefix + text, module.file) for text in _texts(default, {}))


def _listed(module: _Module) -> Iterator[Named]:
    """Yield classes of tables (`_OWN_CLASSES = {...}`), of `{"class": …}`, and of variables so called."""
    for node in ast.walk(module.tree):
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        called = next((t.id for t in targets if isinstance(t, ast.Name)), "")
        value = getattr(node, "value", None)
        if called.endswith("_CLASSES") and isinstance(value, ast.Dict):
            for key, entry in zip(value.keys, value.values, strict=True):
                fixes = [each for each in _texts_in(entry) if " " in each]
                for name in _texts(key, {}):
                    yield Named(name, module.file, "", fixes[0] if fixes else "")
        elif called in PARAMETERS:
            yield from (Named(name, module.file) for name in _texts(value, {}))
        if isinstance(node, ast.Dict):
            for key, entry in zip(node.keys, node.values, strict=True):
                if isinstance(key, ast.Constant) and key.value == "class":
                    yield from (Named(name, module.file) for name in _texts(entry, {}))


def _texts(value: ast.AST | None, assigned: dict[str, list[ast.expr]]) -> list[str]:
    """Return the class names that an expression can have; a computed end is a star."""
    match value:
        case ast.Constant(value=str(text)):
            return [text]
        case ast.IfExp():
            return [*_texts(value.body, assigned), *_texts(value.orelse, assigned)]
        case ast.JoinedStr() if _head(value).endswith("."):
            return [_head(value) + "*"]
        case ast.Name() if value.id in assigned:
            return [text for each in assigned[value.id] for text in _texts(each, {})]
        case _:
            return []


def _rule_and_fix(call: ast.Call, names: list[str], assigned: dict[str, list[ast.expr]]) -> tuple[str, str]:
    """Return the rule (or message) and the fix of a call as far as they are constant."""
    given: dict[str, ast.expr] = dict(zip(names, call.args, strict=False))
    given |= {keyword.arg: keyword.value for keyword in call.keywords if keyword.arg}
    rule = next((given[name] for name in _RULES if name in given), None)
    return _constant(rule, assigned), _constant(given.get("fix"), assigned)


def _constant(text: ast.expr | None, assigned: dict[str, list[ast.expr]]) -> str:
    """Return a constant text, an f-string with dots for what is filled in, else nothing."""
    if isinstance(text, ast.Name) and len(assigned.get(text.id, ())) == 1:
        text = assigned[text.id][0]
    if isinstance(text, ast.Constant) and isinstance(text.value, str):
        return text.value
    if not isinstance(text, ast.JoinedStr):
        return ""
    return "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in text.values)


def shown(text: str) -> str:
    """Return a text on one line, cut where it is long."""
    line = " ".join(text.split())
    return line if len(line) <= _MAX_SHOWN_CHARS else line[: _MAX_SHOWN_CHARS - 1] + "…"


def _callee(module: _Module, call: ast.Call) -> tuple[str, str]:
    """Return (file, name) of what is called, by name: a method counts as one of its own module first."""
    name = call.func.id if isinstance(call.func, ast.Name) else getattr(call.func, "attr", "")
    elsewhere = module.methods.get(name, "") if isinstance(call.func, ast.Attribute) else ""
    return (module.file if name in module.functions else module.imported.get(name, elsewhere)), name


def _parameters(function: ast.FunctionDef) -> list[str]:
    names = [argument.arg for argument in function.args.args]
    return names[1:] if names[:1] in (["self"], ["cls"]) else names


def _texts_in(node: ast.AST) -> list[str]:
    return [n.value for n in ast.walk(node) if isinstance(n, ast.Constant) and isinstance(n.value, str)]


def _head(value: ast.JoinedStr) -> str:
    first = value.values[0] if value.values else None
    return str(first.value) if isinstance(first, ast.Constant) else ""


def _last(value: ast.JoinedStr) -> ast.expr | None:
    last = value.values[-1] if value.values else None
    return last.value if isinstance(last, ast.FormattedValue) else None


def _at(call: ast.Call, position: int) -> ast.expr | None:
    return call.args[position] if position < len(call.args) else None
