"""Torch archives written by hand, so that reading them is tested without torch."""

import zipfile


def text(value):
    data = value.encode()
    return b"X" + len(data).to_bytes(4, "little") + data


def whole(value):
    return b"J" + value.to_bytes(4, "little", signed=True)


def group(*parts):
    return b"(" + b"".join(parts) + b"t"


def storage(key, kind, size):
    return (
        group(text("storage"), b"ctorch\n%s\n" % kind, text(key), text("cpu"), whole(size)) + b"Q"
    )


def tensor(key, kind, size, shape=(), stride=(), offset=0):
    """`size` numbers of the storage class `kind` in the member data/`key`."""
    return (
        b"ctorch._utils\n_rebuild_tensor_v2\n"
        + group(
            storage(key, kind, size),
            whole(offset),
            group(*map(whole, shape)),
            group(*map(whole, stride)),
            b"\x89",
            b"ccollections\nOrderedDict\n)R",
        )
        + b"R"
    )


def module(name=b"__torch__\nNet", **attributes):
    items = b"".join(text(key) + value for key, value in attributes.items())
    return b"c" + name + b"\n)\x81}(" + items + b"ub"


def write_script(path, content, storages=None, compression=zipfile.ZIP_STORED, **members):
    """Writes a TorchScript archive.

    Args:
      content: what data.pkl describes, in pickle opcodes.
      storages: key -> bytes.
      members: further members of the zip.
    """
    pickled = b"\x80\x02" + content + b"."
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("net/data.pkl", pickled)
        for key, data in (storages or {}).items():
            archive.writestr(f"net/data/{key}", data)
        archive.writestr("net/code/__torch__.py", "raise SystemExit('the code was run')")
        archive.writestr("net/constants.pkl", b"\x80\x02).")
        archive.writestr("net/version", b"3\n")
        for name, data in members.items():
            archive.writestr(f"net/{name}", data)
    return path
