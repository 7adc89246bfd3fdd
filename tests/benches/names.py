#!/usr/bin/env python3
"""Whether every name in these Python files is one: each compiles, pyflakes has nothing to say of it, and
what it takes of a module beside it (`lab.rate`) is there.

  tests/benches/names.py FILE [...]

Nothing of the files is run but the modules' own definitions. Needs pyflakes (Debian: python3-pyflakes);
without it: exit code 69. A complaint is a line, and exit code 1.
"""
import ast
import os
import sys

try:
    from pyflakes.checker import Checker
except ImportError:
    sys.exit(69)


def defined(tree):
    """The names that a module has at its top."""
    names = set()
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            names.update((alias.asname or alias.name).split(".")[0] for alias in node.names)
        else:
            names.update(part.id for part in ast.walk(node)
                         if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store))
    return names


def beside(path, module):
    """The tree of a module of the same folder; `None` where it is not one."""
    file = os.path.join(os.path.dirname(path), f"{module}.py")
    if not os.path.exists(file):
        return None
    with open(file) as text:
        return ast.parse(text.read(), file)


def strangers(path, tree):
    """What is taken of a module beside the file and is not there: (line, name)."""
    known = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if module := beside(path, alias.name):
                    known[alias.asname or alias.name] = defined(module)
        elif isinstance(node, ast.ImportFrom) and (module := beside(path, node.module or "")):
            names = defined(module)
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names if alias.name not in names)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            names = known.get(node.value.id)
            if names is not None and node.attr not in names:
                yield node.lineno, f"{node.value.id}.{node.attr}"


def complaints(path):
    with open(path) as file:
        text = file.read()
    try:
        tree = ast.parse(text, path)
        compile(tree, path, "exec")
    except SyntaxError as error:
        return [f"{path}:{error.lineno}: {error.msg}"]
    said = [f"{path}:{one.lineno}: {one.message % one.message_args}" for one in Checker(tree, path).messages]
    return said + [f"{path}:{line}: there is no {name}" for line, name in strangers(path, tree)]


def main():
    said = [line for path in sys.argv[1:] for line in complaints(path)]
    print("\n".join(said))
    sys.exit(1 if said else 0)


if __name__ == "__main__":
    main()
