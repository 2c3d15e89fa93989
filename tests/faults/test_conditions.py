"""What the author's machine hides: another user, a checkout that is read-only and has no git, no home."""

import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NOBODY = 65534
PARTS = ("tests/run", "tests/quality", "tests/gan", "tests/documents", "tests/test_data.py", "tests/test_house.py")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs users and rights of POSIX")
def test_tests_pass_for_another_user_in_a_read_only_copy_without_git():
    with tempfile.TemporaryDirectory() as folder:  # pytest's own folders are for their owner alone
        copy, own, packed = Path(folder, "copy"), Path(folder, "own"), Path(folder, "copy.tar")
        if subprocess.run(["git", "archive", "-o", packed, "HEAD"], cwd=ROOT, capture_output=True).returncode:
            pytest.skip("this is no git checkout")
        with tarfile.open(packed) as archive:
            archive.extractall(copy, filter="data")
        for path in (copy, *copy.rglob("*")):
            path.chmod(0o555 if path.is_dir() else 0o444)
        own.mkdir()
        own.chmod(0o777)
        Path(folder).chmod(0o755)
        user = {"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.geteuid() == 0 else {}
        environment = {**os.environ, "HOME": f"{folder}/nowhere", "TMPDIR": str(own), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "pytest", *PARTS]
        try:
            done = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True, **user)
        except PermissionError:
            pytest.skip("another user may not run this Python")
        finally:
            for path in (copy, *copy.rglob("*")):
                path.chmod(0o755)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
