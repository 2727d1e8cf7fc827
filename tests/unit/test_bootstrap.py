"""The `adscent` script on its own: a small checkout, a wheel made here, no package index."""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOOLS = ("sh", "mkdir", "rm", "cat", "cut", "dirname", "readlink", "id", "mktemp")
PROGRAM = """
import json, os, sys, probe
names = ("OMP_NUM_THREADS", "NUMBA_CACHE_DIR")
print(json.dumps([sys.argv[1:], os.getcwd(), probe.VALUE, *map(os.environ.get, names)]))
"""


@dataclass
class Checkout:
    """A folder with the script, a program that prints what it was given, and locked wheels."""

    root: Path
    environment: dict[str, str]

    def lock(self, name: str, value: str, digest: str | None = None) -> None:
        """Let requirements file `name` ask for a wheel whose module `probe` holds `value`."""
        wheel = _wheel(self.root / "wheels", value)
        digest = digest or hashlib.sha256(wheel.read_bytes()).hexdigest()
        (self.root / name).write_text(
            f"--no-index\n--find-links {wheel.parent.as_uri()}\n"
            f"probe=={value} --hash=sha256:{digest}\n"
        )

    def start(self, *arguments: str, script: Path | None = None) -> subprocess.Popen[str]:
        """Start the script from a folder that is not the checkout."""
        return subprocess.Popen(  # noqa: S603 # the script under test
            [script or self.root / "adscent", *arguments],
            cwd=self.root.parent,
            env=self.environment,
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def run(self, *arguments: str, script: Path | None = None) -> tuple[int, str, str]:
        """Run the script to its end: exit code, stdout, stderr."""
        process = self.start(*arguments, script=script)
        output, errors = process.communicate(timeout=120)
        return process.returncode, output, errors


def _wheel(folder: Path, value: str) -> Path:
    folder.mkdir(exist_ok=True)
    wheel, metadata = folder / f"probe-{value}-py3-none-any.whl", f"probe-{value}.dist-info"
    files = {
        "probe.py": f"VALUE = {value!r}\n",
        f"{metadata}/METADATA": f"Metadata-Version: 2.1\nName: probe\nVersion: {value}\n",
        f"{metadata}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{name},{_record_hash(text)},{len(text)}\n" for name, text in files.items())
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, text in {**files, f"{metadata}/RECORD": record}.items():
            archive.writestr(zipfile.ZipInfo(name), text)
    return wheel


def _record_hash(text: str) -> str:
    digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest())
    return f"sha256={digest.rstrip(b'=').decode()}"


def _only(folder: Path, *programs: str | None) -> str:
    """A PATH on which there are only the basic tools and `programs`."""
    folder.mkdir()
    for program in programs:
        assert program is not None
        (folder / Path(program).name).symlink_to(program)
    for tool in TOOLS:
        found = shutil.which(tool)
        assert found, tool
        (folder / tool).symlink_to(found)
    return str(folder)


def _base_python() -> Path:
    return Path(sys.base_prefix) / "bin" / f"python3.{sys.version_info.minor}"


def _works(program: str) -> bool:
    found = shutil.which(program)
    return bool(found) and subprocess.run([found, "--version"], check=False).returncode == 0  # noqa: S603


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    """A checkout below a folder with a space in its name, with whatever installer there is."""
    root = tmp_path / "a checkout"
    (root / "app" / "cli").mkdir(parents=True)
    (root / "app" / "__init__.py").touch()
    (root / "app" / "cli" / "__init__.py").touch()
    (root / "app" / "cli" / "main.py").write_text(PROGRAM)
    shutil.copy(ROOT / "adscent", root)
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    made = Checkout(root, {**kept, "TMPDIR": str(tmp_path)})
    made.lock("requirements.txt", "1.0")
    return made


@pytest.mark.parametrize("installer", ["uv", "pip"])
def test_makes_the_environment_and_passes_arguments_on(
    checkout: Checkout, tmp_path: Path, installer: str
) -> None:
    """The first start installs the locked wheel by either installer and runs the command."""
    if installer == "uv" and not _works("uv"):
        pytest.skip("this machine has no uv")
    if installer == "pip":
        if importlib.util.find_spec("ensurepip") is None:
            pytest.skip("this machine's Python has no ensurepip")
        checkout.environment["PATH"] = _only(tmp_path / "bin", str(_base_python()))
    code, output, errors = checkout.run("serve", "--name", "a b")
    assert code == 0, errors
    assert '["serve", "--name", "a b"]' in output
    assert str(tmp_path) in output, "the command runs where it was called"
    assert '"1.0"' in output
    assert '"1", ' in output, "one OpenMP thread"
    assert f"with {installer}" in errors


def test_installs_only_once(checkout: Checkout) -> None:
    """A second start finds everything in place and says nothing."""
    checkout.run()
    assert checkout.run("demo")[2] == ""


def test_works_through_a_symbolic_link(checkout: Checkout, tmp_path: Path) -> None:
    """A link to a link to the script runs the checkout that the script is in."""
    (tmp_path / "first").symlink_to("a checkout/adscent")
    (tmp_path / "second").symlink_to(tmp_path / "first")
    code, _, errors = checkout.run("serve", script=tmp_path / "second")
    assert code == 0, errors
    assert (checkout.root / ".venv").is_dir()


