"""Runs blocks of code in one process, as a notebook does: run_blocks.py BLOCKS.json."""

import json
import subprocess
import sys
import time
from pathlib import Path

sys.path[0] = ""  # where it is started, as of python -c
names = {"__name__": "__main__"}
for where, language, text in json.loads(Path(sys.argv[1]).read_text()):
    print(f"--- {where}\n{text}\n---", flush=True)
    began = time.monotonic()
    if language == "python":
        exec(compile(text, where, "exec"), names)
    else:
        subprocess.run(["bash", "-euo", "pipefail", "-c", text], check=True)
    print(f"--- {where} took {time.monotonic() - began:.0f} s", flush=True)
