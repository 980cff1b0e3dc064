"""Fetches the two script libraries of the board's page, at fixed versions whose hashes are checked.

The page draws plots with Vega-Lite and sorts its table with TanStack Table. Neither lies in the repository: building or
installing the package runs this module (see ``hatch_build.py``), which puts them into ``vendor/`` beside it, and the
wheel holds them. ``python -m harness.board.vendoring`` does the same by hand. At run time nothing is ever fetched.

Standard library only, and no import of the package: the build runs it before any dependency is there.
"""

from __future__ import annotations

import base64
import hashlib
import io
import tarfile
import urllib.request
from dataclasses import dataclass
from pathlib import Path

VENDOR = Path(__file__).parent / "vendor"
REGISTRY = "https://registry.npmjs.org"
MAX_BYTES = 5_000_000


@dataclass(frozen=True)
class Package:
    """One package of the npm registry.

    Attributes:
        name: As the registry calls it.
        version: The only one that is taken.
        sha512: Of its tarball, as in ``npm view NAME dist.integrity``.
        script: The file that the page runs; empty where only the licence is wanted, of a package that lies inside
            another one's script.
    """

    name: str
    version: str
    sha512: str
    script: str = ""


TABLE = (
    Package(
        "@tanstack/table-core", "8.21.3",
        "ldZXEhOBb8Is7xLs01fR3YEc3DERiz5silj8tnGkFZytt1abEvl/GhUmCE0PMLaMPTa3Jk4HbKmRlHmu+gCftg==",
        "build/umd/index.production.js",
    ),
)  # fmt: skip
PLOTS = (
    Package(
        "vega", "6.4.0",
        "rHXCq2LpEWCLMjXBEj7hocY9G0/i5TGYRayGGSj06VTF4+l2IG2Z7oeZKCjWbUh/7hTE/mVhbaOPB72wCElh6g==",
        "build/vega.min.js",
    ),
    Package(
        "vega-lite", "6.5.0",
        "fMXF6s0MrIg0UTWnLIfeFtgSLzVhyzSKobzGrh5rhS+mL6FOYFG3m7ouJ4U23gj65EK+gl9FIIT5w7wLNaAzkA==",
        "build/vega-lite.min.js",
    ),
    Package(
        "vega-interpreter", "2.3.2",
        "JDAoi3taFcCDLujZG84TNNUXdkAZ5WsSHssx8lWVYaxb9Slsjk7v7PtRIYXpSlUwLaKGRBqoJ9KDs36Z0eMEIw==",
        "build/vega-interpreter.js",
    ),
    Package(
        "d3-array", "3.2.4",
        "tdQAmyA18i4J7wprpYq8ClcxZy3SC31QMeByyCFyRt7BVHdREQZ5lpzoe5mFEYZUWe+oq8HBvk9JjpibyEV4Jg==",
    ),
    Package(
        "d3-geo", "3.1.1",
        "637ln3gXKXOwhalDzinUgY83KzNWZRKbYubaG+fGVuc/dxO64RRljtCTnf5ecMyE1RIdtqpkVcq0IbtU2S8j2Q==",
    ),
    Package(
        "d3-geo-projection", "4.0.0",
        "p0bK60CEzph1iqmnxut7d/1kyTmm3UWtPlwdkM31AU+LW+BXazd5zJdoCn7VFxNCHXRngPHRnsNn5uGjLRGndg==",
    ),
    Package(
        "d3-hierarchy", "3.1.2",
        "FX/9frcub54beBdugHjDCdikxThEqjnR93Qt7PvQTOHxyiNCAlvMrHhclk3cD5VeAaq9fxmfRp+CnWw9rEMBuA==",
    ),
    Package(
        "delaunator", "5.0.1",
        "8nvh+XBe96aCESrGOqMp/84b13H9cdKbG5P2ejQCh4d4sK9RL4371qou9drQjMhvnPmhWl5hnmqbEE0fXr9Xnw==",
    ),
    Package(
        "topojson-client", "3.1.0",
        "605uxS6bcYxGXw9qi62XyrV6Q3xwbndjachmNxu8HWTtVPxZfEJN9fd/SZS1Q54Sn2y0TMyMxFj/cJINqGHrKw==",
    ),
    Package(
        "json-stringify-pretty-compact", "4.0.0",
        "3CNZ2DnrpByG9Nqj6Xo8vqbjT4F6N+tb4Gb28ESAZjYZ5yqvmc56J+/kuIwkaAMOyblTQhUW7PxMkUb8Q36N3Q==",
    ),
)  # fmt: skip
FILES = {"table.js": TABLE, "plots.js": PLOTS}