def test_prefers_the_checkout_to_a_package_of_the_calling_folder(
    checkout: Checkout, tmp_path: Path
) -> None:
    """A folder `app` where the command is called from does not stand in for Adscent's own."""
    (tmp_path / "app" / "cli").mkdir(parents=True)
    (tmp_path / "app" / "cli" / "main.py").write_text("raise SystemExit('the wrong app')")
    code, _, errors = checkout.run()
    assert code == 0, errors


def test_installs_again_when_the_requirements_change(checkout: Checkout) -> None:
    """A changed requirements file is installed at the next start."""
    checkout.run()
    # Another length: bytecode of the same second and size would be taken for this module's.
    checkout.lock("requirements.txt", "12.0")
    _, output, errors = checkout.run()
    assert '"12.0"' in output, errors


def test_makes_the_environment_anew_when_its_python_is_gone(checkout: Checkout) -> None:
    """An environment whose interpreter no longer runs is replaced."""
    checkout.run()
    for link in (checkout.root / ".venv" / "bin").glob("python*"):
        link.unlink()
    code, _, errors = checkout.run()
    assert code == 0, errors
    assert "making .venv" in errors


def test_refuses_a_wheel_with_another_hash_and_recovers(checkout: Checkout) -> None:
    """A failed install ends in an error, and what it left is not taken for good later."""
    checkout.lock("requirements.txt", "1.0", digest="0" * 64)
    code, output, errors = checkout.run("serve")
    assert (code, output) == (1, "")
    assert "failed" in errors
    checkout.lock("requirements.txt", "1.0")
    code, _, errors = checkout.run("serve")
    assert code == 0, errors
    assert "making .venv" in errors


def test_two_starts_at_once_install_once(checkout: Checkout) -> None:
    """Of two concurrent first starts one installs, the other waits, and both run."""
    both = [checkout.start("serve"), checkout.start("jobs")]
    errors = [process.communicate(timeout=120)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], errors
    assert "".join(errors).count("installing requirements.txt") == 1


def test_the_development_requirements_serve_both(checkout: Checkout) -> None:
    """`test` installs the development requirements, runs in the checkout, and `serve` keeps it."""
    checkout.lock("requirements-dev.txt", "3.0")
    _, output, errors = checkout.run("test", "-k", "x")
    assert "requirements-dev.txt" in errors
    assert f'"{checkout.root}", "3.0"' in output
    assert checkout.run("serve")[2] == ""


def test_works_where_home_cannot_be_written(checkout: Checkout, tmp_path: Path) -> None:
    """An unusable HOME only costs the package cache."""
    (tmp_path / "file").touch()
    checkout.environment["HOME"] = str(tmp_path / "file")
    code, _, errors = checkout.run()
    assert code == 0, errors


def test_keeps_compiled_kernels_elsewhere_when_the_checkout_cannot_be_written(
    checkout: Checkout, tmp_path: Path
) -> None:
    """Numba's cache moves to a private folder below TMPDIR."""
    checkout.run()
    shutil.rmtree(checkout.root / ".adscent")
    (checkout.root / ".adscent").touch()
    code, output, errors = checkout.run()
    assert code == 0, errors
    assert f'"{tmp_path}/adscent-numba-{os.getuid()}"' in output
    assert (tmp_path / f"adscent-numba-{os.getuid()}").stat().st_mode & 0o077 == 0


def test_passes_over_a_python_that_does_not_run(checkout: Checkout, tmp_path: Path) -> None:
    """A version manager's shim that only prints an error is not chosen."""
    checkout.environment["PATH"] = f"{tmp_path / 'shims'}:{checkout.environment['PATH']}"
    (tmp_path / "shims").mkdir()
    shim = tmp_path / "shims" / "python3.14"
    shim.write_text("#!/bin/sh\nexit 127\n")
    shim.chmod(0o755)
    code, _, errors = checkout.run()
    assert code == 0, errors


def test_says_what_to_install_when_there_is_no_python(checkout: Checkout, tmp_path: Path) -> None:
    """Without a fit Python the script fails at once with a remedy."""
    checkout.environment["PATH"] = _only(tmp_path / "bin")
    code, output, errors = checkout.run()
    assert (code, output) == (1, "")
    assert re.search(r"no Python 3\.11 to 3\.14 found\. Remedy: \S+", errors)


def test_says_what_to_install_when_there_is_no_venv(checkout: Checkout, tmp_path: Path) -> None:
    """A Python without `venv` and `ensurepip`, as on Debian, is named with the package to add."""
    folder = Path(_only(tmp_path / "bin"))
    python = folder / "python3.12"
    python.write_text(
        f'#!/bin/sh\ncase "$*" in *ensurepip*) exit 1 ;; esac\nexec {_base_python()} "$@"\n'
    )
    python.chmod(0o755)
    (folder / "apt-get").symlink_to(shutil.which("true") or "/bin/true")
    checkout.environment["PATH"] = str(folder)
    code, _, errors = checkout.run()
    assert code == 1
    assert "Remedy: apt-get install python3.12-venv" in errors


def test_development_requirements_contain_the_runtime_ones() -> None:
    """Every runtime release is locked for development too: one environment serves both."""
    pins = [
        set(re.findall(r"^\S+==\S+", (ROOT / name).read_text(), re.MULTILINE))
        for name in ("requirements.txt", "requirements-dev.txt")
    ]
    assert pins[0]
    assert pins[0] <= pins[1]


def test_the_module_that_the_script_runs_is_the_command_line() -> None:
    """`python -m app.cli.main` runs the command, under the same name as the installed one."""
    command = [sys.executable, "-m", "app.cli.main", "--help"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)  # noqa: S603 # our own interpreter
    assert "Usage: adscent" in result.stdout
