"""An environment for each library: their requirements contradict each other."""

import shutil
import subprocess
import sys
from pathlib import Path

REQUIREMENTS = Path(__file__).parent / "requirements"
UV = Path(sys.executable).with_name("uv")
PYTHON = "3.11"
LOCK = ("--python-version", PYTHON, "--no-emit-index-url", "--no-annotate", "--quiet")


def make_environment(folder: Path, name: str) -> None:
    """Makes `folder/name` with what its list says, unless it is there already."""
    is_node = (REQUIREMENTS / name).is_dir()
    wanted = REQUIREMENTS / name / "package-lock.json" if is_node else REQUIREMENTS / f"{name}.txt"
    place, stamp = folder / name, folder / name / "made-of.txt"
    if stamp.exists() and stamp.read_bytes() == wanted.read_bytes():
        return
    if is_node:
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(REQUIREMENTS / name, place)
        subprocess.run(["npm", "ci", "--loglevel=error"], cwd=place, check=True)
    else:
        subprocess.run([UV, "venv", "--quiet", "--clear", "--python", PYTHON, place], check=True)
        # With what is named there alone, so that an environment is the same each time.
        install = (UV, "pip", "install", "--quiet", "--no-deps", "--python", place / "bin" / "python")
        subprocess.run([*install, "--requirements", wanted], check=True)
    stamp.write_bytes(wanted.read_bytes())


def lock(name: str) -> None:
    """Writes the list of an environment anew, with the newest versions that `name.in` allows."""
    if (folder := REQUIREMENTS / name).is_dir():
        update = ("npm", "update", "--save", "--package-lock-only", "--omit-lockfile-registry-resolved")
        subprocess.run(update, cwd=folder, check=True)
        return
    source, list_ = REQUIREMENTS / f"{name}.in", REQUIREMENTS / f"{name}.txt"
    command = ("--custom-compile-command", "make emitters ARGS=--lock", "--upgrade")
    subprocess.run([UV, "pip", "compile", *LOCK, *command, source, "--output-file", list_], check=True)
