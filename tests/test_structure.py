"""The structure of the package: imports, sizes and words, read from the syntax trees."""

from __future__ import annotations

import ast
import collections
import re
import runpy
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted((ROOT / "sensorium").rglob("*.py"))
}
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in MODULES.items()}

BANNED = {
    "said",
    "told",
    "heard",
    "felt",
    "kin",
    "laid",
    "held",
    "kept",
    "begun",
    "drawn",
    "apart",
    "way",
    "taught",
    "shown",
    "alone",
    "meant",
    "spoken",
}
"""Words of a dialect that the code once had: standard terms take their place. See docs/glossary.md."""
BARE_CONSTANTS = {
    "MOST",
    "FEW",
    "LONGEST",
    "LEAST",
    "FEWEST",
    "BESIDE",
    "SHORT",
    "ROWS",
    "LARGE",
    "MANY",
    "SHORTEST",
    "ENOUGH",
}
"""Constants that don't say of what they are."""
MOST_LINES, MOST_PARAMETERS, MOST_SETTINGS, MOST_COLUMNS = 400, 12, 20, 120


def imports(tree: ast.AST) -> Iterator[str]:
    """Modules of ours that a module imports, wherever: at its top, in functions, for type checkers."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module in MODULES:
            for name in node.names:
                yield whole if (whole := f"{node.module}.{name.name}") in MODULES else node.module
        elif isinstance(node, ast.Import):
            yield from (name.name for name in node.names if name.name in MODULES)


def test_no_import_goes_in_a_circle() -> None:
    """Tarjan's strongly connected components of the imports, those for type checkers included."""
    graph = {name: set(imports(tree)) - {name} for name, tree in TREES.items()}
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    circles = []

    def visit(name: str) -> None:
        index[name] = low[name] = len(index)
        stack.append(name)
        for other in graph[name]:
            if other not in index:
                visit(other)
                low[name] = min(low[name], low[other])
            elif other in stack:
                low[name] = min(low[name], index[other])
        if low[name] == index[name]:
            circle = stack[stack.index(name) :]
            del stack[stack.index(name) :]
            if len(circle) > 1:
                circles.append(sorted(circle))

    for name in graph:
        if name not in index:
            visit(name)
    assert not circles


@pytest.mark.parametrize("folder", ["modalities", "trunks", "objectives", "generators", "ensemble.members"])
def test_parts_do_not_import_their_siblings(folder: str) -> None:
    """Files that start with an underscore are helpers, which parts share."""
    parts = {name for name in MODULES if re.fullmatch(rf"sensorium\.{folder}\.[a-z]\w*", name)}
    assert len(parts) >= 3 and not {
        name: found for name in parts if (found := set(imports(TREES[name])) & parts - {name})
    }


def test_only_the_model_and_entry_points_are_loose_at_the_root() -> None:
    assert {path.name for path in (ROOT / "sensorium").glob("*.py")} == {"__init__.py", "__main__.py", "model.py"}


def test_files_are_short() -> None:
    long = {
        name: count
        for name, path in MODULES.items()
        if (count := len(path.read_text("utf-8").splitlines())) > MOST_LINES
    }
    assert not long


def test_tests_lie_in_the_folder_of_what_they_test() -> None:
    """And no two have one name, so that no folder of tests has to be a package; those of all of it are at the root."""
    folders = {path.parent.relative_to(ROOT / "sensorium") for path in MODULES.values()}
    tests = sorted((ROOT / "tests").rglob("test_*.py"))
    assert {path.parent.relative_to(ROOT / "tests") for path in tests} <= folders
    assert not [name for name, count in collections.Counter(path.name for path in tests).items() if count > 1]
    assert not list((ROOT / "tests").rglob("__init__.py"))


@pytest.mark.parametrize("folder", ["sensorium", "tests", "benchmarks", "docs", "examples"])
def test_lines_are_short(folder: str) -> None:
    long = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in sorted((ROOT / folder).rglob("*.py"))
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if len(line) > MOST_COLUMNS
    ]
    assert not long


