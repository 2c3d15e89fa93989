"""What the author's machine hides: another user, a checkout that is read-only and has no git, no home."""

import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NOBODY = 65534
PARTS = ("tests/run", "tests/quality", "tests/gan", "tests/documents", "tests/test_data.py", "tests/test_house.py")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs users and rights of POSIX")
def test_tests_pass_for_another_user_in_a_read_only_copy_without_git(tmp_path):
    packed = subprocess.run(["git", "archive", "-o", tmp_path / "copy.tar", "HEAD"], cwd=ROOT, capture_output=True)
    if packed.returncode:
        pytest.skip("this is no git checkout")
    copy, own = tmp_path / "copy", tmp_path / "own"
    with tarfile.open(tmp_path / "copy.tar") as archive:
        archive.extractall(copy, filter="data")
    for path in (copy, *copy.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    own.mkdir()
    for path in (own, *list(tmp_path.parents)[:3]):  # pytest's folders are for their owner alone
        os.chmod(path, 0o777 if path == own else path.stat().st_mode | 0o055)
    user = {"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.geteuid() == 0 else {}
    environment = {**os.environ, "HOME": str(tmp_path / "nowhere"), "TMPDIR": str(own), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pytest", *PARTS]
    try:
        done = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True, **user)
    except PermissionError:
        pytest.skip("another user may not run this Python")
    finally:
        for path in (copy, *copy.rglob("*")):
            path.chmod(0o755)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
