"""What is slow to find out about data, kept in files; a damaged one counts as none."""

import json
from typing import Any

from etils import epath

from robust_jax import writers
from robust_jax.data.sources import fingerprint


def keep(path: epath.Path, value: Any) -> None:
    """Writes plain values."""
    writers.write_json(path, {"digest": _digest(value), "value": value})


def kept(path: epath.Path) -> Any:
    """Returns what `keep` wrote; None where there is nothing, or something else by now."""
    if not path.exists():
        return None
    try:
        found = json.loads(path.read_text())
        if found["digest"] == _digest(found["value"]):
            return found["value"]
    except (ValueError, KeyError, TypeError):
        pass
    print(f"{path} is damaged: it is made again")
    return None


def _digest(value: Any) -> str:
    return fingerprint(json.dumps(value, sort_keys=True))
