"""Turns the address of weights into a local path: a path, hf://owner/name[@revision][/file], gs://.

Remote files are kept: those of the Hugging Face Hub in its own cache, the others below
`~/.cache/robust_jax` or the directory in the environment variable ROBUST_JAX_CACHE.
"""

import difflib
import fnmatch
import glob
import os
import shutil
from pathlib import Path, PurePosixPath

from etils import epath

CONFIG = "config.json"
OPEN_CLIP_CONFIG = "open_clip_config.json"
PREPROCESSOR = "preprocessor_config.json"
BESIDE = (CONFIG, OPEN_CLIP_CONFIG, PREPROCESSOR)
# Each may also be sharded: NAME.index.json and NAME's stem with -00001-of-00002. First come first.
WEIGHTS = (
    "model.safetensors",
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.bin",
    "pytorch_model.bin",
)


def locate(address: str | os.PathLike[str]) -> Path:
    """Returns a local file or directory with the weights, downloaded first where they are remote.

    Args:
      address: a local path, `hf://owner/name`, `hf://owner/name@revision/file` or `gs://...`.
    """
    address = os.fspath(address)
    scheme, found, rest = address.partition("://")
    if not found:
        return _local(address)
    if scheme == "hf":
        return _from_hub(address, rest)
    if scheme == "gs":
        return _from_bucket(address, rest)
    raise ValueError(
        f"unknown kind of address; got {address!r}; give a local path, hf://owner/name[/file] or "
        "gs://bucket/path, or download the file first"
    )


def main_file(directory: Path) -> Path | None:
    """The file of a directory to start from: its weights, or the index of their shards."""
    for name in WEIGHTS:
        for candidate in (directory / name, directory / f"{name}.index.json"):
            if candidate.is_file():
                return candidate
    return None


def _local(address: str) -> Path:
    path = Path(address).expanduser()
    if not address:
        raise ValueError("no path of weights; got ''; give a file, a directory or an address")
    if path.exists():
        return path
    parent = path.parent
    if not parent.is_dir():
        raise ValueError(
            f"no such weights; got {address!r}, whose directory does not exist; check the path"
        )
    near = difflib.get_close_matches(path.name, os.listdir(parent), n=1, cutoff=0.5)
    hint = f"did you mean {str(parent / near[0])!r}? " if near else ""
    raise ValueError(f"no such weights; got {address!r}; {hint}check the path")


def _patterns(name: str) -> list[str]:
    stem, suffix = os.path.splitext(name)
    return [name, f"{name}.index.json", f"{stem}-*-of-*{suffix}", *BESIDE]


def _from_hub(address: str, rest: str) -> Path:
    try:
        import huggingface_hub
    except ImportError as error:
        raise ValueError(
            f"an hf:// address needs huggingface_hub; got {address!r}; run `pip install "
            "huggingface_hub`, or download the files and give their directory"
        ) from error
    owner, _, tail = rest.partition("/")
    repo, _, file = tail.partition("/")
    name, _, revision = repo.partition("@")
    if not owner or not name or ".." in PurePosixPath(file).parts:
        raise ValueError(
            f"not an address on the Hugging Face Hub; got {address!r}; write "
            "hf://owner/name, hf://owner/name/file or hf://owner/name@revision/file"
        )

    def snapshot(patterns: list[str]) -> Path:
        try:
            folder = huggingface_hub.snapshot_download(
                f"{owner}/{name}", revision=revision or None, allow_patterns=patterns
            )
        except (OSError, ValueError, huggingface_hub.errors.HfHubHTTPError) as error:
            raise ValueError(
                f"cannot download from the Hugging Face Hub ({str(error)[:300]}); got {address!r}; "
                "check the name, the connection and, for a gated model, `hf auth login`"
            ) from error
        return Path(folder)

    if not file:
        for weights in WEIGHTS:  # one by one: a repository often holds several copies
            folder = snapshot(_patterns(weights))
            if main_file(folder) is not None:
                return folder
        raise ValueError(
            f"no weights under the usual names in this repository; got {address!r}, looked for "
            f"{', '.join(WEIGHTS)}; name the file: {address.rstrip('/')}/FILE"
        )
    beside = [str(PurePosixPath(file).with_name(other)) for other in BESIDE]
    path = snapshot([glob.escape(file), *map(glob.escape, beside)]) / file
    if not path.is_file():
        raise ValueError(
            f"no such file in this repository; got {address!r}; look at its list of files, at "
            f"huggingface.co/{owner}/{name}"
        )
    return path


def _cache() -> Path:
    default = os.path.join("~", ".cache", "robust_jax")
    return Path(os.environ.get("ROBUST_JAX_CACHE") or default).expanduser()


def _from_bucket(address: str, rest: str) -> Path:
    if ".." in PurePosixPath(rest).parts or not rest.strip("/"):
        raise ValueError(f"not an address in a bucket; got {address!r}; write gs://bucket/path")
    local = _cache() / "gs" / rest.strip("/")
    remote = epath.Path(address)
    try:
        if remote.is_dir():
            files = {item.name: item for item in remote.iterdir()}
            for weights in WEIGHTS:
                names = [n for n in files if any(fnmatch.fnmatch(n, p) for p in _patterns(weights))]
                if {weights, f"{weights}.index.json"} & set(names):
                    for name in names:
                        _copy(files[name], local / name)
                    return local
            raise FileNotFoundError(f"none of {', '.join(WEIGHTS)} in it")
        _copy(remote, local)
        for other in BESIDE:
            if (remote.parent / other).exists():
                _copy(remote.parent / other, local.parent / other)
    # Each of epath's backends (TensorFlow, gcsfs, local) has exceptions of its own.
    except Exception as error:
        raise ValueError(
            f"cannot read from the bucket ({str(error)[:300]}); got {address!r}; check the "
            "address, the connection and the credentials"
        ) from error
    return local


def _copy(remote: epath.Path, local: Path) -> None:
    """Copies a file unless the same is there already; a copy cut off leaves nothing behind."""
    there = remote.stat()
    if local.is_file():
        here = local.stat()
        if here.st_size == there.length and 0 < there.mtime <= here.st_mtime:
            return
    local.parent.mkdir(parents=True, exist_ok=True)
    partial = local.with_name(f".{local.name}.{os.getpid()}.partial")
    try:
        with remote.open("rb") as source, partial.open("wb") as target:
            shutil.copyfileobj(source, target, 2**24)
        os.replace(partial, local)
    finally:
        partial.unlink(missing_ok=True)
