"""Print how large and how dense Python files are; exit with 1 if one is over its limits.

Tokens leave out comments, docstrings and layout; lines are those that hold tokens. Private names
are underscored attributes and imports that the file uses but doesn't define.
"""

import ast
import io
import sys
import tokenize

COLUMNS = ["tokens", "tokens a line", "nodes a line", "conditionals", "private names"]
LIMITS = {"deepinfra_min.py": [13650, 7.8, 4.5, 25, 0], "test_deepinfra_min.py": [30000, 9]}
LAYOUT = {"COMMENT", "NL", "NEWLINE", "INDENT", "DEDENT", "ENDMARKER"}
SCOPES = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def count_tokens(source, docstrings):
    """Return the numbers of tokens and lines. An f-string is one token on every Python."""
    total, lines, depth = 0, set(), 0
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        kind = tokenize.tok_name[token.type]
        if kind not in LAYOUT and token.start not in docstrings:
            lines.update(range(token.start[0], token.end[0] + 1))
            if depth == 0:
                total += 1
        depth += kind.endswith("STRING_START") - kind.endswith("STRING_END")
    return total, len(lines)


def private_names(nodes):
    attributes = [node for node in nodes if isinstance(node, ast.Attribute)]
    overridden = {node.attr for node in attributes if ast.unparse(node.value) == "super()"}
    used = {node.attr for node in attributes}
    used |= {node.name for node in nodes if isinstance(node, ast.alias)}
    stored = [node for node in attributes if isinstance(node.ctx, ast.Store)]
    own = {node.attr for node in stored if ast.unparse(node.value) == "self"}
    own |= {node.name for node in nodes if isinstance(node, SCOPES[1:])}
    own |= {node.id for node in nodes if isinstance(node, ast.Name)}
    names = sorted(used - own | overridden)
    return [name for name in names if name.startswith("_") and not name.startswith("__")]


is_over = False
for path in sys.argv[1:]:
    with open(path, encoding="utf-8") as file:
        source = file.read()
    nodes = list(ast.walk(ast.parse(source)))
    bodies = [n.body[0] for n in nodes if isinstance(n, SCOPES) and ast.get_docstring(n)]
    tokens, lines = count_tokens(source, {(node.lineno, node.col_offset) for node in bodies})
    names = private_names(nodes)
    conditionals = sum(isinstance(node, ast.IfExp) for node in nodes)
    density = sum(isinstance(node, ast.expr) for node in nodes) / lines
    print(path, *names)
    figures = [tokens, tokens / lines, density, conditionals, len(names)]
    for column, figure, limit in zip(COLUMNS, figures, LIMITS[path]):
        print(f"{figure:9,.5g} {column}, at most {limit:,}", "TOO MANY" * (figure > limit))
        is_over |= figure > limit
sys.exit(is_over)
