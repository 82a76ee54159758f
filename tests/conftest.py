"""Before anything imports Triton: its kernels run in its interpreter, on the CPU.

``tests/gpu`` and the compilation of kernels say otherwise.
"""

import os

os.environ.setdefault("TRITON_INTERPRET", "1")
