"""Fuzz a running server with schemathesis, from its own OpenAPI page: no 500, no answer that the page does not know.

omni serve tiny --usp 2 --max-steps 4 --max-pixels 4096 --max-images 2 --max-batch-size 4 --port 8091
python tests/fuzz/fuzz_serve.py http://127.0.0.1:8091 1000
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

#: What is asked of every answer. Not that a valid body is accepted: rules ask more of a request than its schema says.
CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"


def main() -> int:
    """Run ``fuzz_serve.py URL [EXAMPLES]``; exit code 0 where nothing was found."""
    url, examples = sys.argv[1], (sys.argv[2:] or ["200"])[0]
    command = [str(Path(sys.executable).with_name("schemathesis")), "run", f"{url}/openapi.json"]
    command += ["--max-examples", examples, "--checks", f"{CHECKS},negative_data_rejection", "--no-color"]
    return subprocess.run([*command, "--generation-database", "none"], check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
