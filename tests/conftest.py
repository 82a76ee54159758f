"""Before anything imports Triton: its kernels run in its interpreter, on the CPU.

``make gpu-test`` and the compilation of kernels say otherwise in their environment.
"""

import os

os.environ.setdefault("TRITON_INTERPRET", "1")