def functions(tree: ast.AST, inside: str = "") -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """All functions of a tree with their names, a method's after its class."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield inside + node.name, node
            yield from functions(node, inside + node.name + ".")
        else:
            yield from functions(node, inside + node.name + "." if isinstance(node, ast.ClassDef) else inside)


def test_functions_have_few_parameters() -> None:
    """Constructors, whose signature is a section of settings, commands and ``sample``, whose keywords are options, may
    have more.
    """
    many = {}
    for module, tree in TREES.items():
        for name, node in functions(tree):
            arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            count = sum(argument.arg not in ("self", "cls") for argument in arguments)
            wide = node.name == "__init__" or module.startswith("sensorium.cli.commands")
            if count > (MOST_SETTINGS if wide else MOST_PARAMETERS):
                many[f"{module}.{name}"] = count
    assert not many


def identifiers(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Names that a tree binds or uses, with their lines; those of other packages' keywords left out."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            yield node.id, node.lineno
        elif isinstance(node, ast.Attribute):
            yield node.attr, node.lineno
        elif isinstance(node, ast.arg):
            yield node.arg, node.lineno
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name, node.lineno


def test_identifiers_are_the_field_s_terms() -> None:
    found = sorted(
        {
            f"{MODULES[module].relative_to(ROOT)}:{line} {name}"
            for module, tree in TREES.items()
            for name, line in identifiers(tree)
            if BANNED & set(name.lower().split("_"))
        }
    )
    assert not found


def test_constants_say_of_what_they_are() -> None:
    found = [
        f"{module}.{target.id}"
        for module, tree in TREES.items()
        for node in tree.body
        if isinstance(node, ast.Assign)
        for target in ast.walk(node.targets[0])
        if isinstance(target, ast.Name) and target.id in BARE_CONSTANTS
    ]
    assert not found


def test_no_class_name_has_two_meanings() -> None:
    homes = collections.defaultdict(list)
    for module, tree in TREES.items():
        for node in tree.body:
            if isinstance(node, ast.ClassDef):
                homes[node.name].append(module)
    assert not {name: modules for name, modules in homes.items() if len(modules) > 1}


def test_docstrings_begin_with_a_term() -> None:
    """Not with What, How or Whether; of all modules, classes and functions that are public."""
    bad = []
    for module, tree in TREES.items():
        nodes = [(module, tree), *((f"{module}.{name}", node) for name, node in functions(tree))]
        nodes += [(f"{module}.{node.name}", node) for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
        for name, node in nodes:
            doc = ast.get_docstring(node) or ""
            if not name.rpartition(".")[2].startswith("_") and re.match(r"(What|How|Whether)\b", doc):
                bad.append(f"{name}: {doc.splitlines()[0][:60]}")
    assert not bad


def test_the_glossary_is_short() -> None:
    """At most 25 words of our own, each with a sentence and the standard term."""
    rows = re.findall(
        r"^\| \*\*(.+?)\*\* \| (.+) \| (.+) \|$", (ROOT / "docs" / "glossary.md").read_text("utf-8"), re.M
    )
    assert 15 <= len(rows) <= 25 and all(sentence.strip() and term.strip() for _, sentence, term in rows)


def test_ignores_of_the_type_checker_say_why() -> None:
    silent = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in sorted((ROOT / "sensorium").rglob("*.py"))
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if re.search(r"#\s*(ty|type): ?ignore", line)
        and not re.search(r"#\s*(ty|type): ?ignore\[[\w, -]+\]\s+# \w", line)
    ]
    assert not silent


def test_the_architecture_page_is_current() -> None:
    """Its picture is drawn from the imports, and its links lead to the lines that define what they name."""
    made = runpy.run_path(str(ROOT / "docs" / "architecture.py"))
    assert made["picture"]() == (ROOT / "docs" / "architecture.svg").read_text("utf-8"), (
        "run: python docs/architecture.py"
    )
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    assert len(made["LINK"].findall(text)) >= 25 and made["with_lines"](text) == text, (
        "run: python docs/architecture.py"
    )
