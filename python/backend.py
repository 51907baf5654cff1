"""Builds the wheel for `pip install ./python` (PEP 517, 660) with the standard library alone: the package is plain
Python, so a wheel is its files and three of metadata. Where the checkout has a build/libtenon.so, its place is
written into the wheel, so that the package works without `make install`; an installed libtenon needs nothing.
"""

import base64
import hashlib
import io
import tarfile
import zipfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
VERSION = dict(line.split(" = ") for line in (HERE / "tenon/version.py").read_text().splitlines() if " = " in line)
NAME = f"tenon-{VERSION['__version__'].strip(chr(34))}"
INFO = f"{NAME}.dist-info"
WHEEL = f"{NAME}-py3-none-any.whl"
METADATA = f"""Metadata-Version: 2.1
Name: tenon
Version: {NAME[6:]}
Summary: Fine-tunes large language models: Unsloth's calls over libtenon, without torch
License: Apache-2.0
Requires-Python: >=3.8
"""
TAG = "Wheel-Version: 1.0\nGenerator: tenon\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


def _write(directory, files):
    record = []
    with zipfile.ZipFile(Path(directory, WHEEL), "w", zipfile.ZIP_DEFLATED) as wheel:
        for name, data in {**files, f"{INFO}/METADATA": METADATA.encode(), f"{INFO}/WHEEL": TAG.encode()}.items():
            digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
            record.append(f"{name},sha256={digest},{len(data)}\n")
            wheel.writestr(name, data)
        wheel.writestr(f"{INFO}/RECORD", "".join(record) + f"{INFO}/RECORD,,\n")
    return WHEEL


def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    files = {f"tenon/{path.name}": path.read_bytes() for path in sorted((HERE / "tenon").glob("*.py"))}
    build = HERE.parent / "build"
    if (build / "libtenon.so").is_file():
        files["tenon/library_path.txt"] = f"{build}\n".encode()
    return _write(wheel_directory, files)


def build_editable(wheel_directory, config_settings=None, metadata_directory=None):
    return _write(wheel_directory, {"tenon.pth": f"{HERE}\n".encode()})


def build_sdist(sdist_directory, config_settings=None):
    name = f"{NAME}.tar.gz"
    with tarfile.open(Path(sdist_directory, name), "w:gz") as archive:
        for path in [HERE / "pyproject.toml", HERE / "backend.py", *sorted((HERE / "tenon").glob("*.py"))]:
            archive.add(path, f"{NAME}/{path.relative_to(HERE)}")
        info = tarfile.TarInfo(f"{NAME}/PKG-INFO")
        info.size = len(METADATA)
        archive.addfile(info, io.BytesIO(METADATA.encode()))
    return name
