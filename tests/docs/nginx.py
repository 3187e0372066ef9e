"""nginx's own words on a piece of its configuration, where nginx is installed; else whether it is well formed."""

import re
import shutil
import subprocess
from pathlib import Path

from tests.certificates import certificates


def check_nginx(code: str, folder: Path) -> None:
    bare = re.sub(r"#.*", "", code)
    assert bare.count("{") == bare.count("}"), "expected as many } as {"
    for line in bare.splitlines():
        end = line.strip()[-1:]
        assert end in ("", ";", "{", "}", "'", '"') or line.startswith(" " * 8), f"expected a ; after {line.strip()!r}"
    if program := shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin"):
        _ask(program, code, folder)


def _ask(program: str, code: str, folder: Path) -> None:
    _, chain = certificates(folder)  # with its key
    code = re.sub(r"(ssl_certificate(?:_key)?\s+)[^;]+;", rf"\g<1>{chain};", code)
    if not re.search(r"^\s*(http|events)\s*{", code, re.MULTILINE):
        if not re.search(r"^\s*(server|upstream)\s*{", code, re.MULTILINE):
            code = f"server {{ listen 127.0.0.1:8081;\n{code}\n}}"
        code = f"events {{}}\nhttp {{\n{code}\n}}"
    (path := folder / "nginx.conf").write_text(f"pid {folder}/nginx.pid;\n{code}")
    done = subprocess.run(
        [program, "-t", "-p", str(folder), "-e", str(folder / "nginx.log"), "-c", str(path)],
        capture_output=True, text=True, check=False, timeout=20,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