def vendor(folder: Path = VENDOR) -> list[Path]:
    """Put the libraries into a folder, each file with the licences of all that it holds at its top.

    Args:
        folder: Where to; files that are of these versions already are left alone.

    Returns:
        The files.

    Raises:
        OSError: The registry cannot be reached.
        ValueError: What it sent is not the package whose hash is known.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, packages in FILES.items():
        path = folder / name
        if not is_current(path, packages):
            licences, scripts = zip(*(_parts(package) for package in packages), strict=True)
            text = "\n".join([_mark(packages), "/*!", *licences, "*/", *(script for script in scripts if script)])
            unfinished = path.with_suffix(".part")
            unfinished.write_text(text, encoding="utf-8")
            unfinished.replace(path)
    return [folder / name for name in FILES]


def is_current(path: Path, packages: tuple[Package, ...]) -> bool:
    """Whether a file holds these versions."""
    try:
        with path.open(encoding="utf-8") as file:
            return file.readline().rstrip("\n") == _mark(packages)
    except OSError:
        return False


def _mark(packages: tuple[Package, ...]) -> str:
    return "// " + ", ".join(f"{package.name} {package.version}" for package in packages)


def _parts(package: Package) -> tuple[str, str]:
    """A package's licence, safe inside a comment, and its script as one that a page can run."""
    with tarfile.open(fileobj=io.BytesIO(_download(package)), mode="r:gz") as archive:
        licence = _read(archive, "package/LICENSE")
        script = _read(archive, f"package/{package.script}") if package.script else ""
    title = f"{package.name} {package.version}"
    return f"{title}\n{'-' * len(title)}\n{licence.replace('*/', '* /').strip()}\n", _classic(package, script)


def _download(package: Package) -> bytes:
    url = f"{REGISTRY}/{package.name}/-/{package.name.rpartition('/')[2]}-{package.version}.tgz"
    with urllib.request.urlopen(url, timeout=60) as response:  # noqa: S310 - the address is fixed, and https
        content: bytes = response.read(MAX_BYTES + 1)
    if base64.b64encode(hashlib.sha512(content).digest()).decode() != package.sha512:
        raise ValueError(f"{url}: is not the file whose hash is known")
    return content


def _read(archive: tarfile.TarFile, name: str) -> str:
    member = archive.extractfile(name)
    if member is None:
        raise ValueError(f"{name} is no file")
    return member.read().decode()


def _classic(package: Package, script: str) -> str:
    """Without source maps, and an ES module as a plain script: modules do not load from ``file://``."""
    lines = [line for line in script.splitlines() if not line.startswith("//# sourceMappingURL=")]
    if package.name == "vega-interpreter":
        first, last = lines[0], lines[-1]
        if not first.endswith(" from 'vega-util';") or last != "export { expression as expressionInterpreter };":
            raise ValueError(f"{package.name}: has another form than expected")
        names = first.removeprefix("import ").removesuffix(" from 'vega-util';")
        lines[0] = f"(() => {{ const {names} = vega;"
        lines[-1] = "vega.expressionInterpreter = expression; })();"
    return "\n".join(lines)


if __name__ == "__main__":
    for written in vendor():
        print(written)
