from __future__ import annotations

import base64
import hashlib
import io
import tarfile
from pathlib import Path
from typing import Any

import pytest

from harness.board import vendoring


def tarball(files: dict[str, str]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for name, text in files.items():
            member = tarfile.TarInfo(f"package/{name}")
            member.size = len(text.encode())
            archive.addfile(member, io.BytesIO(text.encode()))
    return stream.getvalue()


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A registry on this machine: `registry(name, files)` publishes version 1.0.0 and returns its hash."""
    monkeypatch.setattr(vendoring, "REGISTRY", tmp_path.as_uri())

    def publish(name: str, files: dict[str, str]) -> str:
        path = tmp_path / name / "-" / f"{name.rpartition('/')[2]}-1.0.0.tgz"
        path.parent.mkdir(parents=True)
        path.write_bytes(tarball(files))
        return base64.b64encode(hashlib.sha512(path.read_bytes()).digest()).decode()

    return publish


def test_a_file_holds_the_scripts_and_the_licences_of_all_that_is_in_it(
    registry: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = "let a = 1;\n//# sourceMappingURL=a.js.map\n"
    one = vendoring.Package("@own/a", "1.0.0", registry("@own/a", {"LICENSE": "Free */ as in", "a.js": script}), "a.js")
    inside = vendoring.Package("b", "1.0.0", registry("b", {"LICENSE": "Also free"}))
    monkeypatch.setattr(vendoring, "FILES", {"all.js": (one, inside)})
    (path,) = vendoring.vendor(tmp_path / "vendor")
    text = path.read_text()
    assert text.startswith("// @own/a 1.0.0, b 1.0.0\n/*!\n")
    assert "Free * / as in" in text  # a licence cannot end the comment that it stands in
    assert "Also free" in text
    assert text.endswith("*/\nlet a = 1;")
    assert vendoring.is_current(path, (one, inside))
    assert not vendoring.is_current(path, (one,))
    changed = path.stat().st_mtime_ns
    vendoring.vendor(tmp_path / "vendor")
    assert path.stat().st_mtime_ns == changed


def test_a_package_with_another_hash_is_refused_and_leaves_no_file(
    registry: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry("a", {"LICENSE": "", "a.js": "attack()"})
    monkeypatch.setattr(vendoring, "FILES", {"a.js": (vendoring.Package("a", "1.0.0", "0" * 86 + "==", "a.js"),)})
    with pytest.raises(ValueError, match="is not the file whose hash is known"):
        vendoring.vendor(tmp_path / "vendor")
    assert list((tmp_path / "vendor").iterdir()) == []


def test_a_module_becomes_a_script_that_pages_opened_as_files_can_run(
    registry: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = (
        "import { a, b } from 'vega-util';\nconst expression = a;\nexport { expression as expressionInterpreter };\n"
    )
    digest = registry("vega-interpreter", {"LICENSE": "", "i.js": module})
    package = vendoring.Package("vega-interpreter", "1.0.0", digest, "i.js")
    monkeypatch.setattr(vendoring, "FILES", {"i.js": (package,)})
    text = vendoring.vendor(tmp_path / "vendor")[0].read_text()
    assert (
        "(() => { const { a, b } = vega;\nconst expression = a;\nvega.expressionInterpreter = expression; })();" in text
    )
    assert "import" not in text
    assert "export" not in text
