"""Check that README's programs pass `mypy --strict`: `check_readme_types.py [FOLDER]`.

FOLDER (default: the current one) holds README.md and deepinfra_min.py. Each block of Python becomes
the body of a function; `sc`, which Spark gives, is its parameter. mypy comes from this Python.
"""

import os
import re
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

folder = Path(sys.argv[1] if len(sys.argv) > 1 else ".").resolve()
blocks = re.findall(r"(?ms)^```python\n(.*?)^```$", (folder / "README.md").read_text("utf-8"))
functions = [
    f"def block_{number}(sc: Any) -> None:\n{textwrap.indent(block, '    ')}"
    for number, block in enumerate(blocks, 1)
]
with tempfile.TemporaryDirectory() as scratch:
    program = Path(scratch, "readme.py")
    program.write_text("\n\n".join(["from typing import Any", *functions]), "utf-8")
    options = ["--strict", "--follow-imports=silent", f"--cache-dir={scratch}/cache"]
    command = [sys.executable, "-m", "mypy", *options, str(program)]
    environment = {**os.environ, "MYPYPATH": str(folder)}
    status = subprocess.run(command, cwd=scratch, env=environment).returncode
print(f"README: {len(blocks)} blocks, " + ("types are wrong" if status else "all typed"))
sys.exit(status or not blocks)
