"""Installs what the programs here need into the Python that runs this, and makes torch load on a machine without CUDA.

Where the index offers a CPU build of torch, pip takes what it finds and nothing more is needed. The default build for Linux
is linked against several GB of CUDA libraries that a CPU never calls. Three small ones are installed, since they run code
when they are loaded; the others are replaced by empty libraries of the same name. Functions are bound when first called, so
that nothing misses them: the programs set RTLD_LAZY before they import torch (program.py).
"""

import importlib.metadata
import os
import re
import subprocess
import sys
import sysconfig

HERE = os.path.dirname(os.path.abspath(__file__))
LOAD = """
import ctypes, os, sys
ctypes.CDLL(os.path.join(sys.argv[1], "libtorch_global_deps.so"), os.RTLD_LAZY | os.RTLD_GLOBAL)
ctypes.CDLL(os.path.join(sys.argv[1], "libtorch_python.so"), os.RTLD_LAZY)
"""


def pip(*arguments):
    command = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "--quiet", *arguments]
    if subprocess.run(command).returncode:
        sys.exit(f"pip could not install {' '.join(arguments)}: see above")


def small_cuda_libraries():
    """Requirements of this torch that its CUDA build cannot be loaded without."""
    for requirement in importlib.metadata.requires("torch") or []:
        requirement = requirement.split(";")[0].strip()
        if requirement.startswith("cuda-toolkit"):
            yield re.sub(r"\[.*\]", "[cudart,cupti]", requirement)
        elif requirement.startswith("nvidia-nvshmem"):
            yield requirement


def missing_library(folder):
    """Name of the next shared library that loading torch asks for in vain, or None when it loads."""
    loaded = subprocess.run([sys.executable, "-c", LOAD, folder], capture_output=True, text=True)
    if loaded.returncode == 0:
        return None
    found = re.search(r"(lib[\w.+-]+\.so[\w.]*): cannot open shared object file", loaded.stderr)
    if not found:
        sys.exit(f"torch does not load here:\n{loaded.stderr}")
    return found[1]


def complete_torch():
    folder = os.path.join(sysconfig.get_paths()["platlib"], "torch", "lib")
    if sys.platform != "linux" or missing_library(folder) is None:
        return
    for requirement in small_cuda_libraries():
        pip(requirement)
    while name := missing_library(folder):
        path = os.path.join(folder, name)
        if os.path.exists(path):
            sys.exit(f"torch does not load with an empty {path}")
        print(f"an empty {name}: the CUDA library is not needed on a CPU", flush=True)
        subprocess.run(["cc", "-shared", "-x", "c", os.devnull, "-o", path, f"-Wl,-soname,{name}"], check=True)


if __name__ == "__main__":
    pip("--requirement", os.path.join(HERE, "requirements.txt"))
    pip("--no-deps", "--requirement", os.path.join(HERE, "torch.txt"))
    complete_torch()
